"""Every layer against its PyTorch twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from parity.harness import assert_close, assert_parity, channel_first

from flaxformer_edu.convert import Layout, Rule
from flaxformer_edu.layers import (
    BlockConfig,
    DecoderBlock,
    EncoderBlock,
    FeedForward,
    LearnedPositions,
    MultiHeadAttention,
    PatchEmbedding,
    Rotary,
    SinusoidalPositions,
)
from tests.twins import torch_twins

WIDTH, HEADS, HIDDEN = 12, 3, 20


@pytest.fixture(params=[np.float64, np.float32], ids=["float64", "float32"])
def dtype(request):
    torch.manual_seed(0)
    with jax.enable_x64(request.param == np.float64):
        torch.set_default_dtype(torch.float64 if request.param == np.float64 else torch.float32)
        yield request.param
        torch.set_default_dtype(torch.float32)


@pytest.fixture(params=[False, True], ids=["evaluation", "training"])
def train(request):
    return request.param


def draw(dtype, *shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


def block(dtype, **changes):
    config = {"width": WIDTH, "heads": HEADS, "hidden": HIDDEN, "dropout": 0.3, **changes}
    return BlockConfig(**config), {"rngs": nnx.Rngs(0), "param_dtype": dtype}


MASKS = {
    "none": None,
    "causal": np.tri(5, dtype=bool),
    "nothing to attend to": np.array([[1, 0, 1, 0, 0], [0] * 5, [0, 0, 0, 0, 1], [1] * 5, [0] * 5], bool),
    "one a batch element": np.random.default_rng(3).random((2, 1, 5, 5)) < 0.5,
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_self_attention(dtype, train, mask):
    ours = MultiHeadAttention(WIDTH, HEADS, dropout=0.3, rngs=nnx.Rngs(0), param_dtype=dtype)
    x = draw(dtype, 2, 5, WIDTH)
    inputs = [x, x, x] if mask is None else [x, x, x, mask]
    assert_parity(ours, torch_twins.MultiHeadAttention(WIDTH, HEADS, 0.3), inputs, train=train)


def test_cross_attention_with_other_keys_than_values(dtype, train):
    ours = MultiHeadAttention(WIDTH, HEADS, dropout=0.3, rngs=nnx.Rngs(0), param_dtype=dtype)
    inputs = [draw(dtype, 2, 4, WIDTH), draw(dtype, 2, 7, WIDTH), draw(dtype, 2, 7, WIDTH) ** 2]
    assert_parity(ours, torch_twins.MultiHeadAttention(WIDTH, HEADS, 0.3), inputs, train=train)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_attention(dtype, interleaved):
    ours = MultiHeadAttention(WIDTH, HEADS, rotary=Rotary(interleaved=interleaved), rngs=nnx.Rngs(0), param_dtype=dtype)
    twin = torch_twins.MultiHeadAttention(WIDTH, HEADS, 0.0, torch_twins.Rotary(interleaved=interleaved))
    x = draw(dtype, 1, 300, WIDTH)  # positions in the hundreds: short sequences hide mistakes
    assert_parity(ours, twin, [x, x, x], train=False)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
def test_feed_forward(dtype, train, activation):
    ours = FeedForward(WIDTH, HIDDEN, activation=activation, dropout=0.3, rngs=nnx.Rngs(0), param_dtype=dtype)
    twin = torch_twins.FeedForwardNetwork(WIDTH, HIDDEN, 0.3, activation)
    assert_parity(ours, twin, [draw(dtype, 2, 5, WIDTH)], train=train)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_encoder_block(dtype, train, norm):
    config, options = block(dtype, norm=norm)
    twin = torch_twins.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, 0.3, norm == "pre")
    assert_parity(EncoderBlock(config, **options), twin, [draw(dtype, 2, 5, WIDTH), MASKS["causal"]], train=train)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_decoder_block(dtype, train, norm):
    config, options = block(dtype, norm=norm)
    twin = torch_twins.TransformerDecoderLayer(WIDTH, HEADS, HIDDEN, 0.3, norm == "pre")
    inputs = [draw(dtype, 2, 5, WIDTH), draw(dtype, 2, 3, WIDTH), MASKS["causal"]]
    assert_parity(DecoderBlock(config, **options), twin, inputs, train=train)


def test_rotary_encoder_block(dtype, train):
    config, options = block(dtype, rotary=Rotary())
    twin = torch_twins.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, 0.3, rotary=torch_twins.Rotary())
    assert_parity(EncoderBlock(config, **options), twin, [draw(dtype, 2, 5, WIDTH)], train=train)


def test_patch_embedding(dtype):
    ours = PatchEmbedding(4, 3, WIDTH, rngs=nnx.Rngs(0), param_dtype=dtype)
    images = draw(dtype, 2, 8, 8, 3)
    twin = torch_twins.PatchEmbedding(8, 4, 3, WIDTH)
    assert_parity(ours, twin, [images], [channel_first(images)], train=False)


def test_learned_positions(dtype):
    ours = LearnedPositions(7, WIDTH, rngs=nnx.Rngs(0), param_dtype=dtype)
    layout = Layout((Rule("position_embeddings", "embedding"),))
    twin = torch_twins.LearnedPositions(7, WIDTH)
    assert_parity(ours, twin, [draw(dtype, 2, 5, WIDTH)], train=False, layout=layout)


@pytest.mark.parametrize("width", [6, 7])
def test_sinusoidal_positions(dtype, width):
    x = draw(dtype, 2, 5, width)
    twin = torch_twins.PositionalEncoding(width).eval()
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    assert_close("the output", SinusoidalPositions(5, width)(jnp.asarray(x)), twin(torch.tensor(x)).numpy(), tolerance)
