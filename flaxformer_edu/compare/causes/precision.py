"""Matrix products of rounded numbers, as accelerators compute them for speed.

Rounding can be reproduced exactly only where the very same numbers are rounded. So a difference that shrinks with it,
even if it does not vanish, is put down to it.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from flaxformer_edu.compare.causes.trial import Case, Trial
from flaxformer_edu.compare.sides.ours import float_type
from flaxformer_edu.layers import MultiHeadAttention, dot_product_attention

Rounding = Callable[[Float[Array, "..."]], Float[Array, "..."]]
MATRICES = (nnx.Linear, nnx.LinearGeneral, nnx.Conv)
EXPONENT = 8  # bits, of float32, TF32 and bfloat16 alike
MANTISSA = {"TF32": 10, "bfloat16": 7}


def tf32(case: Case) -> Iterator[Trial]:
    """Operands rounded to TF32: on a GPU the default of PyTorch's convolutions, and an option of its products.

    On a GPU it is also the default of JAX's products.
    """
    if jax.default_backend() != "cpu":  # where no product is rounded
        explanation = "our matrix products are rounded: see jax_default_matmul_precision"
        yield from case.trial(explanation, nnx.Module, _be_precise, _is_linear)
    advice = "see torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32"
    yield from _rounded(case, _nearest, "TF32", f"rounded to TF32: {advice}")
    yield from _rounded(case, _towards_zero, "TF32", f"cut off to TF32: {advice}")


def bfloat16(case: Case) -> Iterator[Trial]:
    """Operands rounded to bfloat16, an option on processors that multiply it."""
    yield from _rounded(case, _nearest, "bfloat16", "rounded to bfloat16: see torch.set_float32_matmul_precision")


def _rounded(case: Case, rounding: Callable[..., Any], kind: str, explanation: str) -> Iterator[Trial]:
    """With all matrix products in the scope changed, then with attention's own alone."""
    if jnp.finfo(float_type(case.model)).nmant <= MANTISSA[kind]:
        return
    choices = {"their matrix products see": _multiplies, "their attention sees": _attends}
    for what, only in choices.items():
        change = partial(_round_operands, partial(rounding, MANTISSA[kind]))
        for trial in case.trial(f"{what} numbers {explanation}", nnx.Module, change, only):
            yield replace(trial, slack=math.inf)


def _is_linear(module: nnx.Module) -> bool:
    return isinstance(module, MATRICES)


def _attends(module: nnx.Module) -> bool:
    return isinstance(module, MultiHeadAttention)


def _multiplies(module: nnx.Module) -> bool:
    return _is_linear(module) or _attends(module)


def _be_precise(module: Any) -> None:
    module.precision = jax.lax.Precision.HIGHEST


def _round_operands(rounding: Rounding, module: Any) -> None:
    if _attends(module):
        module.__class__, module.rounding = RoundedAttention, rounding
    else:
        module.promote_dtype = partial(_promoted, module.promote_dtype, rounding)


def _promoted(promote: Callable[..., Any], rounding: Rounding, arrays: Any, **options: Any) -> Any:
    """What a layer computes with: its input and kernel, rounded, and its bias."""
    inputs, kernel, bias = promote(arrays, **options)
    return rounding(inputs), rounding(kernel), bias


class RoundedAttention(MultiHeadAttention):
    """Attention whose two matrix products see rounded numbers."""

    rounding: Rounding

    def with_weights(self, query: Any, key: Any = None, value: Any = None, mask: Any = None, *, start=0, rngs=None):
        """As of the class that it stands in for, in evaluation."""
        del rngs
        q, k, v = (self.rounding(x) for x in self.project(query, key, value, start=start))
        _, weights = dot_product_attention(q, k, v, mask)
        heads = jnp.einsum("bhqk,bkhd->bqhd", self.rounding(weights), v)
        mixed = rearrange(heads, "batch query head dim -> batch query (head dim)")
        return mixed if self.out is None else self.out(mixed), weights


def _nearest(mantissa: int, x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jax.lax.reduce_precision(x, EXPONENT, mantissa)


def _towards_zero(mantissa: int, x: Float[Array, "..."]) -> Float[Array, "..."]:
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
    left_out = jnp.finfo(x.dtype).nmant - mantissa
    return jax.lax.bitcast_convert_type(bits >> left_out << left_out, x.dtype)
