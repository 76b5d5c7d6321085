"""The kinds of models that are ported: PyTorch's own, the course's, a tutorial's, and those of three libraries."""

import warnings
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

import numpy as np
import torch
from flax import nnx

from benchmarks.false_alarms.ports import Size
from flaxformer_edu.layers import BlockConfig, Encoder
from flaxformer_edu.models import CaptioningConfig, CaptioningTransformer, VisionTransformer, ViTConfig
from flaxformer_edu.models.seq2seq import Seq2SeqConfig, Transformer
from tests.twins import torch_twins, vit_twins
from tests.twins.libraries import import_torchvision

CLASSES, IMAGE, PATCH, LENGTH, FEATURES = 5, 12, 4, 7, 10
IMAGES = {"image_size": IMAGE, "patch_size": PATCH}
WORDS = {"<NULL>": 0, "<START>": 1, "<END>": 2, "cat": 3, "dog": 4}


def libraries(name: str) -> ModuleType:
    """One of them, which imports torchvision."""
    with warnings.catch_warnings(), suppress(ImportError):
        warnings.simplefilter("ignore")
        import_torchvision()  # all of them import it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return __import__(name)


def images(random: np.random.Generator, size: Size) -> tuple[np.ndarray, ...]:
    """Two."""
    del size
    return (random.normal(size=(2, IMAGE, IMAGE, 3)),)


def tokens(random: np.random.Generator, size: Size) -> tuple[np.ndarray, ...]:
    """Two sequences."""
    return (random.normal(size=(2, LENGTH, size.width)),)


def sequences(random: np.random.Generator, size: Size) -> tuple[np.ndarray, ...]:
    """Sources and targets."""
    return (*tokens(random, size), random.normal(size=(2, LENGTH - 2, size.width)))


def captions(random: np.random.Generator, size: Size) -> tuple[np.ndarray, ...]:
    """Two images' features, and two captions."""
    del size
    return random.normal(size=(2, FEATURES)), random.integers(0, len(WORDS), (2, LENGTH))


def blocks(size: Size) -> dict[str, int]:
    """What our configurations call it."""
    return {"width": size.width, "heads": size.heads, "hidden": size.hidden}


def vit(**changes: Any) -> Callable[..., nnx.Module]:
    """A Vision Transformer as published."""
    def make(size: Size, **options: Any) -> nnx.Module:
        config = ViTConfig.b16(**{**blocks(size), "layers": size.depth, "classes": CLASSES, **IMAGES, **changes})
        return VisionTransformer(config, **options)

    return make


def course_vit(size: Size, **options: Any) -> nnx.Module:
    """CS231n's."""
    sizes = {**blocks(size), "layers": size.depth, "classes": CLASSES, **IMAGES}
    return VisionTransformer(ViTConfig(**sizes, final_norm="none"), **options)


def their_course_vit(size: Size) -> torch.nn.Module:
    """Its twin."""
    sizes = (size.width, size.depth, size.heads, size.hidden)
    return torch_twins.VisionTransformer(IMAGE, PATCH, 3, *sizes, CLASSES)


def captioner(size: Size, **options: Any) -> nnx.Module:
    """CS231n's."""
    sizes = {"width": size.width, "heads": size.heads, "layers": size.depth, "max_length": LENGTH}
    return CaptioningTransformer(CaptioningConfig.cs231n(vocab=len(WORDS), features=FEATURES, **sizes), **options)


def their_captioner(size: Size) -> torch.nn.Module:
    """Its twin."""
    return torch_twins.CaptioningTransformer(WORDS, FEATURES, size.width, size.heads, size.depth, LENGTH)


def tutorial(size: Size) -> torch.nn.Module:
    """The ViT of many tutorials."""
    sizes = {**blocks(size), "layers": size.depth, "classes": CLASSES, **IMAGES}
    return vit_twins.VisionTransformer(channels=3, **sizes, faster=True)


def encoder(norm: str) -> Callable[..., nnx.Module]:
    """Ours alone."""
    def make(size: Size, **options: Any) -> nnx.Module:
        return Encoder(BlockConfig(**blocks(size), norm=norm), size.depth, final_norm=True, **options)

    return make


def torch_block(size: Size, kind: type[torch.nn.Module], norm: str) -> torch.nn.Module:
    """PyTorch's own."""
    return kind(
        size.width, size.heads, size.hidden, activation="gelu", batch_first=True, norm_first=norm == "pre", dropout=0.1
    )


def their_encoder(norm: str) -> Callable[[Size], torch.nn.Module]:
    """PyTorch's own."""
    def make(size: Size) -> torch.nn.Module:
        block = torch_block(size, torch.nn.TransformerEncoderLayer, norm)
        last = torch.nn.LayerNorm(size.width)
        return torch.nn.TransformerEncoder(block, size.depth, norm=last, enable_nested_tensor=False)

    return make


def seq2seq(size: Size, **options: Any) -> nnx.Module:
    """Encoder and decoder."""
    vocabs = {"source_vocab": 5, "vocab": 5, "max_length": LENGTH}
    layers = {"encoder_layers": size.depth, "decoder_layers": size.depth}
    config = Seq2SeqConfig(**blocks(size), **vocabs, **layers, final_norm="tokens", activation="relu")
    return Transformer(config, **options)


def their_seq2seq(size: Size) -> torch.nn.Module:
    """PyTorch's own."""
    layers = (size.depth, size.depth, size.hidden, 0.1)
    return torch.nn.Transformer(size.width, size.heads, *layers, activation="relu", batch_first=True)


def torchvision(size: Size) -> torch.nn.Module:
    """torchvision's."""
    models = libraries("torchvision").models
    return models.VisionTransformer(
        IMAGE, PATCH, size.depth, size.heads, size.width, size.hidden, num_classes=CLASSES
    )


def timm(size: Size) -> torch.nn.Module:
    """timm's."""
    sizes = {"embed_dim": size.width, "num_heads": size.heads, "mlp_ratio": size.hidden / size.width}
    images = {"img_size": IMAGE, "patch_size": PATCH, "num_classes": CLASSES}
    return libraries("timm").models.VisionTransformer(**sizes, depth=size.depth, **images)


def transformers(size: Size) -> torch.nn.Module:
    """transformers'."""
    library = libraries("transformers")
    sizes = {"hidden_size": size.width, "num_hidden_layers": size.depth, "num_attention_heads": size.heads}
    more = {"intermediate_size": size.hidden, "num_labels": CLASSES, **IMAGES}
    return library.ViTForImageClassification(library.ViTConfig(**sizes, **more))
