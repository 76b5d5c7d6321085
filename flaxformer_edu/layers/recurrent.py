"""Recurrent networks under `lax.scan`, for batches whose sequences differ in length."""

from collections.abc import Callable
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from flaxformer_edu.layers.linear import LinearOptions

UNROLL = 8  # steps per turn of the compiled loop: fewer turns are faster, and still quick to compile


def scan_states(
    step: Callable[[Array, Array], Array],
    start: Float[Array, "batch width"],
    inputs: Float[Array, "batch length features"],
    mask: Bool[Array, "batch length"],
    *,
    reverse: bool = False,
) -> tuple[Float[Array, "batch width"], Float[Array, "batch length width"]]:
    """The last state of a recurrence, and all of them: h[t] = step(h[t - 1], inputs[t]), with `start` before the first.

    Where `mask` is False the state is carried over unchanged, so that padding, before or after a sequence, changes
    nothing. `reverse` runs from the last position to the first; h[t] then follows h[t + 1].
    """

    def advance(state: Array, position: tuple[Array, Array]) -> tuple[Array, Array]:
        x, real = position
        state = jnp.where(real[:, None], step(state, x), state)
        return state, state

    positions = (inputs.swapaxes(0, 1), mask.T)  # scan goes along the first axis
    last, states = jax.lax.scan(advance, start, positions, reverse=reverse, unroll=UNROLL)
    return last, states.swapaxes(0, 1)


class GRU(nnx.Module):
    """Gated recurrent unit, in the form of cuDNN and PyTorch: the reset gate acts after the matrix product.

        reset  = sigmoid(W_r x + U_r h)
        update = sigmoid(W_u x + U_u h)
        new    = tanh(W_n x + reset * (U_n h))
        h      = (1 - update) * new + update * h

    All maps have biases. Source: Cho et al. 2014, section 2.3, where the reset gate acts before the product.

    Args:
        features: of the input at each position.
        width: of the state.
        reverse: read from the last position to the first.
    """

    def __init__(
        self,
        features: int,
        width: int,
        *,
        reverse: bool = False,
        rngs: nnx.Rngs,
        **options: Unpack[LinearOptions],
    ):
        self.width, self.reverse = width, reverse
        self.input = nnx.Linear(features, 3 * width, rngs=rngs, **options)
        self.state = nnx.Linear(width, 3 * width, rngs=rngs, **options)

    def __call__(
        self, x: Float[Array, "batch length features"], mask: Bool[Array, "batch length"]
    ) -> Float[Array, "batch length width"]:
        """The states at all positions, from a state of zeros on; see `scan_states` for the mask."""
        inputs = self.input(x)  # for all positions at once: only the state's part has to wait for its turn
        start = jnp.zeros((x.shape[0], self.width), inputs.dtype)
        return scan_states(self.step, start, inputs, mask, reverse=self.reverse)[1]

    def step(self, h: Float[Array, "batch width"], x: Float[Array, "batch gates"]) -> Float[Array, "batch width"]:
        """The next state, given the input's part of the three gates."""
        x_reset, x_update, x_new = jnp.split(x, 3, axis=-1)
        h_reset, h_update, h_new = jnp.split(self.state(h), 3, axis=-1)
        reset, update = jax.nn.sigmoid(x_reset + h_reset), jax.nn.sigmoid(x_update + h_update)
        new = jnp.tanh(x_new + reset * h_new)
        return (1 - update) * new + update * h
