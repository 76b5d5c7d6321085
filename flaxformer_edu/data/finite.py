"""What in a batch is not finite, for the message of a training that ends in NaN."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np


def blame_data(train: Callable[[int], Mapping[str, np.ndarray]], step: int) -> str | None:
    """What is not finite in the batch of the step, or of the one whose update it began with; None for nothing."""
    for earlier in range(max(step - 1, 1), step + 1):
        arrays = {name: np.asarray(array) for name, array in train(earlier - 1).items()}
        floating = {name: array for name, array in arrays.items() if jnp.issubdtype(array.dtype, jnp.inexact)}
        if names := [name for name, array in floating.items() if not np.isfinite(array).all()]:
            return f"The batch of step {earlier} holds NaN or infinities in {', '.join(names)}"
    return None
