"""Every shipped model, small or at a realistic size, with a batch and a loss: what is compiled and compared.

Parameters are float64 and none of them is at the 0 or the 1 where training starts, where a fault might not show. Small
cases share their sizes, so that run eagerly they share their compiled operations too.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from flaxformer_edu.layers import Rotary
from flaxformer_edu.models import (
    MLP,
    CaptioningConfig,
    CaptioningTransformer,
    CausalAttention,
    CausalAttentionConfig,
    CharRNN,
    CharRNNConfig,
    ConvDigit,
    ConvDigitConfig,
    ConvNet,
    ConvNetConfig,
    MLPConfig,
    Seq2SeqConfig,
    Seq2SeqTransformer,
    VisionTransformer,
    ViTCaptioner,
    ViTCaptionerConfig,
    ViTConfig,
)
from flaxformer_edu.training import captioning_loss, cross_entropy, translation_loss

Batch = dict[str, Any]
Loss = Callable[[Any, Batch, nnx.Rngs | None], Array]

BATCH, CLASSES, VOCAB, LENGTH = 4, 5, 12, 7
BLOCKS = {"width": 16, "hidden": 24, "dropout": 0.1}
WORDS = {"alphabet": "abcdefgh", "languages": ("one", "two", "three")}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, a batch, and the loss of the batch: with `rngs` in training, with None in evaluation."""

    model: nnx.Module
    batch: Batch
    loss: Loss


def images_loss(model: Any, batch: Batch, rngs: nnx.Rngs | None) -> Array:
    """The mean cross-entropy of a classifier's logits."""
    return cross_entropy(model(batch["inputs"], rngs=rngs), batch["labels"]).mean()


def captions_loss(model: Any, batch: Batch, rngs: nnx.Rngs | None) -> Array:
    """The course's captioning loss."""
    captions = batch["captions"]
    return captioning_loss(model(batch["inputs"], captions[:, :-1], rngs=rngs), captions[:, 1:])


def sentences_loss(model: Any, batch: Batch, rngs: nnx.Rngs | None) -> Array:
    """The translator's loss, with smoothed labels."""
    target = batch["captions"]
    logits = model(batch["inputs"], target[:, :-1], rngs=rngs)
    return translation_loss(logits, target[:, 1:], label_smoothing=0.1)


def squares_loss(model: Any, batch: Batch, rngs: nnx.Rngs | None) -> Array:
    """The mean square of what the model puts out; such models have no dropout."""
    del rngs
    return (model(batch["inputs"]) ** 2).mean()


def moved(model: nnx.Module) -> nnx.Module:
    """The model with every parameter moved a little from where it starts."""
    random = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + 0.2 / np.sqrt(max(x.shape[0], 16) / 16) * random.normal(size=x.shape), model)


def build(model: Callable[..., nnx.Module], config: Any) -> nnx.Module:
    """A model in float64."""
    return moved(model(config, rngs=nnx.Rngs(0), param_dtype=jnp.float64))


def normal(*shape: int) -> np.ndarray:
    """Random normals, the same for the same shape."""
    return np.random.default_rng(0).normal(size=shape)


def sentences(vocab: int, length: int, *, batch: int = BATCH, start: bool = True) -> np.ndarray:
    """Rows of words, of different lengths, padded; each begins with the start token if `start`."""
    random = np.random.default_rng(2)
    lengths = random.integers(2, length, (batch, 1), endpoint=True)
    words = np.where(np.arange(length) < lengths, random.integers(3, vocab, (batch, length)), 0)
    return np.concatenate([np.ones((batch, 1), int), words], axis=1) if start else words


def classifier(model: Callable[..., nnx.Module], config: Any, *, batch: int = BATCH) -> Case:
    """A classifier of square images."""
    images = normal(batch, config.image_size, config.image_size, config.channels)
    classes = config.classes or config.width  # without a classifier the pooled vector stands for logits
    return Case(
        model=build(model, config), batch={"inputs": images, "labels": np.arange(batch) % classes}, loss=images_loss
    )


def vit(config: ViTConfig, **changes: Any) -> Case:
    """A preset of the Vision Transformer, in small."""
    sizes = {
        "image_size": 8,
        "patch_size": min(config.patch_size, 4),
        "classes": CLASSES,
        "layers": 2,
        "heads": min(config.heads, 2),
        **BLOCKS,
    }
    return classifier(VisionTransformer, replace(config, **{**sizes, **changes}))


def captioner(**changes: Any) -> Case:
    """A captioner of feature vectors."""
    config = CaptioningConfig(vocab=VOCAB, features=6, heads=2, layers=2, max_length=LENGTH, **{**BLOCKS, **changes})
    batch = {"inputs": normal(BATCH, 6), "captions": sentences(VOCAB, LENGTH)}
    return Case(model=build(CaptioningTransformer, config), batch=batch, loss=captions_loss)


def vit_captioner() -> Case:
    """A captioner of pixels."""
    config = ViTCaptionerConfig.small(vocab=VOCAB, max_length=LENGTH)
    vision = replace(config.vision, image_size=8, patch_size=4, layers=2, heads=2, **BLOCKS)
    config = replace(config, vision=vision, features=vision.width, layers=2, heads=2, **BLOCKS)
    batch = {"inputs": normal(BATCH, 8, 8, vision.channels), "captions": sentences(VOCAB, LENGTH)}
    return Case(model=build(ViTCaptioner, config), batch=batch, loss=captions_loss)


