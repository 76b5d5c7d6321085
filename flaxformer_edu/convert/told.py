"""What the names and shapes of a Vision Transformer's tensors tell of its configuration."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from einops import EinopsError, rearrange

from flaxformer_edu.convert.layouts import find_layout
from flaxformer_edu.convert.rules import Layout, Match, Shapes, apply, parameter_shapes
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.models.abstract import abstract

FIRST_BLOCK, EACH_BLOCK = "encoder.blocks.0.", "encoder.blocks.{i}."
# Between them these have every parameter by whose presence a file tells a field.
FULL = (ViTConfig.b16(distilled=True, representation=1), ViTConfig.b16(pooling="mean", final_norm="pooled"))


def told_by_tensors(weights: Mapping[str, np.ndarray], layout: str) -> dict[str, Any]:
    """Fields of `ViTConfig` with the values that the tensors give them under the names of that layout."""
    found = _shapes_found(weights, layout)
    row, _, channels, width = found.get("patch_embedding.projection.kernel") or (None,) * 4
    hidden = (found.get(f"{FIRST_BLOCK}mlp.up.kernel") or (None, None))[1]
    sizes = {"width": width, "hidden": hidden, "patch_size": row, "channels": channels}
    sizes |= {"layers": _layers(weights, layout), "heads": _heads(weights, layout)}
    told: dict[str, Any] = {name: size for name, size in sizes.items() if size}
    told["classes"] = (found.get("head.bias") or (None,))[0]
    told["representation"] = (found.get("representation.bias") or (None,))[0]
    told["class_token"] = "class_token" in found
    told["distilled"] = told["classes"] is not None and {"class_token", "distillation_token"} <= found.keys()
    told["final_norm"] = next((value for value, name in NORMS.items() if name in found), "none")
    if told["final_norm"] == "pooled" or not told["class_token"]:
        told["pooling"] = "mean"
    if f"{FIRST_BLOCK}attention.query.kernel" in found:
        told["qkv_bias"] = f"{FIRST_BLOCK}attention.query.bias" in found
    if row and "positions.embedding" in found:
        told |= _told_by_positions(found["positions.embedding"][0], told["class_token"] + told["distilled"], row)
    return told


NORMS = {"tokens": "encoder.norm.scale", "pooled": "norm.scale"}


def _told_by_positions(length: int, prefix: int, patch_size: int) -> dict[str, Any]:
    """The image's size; a table as long as a square number has no rows for the tokens in front."""
    patches_only = prefix > 0 and math.isqrt(length) ** 2 == length
    side = math.isqrt(max(0, length if patches_only else length - prefix))
    size = {"image_size": side * patch_size} if side else {}
    return {"positions": "learned", "prefix_positions": not patches_only, **size}


def _layers(weights: Mapping[str, np.ndarray], layout: str) -> int:
    """How many blocks have a first norm."""
    rules, ours = layout_of(FULL[0], weights, layout).rules, f"{EACH_BLOCK}norm1.scale"
    (name,) = (rule.torch for rule in rules if rule.ours == ours)
    expression = re.escape(name).replace(r"\{i\}", r"\d+")
    return sum(re.fullmatch(expression, tensor) is not None for tensor in weights)


def _heads(weights: Mapping[str, np.ndarray], layout: str) -> int | None:
    """The number of heads where these are modules, or an axis, of their own."""
    modules = {int(number) for name in weights for number in re.findall(r"\.heads\.(\d+)\.query\.weight$", name)}
    if modules:
        return max(modules) + 1
    matched = matches_of(FULL[0], weights, layout).get(f"{FIRST_BLOCK}attention.query.kernel")
    axes = (matched.pattern or "").split("->")[0].split() if matched is not None else []
    tensor = weights.get(matched.torch[0]) if matched is not None else None
    return tensor.shape[axes.index("head")] if "head" in axes and tensor is not None else None


def _shapes_found(weights: Mapping[str, np.ndarray], layout: str) -> dict[str, tuple[int, ...]]:
    """In our axes, the shape of each parameter whose tensors are there; of those that a pattern does not fit, none."""
    matches = {name: m for config in FULL for name, m in matches_of(config, weights, layout).items()}
    found = {name: _our_shape(m, weights) for name, m in matches.items() if all(t in weights for t in m.torch)}
    return {name: shape for name, shape in found.items() if shape is not None}


def _our_shape(matched: Match, weights: Mapping[str, np.ndarray]) -> tuple[int, ...] | None:
    """The shape that the rule makes of its tensors'."""
    shape = weights[matched.torch[0]].shape
    hollow = np.broadcast_to(np.float32(0), shape if len(matched.torch) == 1 else (len(matched.torch), *shape))
    if matched.pattern is not None:
        several = {matched.pattern.split("->")[1].split()[0]: len(matched.ours)} if len(matched.ours) > 1 else {}
        try:
            hollow = rearrange(hollow, matched.pattern, **several)
        except EinopsError:
            return None
    return hollow.shape if len(matched.ours) == 1 else hollow.shape[1:]


def matches_of(config: ViTConfig, weights: Mapping[str, np.ndarray], layout: str) -> dict[str, Match]:
    """The rule that makes each parameter, by the parameter's name."""
    matches = apply(layout_of(config, weights, layout), shapes_of(config))
    return {name: matched for matched in matches for name in matched.ours}


def layout_of(config: ViTConfig, weights: Mapping[str, np.ndarray], layout: str) -> Layout:
    """The variant of the layout that such a model's weights have."""
    return find_layout(layout, one_block(config), weights)


def shapes_of(config: ViTConfig) -> Shapes:
    """The shapes of all parameters; those of one block are those of every other."""
    shapes = {}
    for name, shape in parameter_shapes(one_block(config)).items():
        layers = config.layers if name.startswith(FIRST_BLOCK) else 1
        shapes |= {name.replace(FIRST_BLOCK, EACH_BLOCK.format(i=i)): shape for i in range(layers)}
    return shapes


@cache
def one_block(config: ViTConfig) -> VisionTransformer:
    """The model, abstract and with its first block alone: to trace all of them takes seconds."""
    return abstract(VisionTransformer, replace(config, layers=1))
