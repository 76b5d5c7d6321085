"""The courses' seven recipes: from a seed to the tensors that are printed, with our layers and without torch."""

from collections.abc import Callable

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from flaxformer_edu.convert import from_torch, load_weights
from flaxformer_edu.layers import (
    BlockConfig,
    DecoderBlock,
    EncoderBlock,
    MultiHeadAttention,
    PatchEmbedding,
    SinusoidalPositions,
    dropout,
)
from flaxformer_edu.models import CaptioningConfig, CaptioningTransformer, VisionTransformer, ViTConfig
from flaxformer_edu.reference import torch_weights
from flaxformer_edu.reference.torch_random import TorchGenerator

Outputs = dict[str, Float[Array, "..."]]
RATE = 0.1


def train_mode(model: nnx.Module, generator: TorchGenerator, *inputs: np.ndarray | None) -> Float[Array, "..."]:
    """The jit-compiled output in training mode.

    The masks are drawn while the model is traced, in the order in which PyTorch draws them while it runs.
    """
    graphdef, state = nnx.split(model)

    def run(state, *inputs):
        return nnx.merge(graphdef, state)(*inputs, rngs=generator)

    with jax.default_matmul_precision("highest"):
        return jax.jit(run)(state, *inputs)


def attention(generator: TorchGenerator) -> Outputs:
    """Self-attention, masked self-attention and cross-attention, one after the other."""
    weights = torch_weights.torch_init(generator, torch_weights.attention(8))
    layer = MultiHeadAttention(8, 2, dropout=RATE, rngs=nnx.Rngs(0))
    layer = load_weights(layer, weights, layout="cs231n")
    data = generator.randn(1, 3, 8)
    self_attention = train_mode(layer, generator, data)
    mask = generator.randn(3, 3) < 0.5
    masked = train_mode(layer, generator, data, None, None, mask)
    other = generator.randn(1, 3, 8)
    cross = train_mode(layer, generator, data, other)
    return {"attention.self": self_attention, "attention.masked": masked, "attention.cross": cross}


def positional_encoding(generator: TorchGenerator) -> Outputs:
    """Sinusoids added to two positions, then dropout."""

    def encode(data):
        return dropout(SinusoidalPositions(2, 6)(data), RATE, generator)

    return {"positional_encoding": jax.jit(encode)(generator.randn(1, 2, 6))}


def decoder_layer(generator: TorchGenerator) -> Outputs:
    """A decoder block with a random mask."""
    weights = torch_weights.torch_init(generator, torch_weights.decoder_layer(12, 48))
    layer = DecoderBlock(BlockConfig(width=12, heads=2, hidden=48, dropout=RATE), rngs=nnx.Rngs(0))
    layer = load_weights(layer, weights, layout="cs231n")
    target, memory = generator.randn(1, 4, 12), generator.randn(1, 5, 12)
    return {"decoder_layer": train_mode(layer, generator, target, memory, generator.randn(4, 4) < 0.5)}


def encoder_layer(generator: TorchGenerator) -> Outputs:
    """An encoder block with a random mask."""
    weights = torch_weights.torch_init(generator, torch_weights.encoder_layer(12, 48))
    layer = EncoderBlock(BlockConfig(width=12, heads=2, hidden=48, dropout=RATE), rngs=nnx.Rngs(0))
    layer = load_weights(layer, weights, layout="cs231n")
    data = generator.randn(1, 4, 12)
    return {"encoder_layer": train_mode(layer, generator, data, generator.randn(4, 4) < 0.5)}


def patch_embedding(generator: TorchGenerator) -> Outputs:
    """Four patches an image; no dropout."""
    weights = torch_weights.torch_init(generator, torch_weights.patch_embedding(8, 3, 8))
    layer = load_weights(PatchEmbedding(8, 3, 8, rngs=nnx.Rngs(0)), weights, layout="cs231n")
    graphdef, state = nnx.split(layer)
    with jax.default_matmul_precision("highest"):
        embed = jax.jit(lambda state, images: nnx.merge(graphdef, state)(images))
        return {"patch_embedding": embed(state, channel_last(generator.randn(2, 3, 16, 16)))}


def captioning(generator: TorchGenerator) -> Outputs:
    """Scores of a captioner with three words."""
    config = CaptioningConfig.cs231n(vocab=3, features=20, width=30, layers=2, heads=2, max_length=30)
    weights = torch_weights.captioning_transformer(generator, vocab=3, features=20, width=30, layers=2)
    model = from_torch(CaptioningTransformer, config, weights, layout="cs231n")
    features = generator.randn(4, 20)
    captions = generator.randint(0, 3, (4, 3)).astype(np.int32)
    return {"captioning": train_mode(model, generator, features, captions)}


def vision_transformer(generator: TorchGenerator) -> Outputs:
    """Scores of three images; the images are drawn before the weights."""
    images = channel_last(generator.randn(3, 3, 32, 32))
    weights = torch_weights.vision_transformer(generator)
    model = from_torch(VisionTransformer, ViTConfig.cs231n(), weights, layout="cs231n")
    return {"vision_transformer": train_mode(model, generator, images)}


def channel_last(images: Float[np.ndarray, "batch channel height width"]) -> Float[np.ndarray, "..."]:
    """PyTorch's image layout to ours."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


RECIPES: tuple[Callable[[TorchGenerator], Outputs], ...] = (
    attention,
    positional_encoding,
    decoder_layer,
    captioning,
    patch_embedding,
    encoder_layer,
    vision_transformer,
)
