"""PyTorch's own Transformer modules against ours, with every mask they take."""

import math

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from parity.harness import assert_parity
from torch import nn

from flaxformer_edu import convert
from flaxformer_edu.convert.layouts import torch_nn
from flaxformer_edu.layers import DecoderBlock, EncoderBlock, MultiHeadAttention
from flaxformer_edu.models import Seq2SeqConfig, Seq2SeqTransformer
from flaxformer_edu.models.seq2seq import Transformer
from tests.twins.torch_twins import PositionalEncoding

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")

WIDTH, HEADS, HIDDEN, SOURCE, TARGET = 12, 3, 20, 7, 5
REAL_SOURCE = np.arange(SOURCE) < np.array([7, 4, 1])[:, None]  # tails that are padding
REAL_TARGET = np.arange(TARGET) < np.array([3, 5, 1])[:, None]
CAUSAL = np.tri(TARGET, dtype=bool)


@pytest.fixture(params=[np.float64, np.float32], ids=["float64", "float32"])
def dtype(request):
    torch.manual_seed(0)
    with jax.enable_x64(request.param == np.float64):
        torch.set_default_dtype(torch.float64 if request.param == np.float64 else torch.float32)
        yield request.param
        torch.set_default_dtype(torch.float32)


def draw(dtype, *shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


def random_mask(queries, keys):
    """Whichever; but every query may attend to the first key, as PyTorch answers NaN where there is nothing."""
    return (np.random.default_rng(queries + keys).random((queries, keys)) < 0.6) | (np.arange(keys) == 0)


def config(norm="post", activation="relu", **changes):
    sizes = {"width": WIDTH, "heads": HEADS, "hidden": HIDDEN, "encoder_layers": 2, "decoder_layers": 3}
    words = {"source_vocab": 9, "vocab": 6, "max_length": 8}
    return Seq2SeqConfig(**sizes, **words, norm=norm, activation=activation, final_norm="tokens", **changes)


def settings(norm="post", activation="relu"):
    sizes = {"dim_feedforward": HIDDEN, "dropout": 0.0, "batch_first": True}
    return {**sizes, "activation": activation, "norm_first": norm == "pre"}


def layout(module_type):
    return torch_nn.LAYOUTS[module_type]


def keys(real):
    return real[:, None, None]


STYLES = [("post", "relu"), ("pre", "relu"), ("post", "gelu")]


class TwinTransformer(nn.Transformer):
    """With our masks, True = attend, in place of PyTorch's; the sequences' come apart, as PyTorch wants them."""

    def forward(self, source, target, source_mask, target_mask, memory_mask, real_source, real_target):
        return super().forward(
            source,
            target,
            src_mask=~source_mask,
            tgt_mask=~target_mask,
            memory_mask=~memory_mask,
            src_key_padding_mask=~real_source,
            tgt_key_padding_mask=~real_target,
            memory_key_padding_mask=~real_source,
        )


@pytest.mark.parametrize(("norm", "activation"), STYLES)
def test_transformer_with_all_its_masks(dtype, norm, activation):
    twin = TwinTransformer(WIDTH, HEADS, 2, 3, **settings(norm, activation))
    ours = Transformer(config(norm, activation), rngs=nnx.Rngs(0), param_dtype=dtype)
    source_mask, memory_mask = random_mask(SOURCE, SOURCE), random_mask(TARGET, SOURCE)
    sequences = [draw(dtype, 3, SOURCE, WIDTH), draw(dtype, 3, TARGET, WIDTH)]
    masks = [source_mask & keys(REAL_SOURCE), CAUSAL & keys(REAL_TARGET), memory_mask & keys(REAL_SOURCE)]
    torch_masks = [source_mask, CAUSAL, memory_mask, REAL_SOURCE, REAL_TARGET]
    inputs, torch_inputs = [*sequences, *masks], [*sequences, *torch_masks]
    assert_parity(ours, twin, inputs, torch_inputs, train=False, layout=layout(Transformer))


class TwinAttention(nn.MultiheadAttention):
    def forward(self, query, key, value, mask):
        return super().forward(query, key, value, attn_mask=~mask, need_weights=False)[0]


def test_attention(dtype):
    twin = TwinAttention(WIDTH, HEADS, batch_first=True)
    ours = MultiHeadAttention(WIDTH, HEADS, rngs=nnx.Rngs(0), param_dtype=dtype)
    inputs = [draw(dtype, 2, 4, WIDTH), draw(dtype, 2, 7, WIDTH), draw(dtype, 2, 7, WIDTH) ** 2, random_mask(4, 7)]
    assert_parity(ours, twin, inputs, train=False, layout=layout(MultiHeadAttention))


class TwinEncoderLayer(nn.TransformerEncoderLayer):
    def forward(self, x, mask):
        return super().forward(x, src_mask=~mask)


class TwinDecoderLayer(nn.TransformerDecoderLayer):
    def forward(self, x, memory, mask, memory_mask):
        return super().forward(x, memory, tgt_mask=~mask, memory_mask=~memory_mask)


@pytest.mark.parametrize(("norm", "activation"), STYLES)
class TestLayers:
    def test_encoder_layer(self, dtype, norm, activation):
        twin = TwinEncoderLayer(WIDTH, HEADS, **settings(norm, activation))
        ours = EncoderBlock(config(norm, activation), rngs=nnx.Rngs(0), param_dtype=dtype)
        inputs = [draw(dtype, 2, SOURCE, WIDTH), random_mask(SOURCE, SOURCE)]
        assert_parity(ours, twin, inputs, train=False, layout=layout(EncoderBlock))

    def test_decoder_layer(self, dtype, norm, activation):
        twin = TwinDecoderLayer(WIDTH, HEADS, **settings(norm, activation))
        ours = DecoderBlock(config(norm, activation), rngs=nnx.Rngs(0), param_dtype=dtype)
        inputs = [draw(dtype, 2, TARGET, WIDTH), draw(dtype, 2, SOURCE, WIDTH), CAUSAL, random_mask(TARGET, SOURCE)]
        assert_parity(ours, twin, inputs, train=False, layout=layout(DecoderBlock))


class TokenEmbedding(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.embedding = nn.Embedding(vocab, WIDTH)

    def forward(self, tokens):
        return self.embedding(tokens) * math.sqrt(WIDTH)


class TutorialTransformer(nn.Module):
    """The model of PyTorch's tutorial "Language Translation with nn.Transformer", its masks made within."""

    def __init__(self):
        super().__init__()
        self.transformer = nn.Transformer(WIDTH, HEADS, 2, 3, **settings())
        self.generator = nn.Linear(WIDTH, 6)
        self.src_tok_emb, self.tgt_tok_emb = TokenEmbedding(9), TokenEmbedding(6)
        self.positional_encoding = PositionalEncoding(WIDTH, 0.0, max_len=8)

    def forward(self, source, target):
        no_source, no_target = source == 0, target == 0
        output = self.transformer(
            self.positional_encoding(self.src_tok_emb(source)),
            self.positional_encoding(self.tgt_tok_emb(target)),
            tgt_mask=torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).triu(1),
            src_key_padding_mask=no_source,
            tgt_key_padding_mask=no_target,
            memory_key_padding_mask=no_source,
        )
        return self.generator(output)


def ids():
    random = np.random.default_rng(0)
    source = np.where(REAL_SOURCE, random.integers(1, 9, (3, SOURCE)), 0)
    return [source, np.where(REAL_TARGET, random.integers(1, 6, (3, TARGET)), 0)]


def test_the_tutorials_translator(dtype):
    ours = Seq2SeqTransformer(config(), rngs=nnx.Rngs(0), param_dtype=dtype)
    assert_parity(ours, TutorialTransformer(), ids(), train=False, layout=layout(Seq2SeqTransformer))


@pytest.mark.parametrize("dtype", [np.float32], indirect=True)
def test_round_trip_is_bit_exact(dtype):
    weights = TutorialTransformer().state_dict()
    model = convert.from_torch(Seq2SeqTransformer, config(), weights, layout=layout(Seq2SeqTransformer))
    back = convert.to_torch(model, layout=layout(Seq2SeqTransformer))
    assert back.keys() == weights.keys()
    assert all(back[name].tobytes() == tensor.contiguous().numpy().tobytes() for name, tensor in weights.items())
