"""Blocks and stacks: structure, options and compute types; the arithmetic is checked in parity/."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import (
    BlockConfig,
    Decoder,
    DecoderBlock,
    Encoder,
    EncoderBlock,
    FeedForward,
    Rotary,
    causal_mask,
)

CONFIG = BlockConfig(width=8, heads=2, hidden=16, dropout=0.1)
X = jax.random.normal(jax.random.key(0), (2, 5, 8))


@pytest.mark.parametrize("final_norm", [False, True])
def test_stacks_apply_their_blocks_in_order(final_norm):
    encoder = Encoder(CONFIG, 3, final_norm=final_norm, rngs=nnx.Rngs(0))
    expected = X
    for block in encoder.blocks:
        expected = block(expected)
    np.testing.assert_array_equal(encoder(X), encoder.norm(expected) if final_norm else expected)
    decoder = Decoder(CONFIG, 2, final_norm=final_norm, rngs=nnx.Rngs(0))
    expected = decoder.blocks[1](decoder.blocks[0](X, X, causal_mask(5)), X, causal_mask(5))
    np.testing.assert_array_equal(decoder(X, X, causal_mask(5)), decoder.norm(expected) if final_norm else expected)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_attention_maps_are_those_of_the_forward_pass(norm):
    encoder = Encoder(BlockConfig(width=8, heads=2, hidden=16, norm=norm), 2, rngs=nnx.Rngs(0))
    maps = encoder.attention_maps(X)
    assert maps.shape == (2, 2, 2, 5, 5)
    first, second = encoder.blocks
    h = first(X)
    h = second.norm1(h) if norm == "pre" else h
    np.testing.assert_array_equal(maps[1], second.attention.with_weights(h)[1])


def test_modules_hold_parameters_and_nothing_else():
    for module in (EncoderBlock(CONFIG, rngs=nnx.Rngs(0)), DecoderBlock(CONFIG, rngs=nnx.Rngs(0))):
        _, params, rest = nnx.split(module, nnx.Param, ...)
        assert jax.tree.leaves(params)
        assert not jax.tree.leaves(rest)


def test_compute_and_parameter_types():
    block = EncoderBlock(CONFIG, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
    assert {p.dtype for p in jax.tree.leaves(nnx.state(block))} == {jnp.dtype("float32")}
    assert block(X).dtype == jnp.bfloat16
    half = EncoderBlock(CONFIG, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16)
    assert {p.dtype for p in jax.tree.leaves(nnx.state(half))} == {jnp.dtype("bfloat16")}


def test_gradients_reach_every_parameter():
    graphdef, params = nnx.split(DecoderBlock(CONFIG, rngs=nnx.Rngs(0)))
    memory = X[:, :3] * 2

    @jax.jit
    def loss(params):
        return (nnx.merge(graphdef, params)(X, memory, causal_mask(5), rngs=nnx.Rngs(1)) ** 3).sum()

    assert all((gradient != 0).any() for gradient in jax.tree.leaves(jax.grad(loss)(params)))


class TestOptionsOfBothAttentionsOfADecoderBlock:
    def block(self, **changes):
        return DecoderBlock(BlockConfig(width=8, heads=2, hidden=16, **changes), rngs=nnx.Rngs(0))

    def test_output_projection(self):
        block = self.block(output_projection=False)
        assert block.attention.out is block.cross_attention.out is None
        assert block(X, X).shape == X.shape

    def test_bias(self):
        block = self.block(qkv_bias=False)
        assert block.attention.value.bias is block.cross_attention.value.bias is None

    def test_rotary_turns_the_sequence_and_not_the_memory(self):
        turned, plain = self.block(rotary=Rotary()), self.block()
        moved = X[:, ::-1]  # attention to a memory without positions does not see its order
        np.testing.assert_allclose(turned(X, X), turned(X, moved), atol=1e-6)
        assert (turned(X, X) != plain(X, X)).any()

    def test_merged_projections_are_refused(self):
        with pytest.raises(InputError, match="merged_qkv is True, but a decoder"):
            self.block(merged_qkv=True)


@pytest.mark.usefixtures("unchecked")
class TestErrors:
    def test_unknown_norm(self):
        with pytest.raises(InputError, match="'pre' or 'post'"):
            BlockConfig(width=8, heads=2, hidden=16, norm="sandwich")

    def test_unknown_activation(self):
        with pytest.raises(InputError, match="gelu_tanh"):
            FeedForward(8, 16, activation="swish", rngs=nnx.Rngs(0))
