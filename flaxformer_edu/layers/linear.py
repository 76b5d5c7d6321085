"""The linear map of the blocks: Flax's, on the rows of one matrix."""

import jax
from flax import nnx
from jaxtyping import Array, Float


class Linear(nnx.Linear):
    """`nnx.Linear` for sequences: the same parameters and the same numbers, laid out as compilers like them.

    The tokens of all sequences go through as the rows of one matrix. A gradient that is summed over two axes of tokens
    would first be turned round in memory. On a CPU, moreover, XLA computes the gradient of whatever follows the map,
    such as GELU and dropout, once more for the bias, column by column: the barrier makes it compute that once.
    Together they take a third off the course's training steps (benchmarks/guard.py).
    """

    def __call__(self, inputs: Float[Array, "*batch features"]) -> Float[Array, "*batch outputs"]:  # type: ignore[override]
        """inputs @ kernel + bias."""
        rows = super().__call__(inputs.reshape(-1, inputs.shape[-1]))
        if jax.default_backend() == "cpu":
            rows = jax.lax.optimization_barrier(rows)
        return rows.reshape(*inputs.shape[:-1], rows.shape[-1])