def translator(config: Seq2SeqConfig, *, batch: int = BATCH, length: int = LENGTH) -> Case:
    """A translator of sentences."""
    source = sentences(config.source_vocab, length, batch=batch, start=False)
    inputs = {"inputs": source, "captions": sentences(config.vocab, length, batch=batch)}
    return Case(model=build(Seq2SeqTransformer, config), batch=inputs, loss=sentences_loss)


def small_translator(preset: Callable[..., Seq2SeqConfig], source_vocab: int, **changes: Any) -> Case:
    """A preset of the translator, in small."""
    sizes = {"encoder_layers": 2, "decoder_layers": 2, "heads": 2, **BLOCKS}
    config = preset(source_vocab=source_vocab, vocab=VOCAB, max_length=LENGTH + 1, **{**sizes, **changes})
    return translator(config)


def reader(config: CharRNNConfig, *, batch: int = BATCH, length: int = 5) -> Case:
    """A recurrent network that reads words of different lengths."""
    letters = sentences(len(config.alphabet), length, batch=batch, start=False) - 1
    inputs = {"inputs": letters, "labels": np.arange(batch) % len(config.languages)}
    return Case(model=build(CharRNN, config), batch=inputs, loss=images_loss)


def mlp(config: MLPConfig) -> Case:
    """A multilayer perceptron, on the squares of what it puts out."""
    return Case(model=build(MLP, config), batch={"inputs": normal(BATCH, config.widths[0])}, loss=squares_loss)


def conv_digit(config: ConvDigitConfig) -> Case:
    """The course's convolution over digits."""
    batch = {"inputs": normal(BATCH, config.image_size, config.image_size), "labels": np.arange(BATCH)}
    return Case(model=build(ConvDigit, config), batch=batch, loss=images_loss)


def causal_attention() -> Case:
    """The course's attention layer."""
    model = build(CausalAttention, CausalAttentionConfig(width=16))
    return Case(model=model, batch={"inputs": normal(BATCH, LENGTH, 16)}, loss=squares_loss)


SMALL: dict[str, Callable[[], Case]] = {
    "vit cs231n": partial(vit, ViTConfig.cs231n()),
    "vit tuned": partial(vit, ViTConfig.tuned()),
    "vit compact": partial(vit, ViTConfig.compact()),
    "vit digits": partial(vit, ViTConfig.digits()),
    "vit tiles, sinusoidal": partial(vit, ViTConfig.tiles()),
    "vit tiles, learned": partial(vit, ViTConfig.tiles(positions="learned")),
    "vit tiles, rotary": partial(vit, ViTConfig.tiles(positions="rotary")),
    "vit tiles, multiplied": partial(vit, ViTConfig.tiles(positions="multiplied")),
    "vit scratch": partial(vit, ViTConfig.scratch()),
    "vit b16": partial(vit, ViTConfig.b16(), attention_dropout=0.2, hidden_dropout=0.0, drop_path=0.5),
    "vit b16, distilled": partial(vit, ViTConfig.b16(distilled=True)),
    "vit b16, both pooled": partial(vit, ViTConfig.b16(pooling="both", representation=8)),
    "vit b16, pooled norm": partial(vit, ViTConfig.b16(pooling="mean", final_norm="pooled")),
    "vit b16, rows and columns": partial(vit, ViTConfig.b16(positions="sinusoidal_2d"), classes=None),
    "captioner, post-norm": captioner,
    "captioner, pre-norm, rotary": partial(captioner, norm="pre", rotary=Rotary(interleaved=True)),
    "captioner of pixels": vit_captioner,
    "translator base, tied": partial(small_translator, Seq2SeqConfig.base, VOCAB),
    "translator tiny": partial(small_translator, Seq2SeqConfig.tiny, 9),
    "reader project": partial(reader, CharRNNConfig.project(**WORDS, width=16)),
    "reader gated": partial(reader, CharRNNConfig.gated(**WORDS, width=16)),
    "course mlp": partial(mlp, MLPConfig(widths=(6, 16, 24, 1))),
    "course convolution": partial(conv_digit, ConvDigitConfig(image_size=8, hidden=(16, 24), classes=CLASSES)),
    "course attention": causal_attention,
    "cnn": partial(
        classifier, ConvNet, ConvNetConfig(image_size=8, classes=CLASSES, width=8, blocks=(1, 1), dropout=0.1)
    ),
}

# What fuses depends on the sizes: the courses' own, and those of the recipes.
LARGE: dict[str, Callable[[], Case]] = {
    "vit cs231n, as it is": partial(classifier, VisionTransformer, ViTConfig.cs231n(), batch=16),
    "vit tuned, as it is": partial(classifier, VisionTransformer, replace(ViTConfig.tuned(), dropout=0.1), batch=8),
    "vit digits, as it is": partial(classifier, VisionTransformer, ViTConfig.digits(), batch=64),
    "translator tiny, as it is": partial(
        translator, Seq2SeqConfig.tiny(source_vocab=32, vocab=32, max_length=33, dropout=0.1), batch=16, length=32
    ),
    "reader gated, as it is": partial(reader, CharRNNConfig.gated(**WORDS), batch=64, length=8),
}
