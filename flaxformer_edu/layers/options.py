"""What every layer passes on to the Flax layers inside it."""

from typing import TypedDict, Unpack

import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike


class LinearOptions(TypedDict, total=False):
    """Keyword arguments that a layer passes on to its linear maps.

    `param_dtype` is the type the parameters are stored in (default float32), `dtype` the type of the computation
    (default: promoted from input and parameters), `kernel_init` how kernels are drawn.
    """

    dtype: DTypeLike | None
    param_dtype: DTypeLike
    kernel_init: Initializer


def layer_norm(width: int, epsilon: float, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]) -> nnx.LayerNorm:
    """Layer normalisation (Ba et al. 2016) as PyTorch computes it: two passes, statistics in float32 at least."""
    return nnx.LayerNorm(
        width,
        epsilon=epsilon,
        use_fast_variance=False,
        dtype=options.get("dtype"),
        param_dtype=options.get("param_dtype", jnp.float32),
        rngs=rngs,
    )
