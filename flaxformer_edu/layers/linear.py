"""What every layer is made of: linear maps, norms, and the options that it passes on to them."""

from typing import TypedDict, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float


class LinearOptions(TypedDict, total=False):
    """Keyword arguments that a layer passes on to its linear maps.

    `param_dtype` is the type the parameters are stored in (default float32), `dtype` the type of the computation
    (default: promoted from input and parameters), `kernel_init` how kernels are drawn.
    """

    dtype: DTypeLike | None
    param_dtype: DTypeLike
    kernel_init: Initializer


class Linear(nnx.Linear):
    """`nnx.Linear` for sequences: the same parameters and numbers, laid out as compilers like them.

    All tokens go through as the rows of one matrix: a gradient summed over two axes would first be turned round in
    memory. On a CPU, moreover, XLA computes the gradient of what follows, such as GELU and dropout, once more for the
    bias, column by column; the barrier makes it compute that once (benchmarks/guard.py has the figures).
    """

    def __call__(self, inputs: Float[Array, "*batch features"]) -> Float[Array, "*batch outputs"]:  # type: ignore[override]
        """inputs @ kernel + bias."""
        rows = super().__call__(inputs.reshape(-1, inputs.shape[-1]))
        if jax.default_backend() == "cpu":
            rows = jax.lax.optimization_barrier(rows)
        return rows.reshape(*inputs.shape[:-1], rows.shape[-1])


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
