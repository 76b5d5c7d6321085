"""Which configuration a bare file of weights has: a preset, with what the shapes of its tensors tell."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from flaxformer_edu.convert.layouts import detect_layout, find_layout
from flaxformer_edu.convert.rules import ConversionError, Layout, Match, Shapes, apply, match, parameter_shapes
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.models.abstract import abstract

PRESETS = ("b16", "b32", "l16", "s16", "ti16", "scratch", "scratch_large", "cs231n")
# What all models in these layouts share, and no tensor shows.
CONVENTIONS: dict[str, dict[str, Any]] = {
    "hf_vit": {"norm_epsilon": 1e-12, "hidden_dropout": 0.0},
    "google_npz": {"activation": "gelu_tanh"},
}


def find_config(
    weights: Mapping[str, np.ndarray], preset: str | None = None, layout: str | None = None
) -> tuple[ViTConfig, str]:
    """The configuration and the layout of a Vision Transformer's weights, by a preset or by the one that fits.

    The number of classes, the size of the images, a layer in front of the classifier and a distillation token are read
    from the tensors. Raises InputError for an unknown preset and where none fits, and ConversionError where no layout
    knows the names.
    """
    _, config, layout = choose_preset(weights, preset, layout)
    return config, layout


def choose_preset(
    weights: Mapping[str, np.ndarray], preset: str | None = None, layout: str | None = None
) -> tuple[str, ViTConfig, str]:
    """The preset, the configuration that is made from it, and the layout: what `find_config` finds."""
    if preset is not None and preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}: choose one of {', '.join(PRESETS)}")
    layout = layout or detect_layout(weights, _one_block(ViTConfig.b16(distilled=True)))
    if preset is not None:  # what does not fit is listed when the weights are loaded
        return preset, _adapted(preset, weights, layout), layout
    for name in PRESETS:
        config = _adapted(name, weights, layout)
        if _fits(config, weights, layout):
            return name, config, layout
    raise InputError(
        f"the weights have the names of {layout}, but no preset has their sizes: name the nearest with --preset "
        f"({', '.join(PRESETS)}) to see what differs, or load them with a ViTConfig of your own (convert.from_torch)"
    )


def _adapted(preset: str, weights: Mapping[str, np.ndarray], layout: str) -> ViTConfig:
    """The preset with what the tensors tell, under the names that this layout gives them."""
    config = replace(getattr(ViTConfig, preset)(), **CONVENTIONS.get(layout, {}))
    largest = replace(config, representation=1)
    if config.class_token and config.pooling == "class":
        largest = replace(largest, distilled=True)
    matches = _matches(largest, weights, layout)

    def size(parameter: str, axis: int) -> int | None:
        """The length of an axis of the tensor that makes this parameter; None if there is no such tensor."""
        matched = matches.get(parameter)
        tensor = None if matched is None else weights.get(matched.torch[0])
        return None if tensor is None or tensor.ndim <= abs(axis) - 1 else tensor.shape[axis]

    from_shapes: dict[str, Any] = {
        "classes": size("head.bias", -1),
        "representation": size("representation.bias", -1),
        "distilled": size("distillation_token", -1) is not None,
    }
    config = replace(config, **from_shapes) if from_shapes["classes"] or not from_shapes["distilled"] else config
    length = size("positions.embedding", -2)
    side = math.isqrt(max(0, (length or 0) - (0 if config.positions_of_patches_only else config.prefix)))
    return replace(config, image_size=side * config.patch_size) if side else config


def _fits(config: ViTConfig, weights: Mapping[str, np.ndarray], layout: str) -> bool:
    """Whether every parameter finds its tensors, of the right shape; tensors left over are listed in loading."""
    shapes = _shapes(config)
    try:
        matches = match(_layout(config, weights, layout), shapes)
    except ConversionError:
        return False
    return all(_has_shape(matched, weights, shapes) for matched in matches)


def _has_shape(matched: Match, weights: Mapping[str, np.ndarray], shapes: Shapes) -> bool:
    return all(name in weights and weights[name].shape == matched.torch_shape(shapes) for name in matched.torch)


def _matches(config: ViTConfig, weights: Mapping[str, np.ndarray], layout: str) -> dict[str, Match]:
    """The rule that makes each parameter, by the parameter's name."""
    matches = apply(_layout(config, weights, layout), _shapes(config))
    return {name: matched for matched in matches for name in matched.ours}


def _layout(config: ViTConfig, weights: Mapping[str, np.ndarray], layout: str) -> Layout:
    return find_layout(layout, _one_block(config), weights)


def _shapes(config: ViTConfig) -> Shapes:
    """The shapes of all parameters; those of one block are those of every other."""
    first, shapes = "encoder.blocks.0.", {}
    for name, shape in parameter_shapes(_one_block(config)).items():
        layers = config.layers if name.startswith(first) else 1
        shapes |= {name.replace(first, f"encoder.blocks.{i}."): shape for i in range(layers)}
    return shapes


@cache
def _one_block(config: ViTConfig) -> VisionTransformer:
    """The model, abstract and with its first block alone: to trace all of them takes seconds."""
    return abstract(VisionTransformer, replace(config, layers=1))
