"""Attention: what no twin can show, namely its laws, its masks' edge cases and its errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import MultiHeadAttention, Rotary, causal_mask, dot_product_attention, padding_mask


def qkv(seed=0, length=5, heads=2, dim=4):
    return jax.random.normal(jax.random.key(seed), (3, 2, length, heads, dim))


def test_equals_jax():
    q, k, v = qkv()
    mask = causal_mask(5)
    out, _ = dot_product_attention(q, k, v, mask)
    np.testing.assert_allclose(out, jax.nn.dot_product_attention(q, k, v, mask=mask[None, None]), atol=1e-6)


@given(seed=st.integers(0, 1000), order=st.permutations(range(5)))
@settings(max_examples=10, deadline=None)
def test_is_equivariant_to_permutations(seed, order):
    q, k, v = qkv(seed)
    order = np.array(order)
    out, weights = dot_product_attention(q, k, v)
    permuted, _ = dot_product_attention(q[:, order], k[:, order[::-1]], v[:, order[::-1]])
    np.testing.assert_allclose(permuted, out[:, order], atol=1e-5)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)


def test_a_row_with_nothing_to_attend_to_is_zero_and_has_no_gradient():
    q, k, v = qkv()
    mask = jnp.ones((5, 5), bool).at[2].set(False)
    out, weights = dot_product_attention(q, k, v, mask)
    assert (out[:, 2] == 0).all()
    assert (weights[:, :, 2] == 0).all()
    gradients = jax.grad(lambda *x: dot_product_attention(*x, mask)[0].sum(), argnums=(0, 1, 2))(q, k, v)
    assert all(jnp.isfinite(g).all() for g in gradients)
    assert (gradients[0][:, 2] == 0).all()


def test_masked_keys_do_not_matter_whatever_they_hold():
    q, k, v = qkv()
    mask = padding_mask(jnp.array([[4, 4, 4, 0, 0], [4, 4, 0, 0, 0]]))
    out, _ = dot_product_attention(q, k, v, mask)
    hidden = ~mask[:, 0, 0, :, None, None]
    other, _ = dot_product_attention(q, jnp.where(hidden, 1e6, k), jnp.where(hidden, -1e6, v), mask)
    np.testing.assert_array_equal(out, other)


def test_softmax_is_at_least_float32():
    q, k, v = qkv().astype(jnp.bfloat16)
    out, weights = dot_product_attention(q, k, v)
    assert (out.dtype, weights.dtype) == (jnp.bfloat16, jnp.float32)
    with jax.enable_x64(True):
        q, k, v = jnp.asarray(qkv(), jnp.float64)
        assert dot_product_attention(q, k, v)[1].dtype == jnp.float64


def test_weights_are_those_of_the_result():
    layer = MultiHeadAttention(8, 2, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (3, 6, 8))
    out, weights = layer.with_weights(x, mask=causal_mask(6))
    np.testing.assert_array_equal(out, layer(x, mask=causal_mask(6)))
    assert weights.shape == (3, 2, 6, 6)
    assert (np.triu(weights, 1) == 0).all()


def test_later_tokens_do_not_change_earlier_ones_under_a_causal_mask():
    layer = MultiHeadAttention(8, 2, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 6, 8))
    out = layer(x, mask=causal_mask(6))
    changed = layer(x.at[:, 4:].add(1.0), mask=causal_mask(6))
    np.testing.assert_array_equal(out[:, :4], changed[:, :4])


class TestMergedProjections:
    def pair(self, **changes):
        """Attention with separate projections, and merged, with the same weights."""
        separate = MultiHeadAttention(64, 4, rngs=nnx.Rngs(0), **changes)
        merged = MultiHeadAttention(64, 4, merged_qkv=True, rngs=nnx.Rngs(1), **changes)
        parts = (separate.query, separate.key, separate.value)
        merged.qkv.kernel[...] = jnp.concatenate([part.kernel[...] for part in parts], axis=1)
        merged.out.kernel[...] = separate.out.kernel[...]
        return separate, merged

    @pytest.mark.parametrize("derivative", [False, True], ids=["forward", "gradient"])
    def test_cost_no_more_than_separate_ones(self, derivative):
        x = jnp.ones((8, 17, 64))

        def operations(layer):
            graphdef, params = nnx.split(layer)

            def loss(params, x):
                return (nnx.merge(graphdef, params)(x) ** 2).sum()

            compiled = jax.jit(jax.grad(loss, argnums=(0, 1)) if derivative else loss).lower(params, x).compile()
            return compiled.cost_analysis()["flops"]

        separate, merged = self.pair(qkv_bias=False)
        assert operations(merged) <= operations(separate)
        # XLA counts the one addition of the bias in full at each of its three uses
        separate, merged = self.pair()
        assert operations(merged) <= 1.02 * operations(separate)

    @pytest.mark.parametrize("rotary", [None, Rotary()])
    def test_give_the_same_numbers_at_once_and_from_a_cache(self, rotary):
        separate, merged = self.pair(rotary=rotary)
        x = jax.random.normal(jax.random.key(0), (2, 6, 64))
        expected = separate(x, mask=causal_mask(6))
        np.testing.assert_allclose(merged(x, mask=causal_mask(6)), expected, atol=1e-6)
        for layer in (separate, merged):
            last = layer(x[:, 4:], layer.keys_values(x), mask=causal_mask(6)[4:], start=4)
            np.testing.assert_allclose(last, expected[:, 4:], atol=1e-6)

    def test_serve_another_sequence_too(self):
        separate, merged = self.pair()
        x, key, value = jax.random.normal(jax.random.key(0), (3, 2, 6, 64))
        for inputs in ((x, key[:, :5]), (x, key, value), (x, None, value)):
            np.testing.assert_allclose(merged(*inputs), separate(*inputs), atol=1e-6)


def test_rotary_may_be_any_function_of_heads_and_position():
    def shift(heads, start):
        return heads + start

    layer = MultiHeadAttention(8, 2, rotary=shift, rngs=nnx.Rngs(0))
    plain = MultiHeadAttention(8, 2, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 6, 8))
    np.testing.assert_array_equal(layer(x), plain(x))
    q, k, v = plain.project(x)
    turned = layer.project(x, start=3)
    for found, expected in zip(turned, (q + 3, k + 3, v), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("unchecked")
class TestErrors:
    def test_width_not_divisible_by_heads(self):
        with pytest.raises(InputError, match="width 10 is not divisible by 4 heads"):
            MultiHeadAttention(10, 4, rngs=nnx.Rngs(0))

    @pytest.mark.parametrize("shape", [(6, 8), (1, 6, 9), (1, 2, 6, 8)])
    def test_wrong_rank_or_width(self, shape):
        layer = MultiHeadAttention(8, 2, rngs=nnx.Rngs(0))
        with pytest.raises(InputError, match=r"query has shape .* expected \(batch, length, width=8\)"):
            layer(jnp.ones(shape))

    @pytest.mark.parametrize(("other", "match"), [((2, 6, 8), "batch"), ((1, 5, 8), "length")])
    def test_keys_and_values_that_do_not_fit(self, other, match):
        layer = MultiHeadAttention(8, 2, rngs=nnx.Rngs(0))
        with pytest.raises(InputError, match=f"value has shape .*{match}="):
            layer(jnp.ones((1, 6, 8)), jnp.ones((1, 6, 8)), jnp.ones(other))

    @pytest.mark.parametrize("shape", [(6, 5), (1, 6, 6), (6,), (2, 2, 6, 6), (1, 3, 6, 6), (1, 1, 1, 6, 6)])
    def test_mask_of_a_wrong_shape(self, shape):
        layer = MultiHeadAttention(8, 2, rngs=nnx.Rngs(0))
        with pytest.raises(InputError, match="mask has shape"):
            layer(jnp.ones((1, 6, 8)), mask=jnp.ones(shape, bool))

    def test_mask_that_is_not_boolean(self):
        layer = MultiHeadAttention(8, 2, rngs=nnx.Rngs(0))
        with pytest.raises(InputError, match="expected bool, True = attend"):
            layer(jnp.ones((1, 6, 8)), mask=jnp.tril(jnp.ones((6, 6))))
