"""Compiled equals eager, in float64, for small programs of the shapes of Transformers and their gradients.

Products, broadcasts, products with themselves and reductions; a matrix mapped over rows; softmax, norms and attention.
None of them is known to be compiled wrongly with the switches that we use: this is where a new jaxlib that breaks
something else is found.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiler.conftest import SHIPPED
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.no_nnx

Program = Callable[[jax.Array, jax.Array], jax.Array]  # of rows and of one number, which a cotangent may be

TOLERANCE = 1e-12  # times the largest value, or 1 where sums cancel


def check(program: Program, shape: tuple[int, ...], gradient: bool) -> None:
    """Compiled against eager: the program, or the gradient of its plain sum.

    Each is compiled alone: in a program that returns both, the product has two users, and is not fused with the sum.
    """
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        rows, number = jnp.asarray(rng.standard_normal(shape)), jnp.asarray(0.7)
        function = jax.grad(lambda *arguments: jnp.sum(program(*arguments))) if gradient else program
        as_shipped = jax.jit(function, compiler_options=SHIPPED)
        eager, compiled = (np.asarray(run(rows, number)) for run in (function, as_shipped))
    assert np.all(np.isfinite(eager))
    np.testing.assert_allclose(compiled, eager, rtol=0, atol=TOLERANCE * max(1.0, np.max(np.abs(eager))))


def matrices(rows, number):
    """What rows are multiplied with: among them, the broadcast that a plain sum's cotangent is."""
    width = rows.shape[-1]
    line = jnp.cos(jnp.arange(width, dtype=rows.dtype))
    return {
        "equal": jnp.full((width, width), number),
        "lines": jnp.broadcast_to(line, (width, width)),
        "columns": jnp.broadcast_to(line[:, None], (width, width)) * number,
        "different": jnp.cos(jnp.arange(width * width, dtype=rows.dtype)).reshape(width, width),
        "identity": jnp.eye(width, dtype=rows.dtype),
    }


FACTORS = {
    "the rows": lambda product, rows, number: rows,
    "itself": lambda product, rows, number: product,
    "a number": lambda product, rows, number: number,
    "a line": lambda product, rows, number: jnp.sin(jnp.arange(rows.shape[-1], dtype=rows.dtype)),
    "a column": lambda product, rows, number: jnp.sum(rows, axis=-1, keepdims=True),
}
REDUCTIONS = {"sum": jnp.sum, "mean": jnp.mean, "max": jnp.max, "logsumexp": jax.nn.logsumexp}


@settings(max_examples=20)
@given(
    shape=st.sampled_from([(64, 128), (3, 16, 32), (257, 8), (2, 3, 5, 16), (1, 64)]),
    matrix=st.sampled_from(["equal", "lines", "columns", "different", "identity"]),
    factor=st.sampled_from(sorted(FACTORS)),
    reduction=st.sampled_from(sorted(REDUCTIONS)),
    axis=st.sampled_from([-1, 0, -2, (0, -1), None]),
    keepdims=st.booleans(),
    gradient=st.booleans(),
)
@example(shape=(64, 128), matrix="equal", factor="the rows", reduction="sum", axis=-1, keepdims=False, gradient=False)
def test_product_broadcast_product_and_reduction(shape, matrix, factor, reduction, axis, keepdims, gradient) -> None:
    def program(rows, number):
        product = rows @ matrices(rows, number)[matrix]
        return REDUCTIONS[reduction](product * FACTORS[factor](product, rows, number), axis=axis, keepdims=keepdims)

    check(program, shape, gradient)


@settings(max_examples=20)
@given(
    count=st.sampled_from([1, 3, 1025, 4097, 16_385]),
    width=st.sampled_from([1, 2, 3, 8]),
    matrix=st.sampled_from(["equal", "different", "identity"]),
    power=st.sampled_from([1, 2]),
    gradient=st.booleans(),
)
@example(count=16_385, width=3, matrix="identity", power=2, gradient=False)
def test_matrix_mapped_over_rows(count, width, matrix, power, gradient) -> None:
    def program(rows, number):
        return jax.vmap(lambda row: jnp.sum((matrices(rows, number)[matrix] @ row) ** power))(rows)

    check(program, (count, width), gradient)


def softmax(rows, number):
    return jax.nn.softmax(rows * number, axis=-1) * rows


def softmax_cross_entropy(rows, number):
    return -jnp.sum(jax.nn.log_softmax(rows * number)[..., :1], axis=-1)


def layer_norm(rows, number):
    mean = jnp.mean(rows, axis=-1, keepdims=True)
    variance = jnp.mean((rows - mean) ** 2, axis=-1, keepdims=True)
    return ((rows - mean) * jax.lax.rsqrt(variance + 1e-6) * number) ** 3


def rms_norm(rows, number):
    return (rows * jax.lax.rsqrt(jnp.mean(rows**2, axis=-1, keepdims=True) + 1e-6) * number) ** 3


def attention(rows, number):
    scores = jnp.einsum("...qd,...kd->...qk", rows, rows) * number
    return jnp.einsum("...qk,...kd->...qd", jax.nn.softmax(scores, axis=-1), rows)


def attention_of_equal_values(rows, number):
    scores = jnp.einsum("...qd,...kd->...qk", rows, rows) / rows.shape[-1]
    return jnp.einsum("...qk,...kd->...qd", jax.nn.softmax(scores, axis=-1), jnp.full(rows.shape, number)) * rows


def mlp(rows, number):
    matrix = matrices(rows, number)["different"]
    return jax.nn.gelu(rows @ matrix + number) @ matrix.T


PARTS = (softmax, softmax_cross_entropy, layer_norm, rms_norm, attention, attention_of_equal_values, mlp)


@settings(max_examples=12)
@given(
    parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=2),
    shape=st.sampled_from([(64, 128), (3, 16, 32), (2, 4, 17, 8), (257, 8)]),
    gradient=st.booleans(),
)
def test_softmax_norms_attention_and_mlp_one_after_the_other(parts, shape, gradient) -> None:
    def program(rows, number):
        for part in parts:
            rows = part(rows, number)
        return rows

    check(program, shape, gradient)
