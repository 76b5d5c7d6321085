"""The weights that PyTorch gives the courses' modules, in its order of drawing, as state dicts with their names.

A module is described by its leaves in the order of their registration, which is the order in which they are drawn.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from flaxformer_edu.reference.torch_random import TorchGenerator

StateDict = dict[str, np.ndarray]


@dataclass(frozen=True)
class Leaf:
    """A module without children: its name, and the shape of its weight (nn.Linear: outputs, inputs)."""

    kind: Literal["linear", "embedding", "norm"]
    name: str
    shape: tuple[int, ...]


Leaves = tuple[Leaf, ...]


def linear(name: str, inputs: int, outputs: int) -> Leaf:
    """nn.Linear(inputs, outputs)."""
    return Leaf("linear", name, (outputs, inputs))


def under(prefix: str, leaves: Iterable[Leaf]) -> Leaves:
    """The leaves of a child module."""
    return tuple(replace(leaf, name=f"{prefix}.{leaf.name}") for leaf in leaves)


def attention(width: int) -> Leaves:
    """MultiHeadAttention(width, heads)."""
    return tuple(linear(name, width, width) for name in ("key", "query", "value", "proj"))


def feed_forward(width: int, hidden: int) -> Leaves:
    """FeedForwardNetwork(width, hidden)."""
    return linear("fc1", width, hidden), linear("fc2", hidden, width)


def encoder_layer(width: int, hidden: int) -> Leaves:
    """TransformerEncoderLayer(width, heads, hidden)."""
    norms = (Leaf("norm", name, (width,)) for name in ("norm_self", "norm_ffn"))
    return *under("self_attn", attention(width)), *under("ffn", feed_forward(width, hidden)), *norms


def decoder_layer(width: int, hidden: int) -> Leaves:
    """TransformerDecoderLayer(width, heads, hidden)."""
    attentions = *under("self_attn", attention(width)), *under("cross_attn", attention(width))
    norms = (Leaf("norm", name, (width,)) for name in ("norm_self", "norm_cross", "norm_ffn"))
    return *attentions, *under("ffn", feed_forward(width, hidden)), *norms


def patch_embedding(patch_size: int, channels: int, width: int) -> Leaves:
    """PatchEmbedding(image_size, patch_size, channels, width)."""
    return (linear("proj", patch_size * patch_size * channels, width),)


def torch_init(generator: TorchGenerator, leaves: Leaves) -> StateDict:
    """What constructors draw: U(-1/sqrt(inputs), 1/sqrt(inputs)) for linear maps, N(0, 1) for embeddings."""
    weights: StateDict = {}
    for leaf in leaves:
        if leaf.kind == "linear":
            bound = 1 / math.sqrt(leaf.shape[1])
            weights[f"{leaf.name}.weight"] = generator.uniform(leaf.shape, -bound, bound)
            weights[f"{leaf.name}.bias"] = generator.uniform(leaf.shape[:1], -bound, bound)
        elif leaf.kind == "embedding":
            weights[f"{leaf.name}.weight"] = generator.normal(leaf.shape)
        else:
            weights |= _ones_and_zeros(leaf)
    return weights


def course_init(generator: TorchGenerator, leaves: Leaves) -> StateDict:
    """What the course's `apply(init)` draws then: N(0, 0.02^2) for linear maps and embeddings, zeros for biases."""
    weights: StateDict = {}
    for leaf in leaves:
        if leaf.kind == "norm":
            weights |= _ones_and_zeros(leaf)
            continue
        weights[f"{leaf.name}.weight"] = generator.normal(leaf.shape, 0.0, 0.02)
        if leaf.kind == "linear":
            weights[f"{leaf.name}.bias"] = np.zeros(leaf.shape[:1], np.float32)
    return weights


def _ones_and_zeros(norm: Leaf) -> Mapping[str, np.ndarray]:
    return {
        f"{norm.name}.weight": np.ones(norm.shape, np.float32),
        f"{norm.name}.bias": np.zeros(norm.shape, np.float32),
    }


def captioning_transformer(
    generator: TorchGenerator, *, vocab: int, features: int, width: int, layers: int, hidden: int = 2048
) -> StateDict:
    """CaptioningTransformer: one decoder layer is drawn and copied, all is drawn again, and the output comes last."""
    front = linear("visual_projection", features, width), Leaf("embedding", "embedding", (vocab, width))
    decoder = decoder_layer(width, hidden)
    torch_init(generator, (*front, *decoder))
    copies = (leaf for i in range(layers) for leaf in under(f"transformer.layers.{i}", decoder))
    weights = course_init(generator, (*front, *copies))
    return weights | torch_init(generator, (linear("output", width, vocab),))


def vision_transformer(
    generator: TorchGenerator,
    *,
    patch_size: int = 8,
    channels: int = 3,
    width: int = 128,
    layers: int = 6,
    hidden: int = 256,
    classes: int = 10,
) -> StateDict:
    """VisionTransformer, with the course's defaults: one encoder layer is drawn and copied, then all is drawn again."""
    front = under("patch_embed", patch_embedding(patch_size, channels, width))
    encoder, head = encoder_layer(width, hidden), linear("head", width, classes)
    torch_init(generator, (*front, *encoder, head))
    copies = (leaf for i in range(layers) for leaf in under(f"transformer.layers.{i}", encoder))
    return course_init(generator, (*front, *copies, head))
