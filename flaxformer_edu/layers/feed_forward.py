"""The position-wise feed-forward network, a Transformer's other half."""

from collections.abc import Callable
from functools import partial
from typing import Unpack

import jax
from flax import nnx
from jaxtyping import Array, Float

from flaxformer_edu.errors import InputError
from flaxformer_edu.layers.dropout import Randomness, dropout
from flaxformer_edu.layers.options import LinearOptions

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": partial(jax.nn.gelu, approximate=False),  # exact, as in PyTorch
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
}


class FeedForward(nnx.Module):
    """Two linear maps with an activation between them, applied to each position (Vaswani et al. 2017, equation 2).

    Args:
        hidden: features between the two maps.
        activation: "gelu" (exact: x Phi(x)), "gelu_tanh" (its approximation) or "relu".
        dropout: rate after the activation.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        activation: str = "gelu",
        dropout: float = 0.0,
        rngs: nnx.Rngs,
        **options: Unpack[LinearOptions],
    ):
        if activation not in ACTIVATIONS:
            raise InputError(f"unknown activation {activation!r}: choose one of {', '.join(ACTIVATIONS)}")
        self.activation, self.dropout = activation, dropout
        self.up = nnx.Linear(width, hidden, rngs=rngs, **options)
        self.down = nnx.Linear(hidden, width, rngs=rngs, **options)

    def __call__(
        self, x: Float[Array, "*batch width"], *, rngs: Randomness | None = None
    ) -> Float[Array, "*batch width"]:
        """down(dropout(activation(up(x))))."""
        h = ACTIVATIONS[self.activation](self.up(x))
        return self.down(dropout(h, self.dropout, rngs))
