"""Which configuration a bare file of weights has: what its tensors tell, and for the rest a published preset."""

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from flaxformer_edu.convert.features import name_features
from flaxformer_edu.convert.layouts import detect_layout
from flaxformer_edu.convert.presets import CONVENTIONS, PRESETS, Settings, base_config, parse_settings, preset_config
from flaxformer_edu.convert.rules import ConversionError, match
from flaxformer_edu.convert.told import FULL, layout_of, one_block, shapes_of, told_by_tensors
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import ViTConfig

SIZES = ("width", "layers", "hidden", "patch_size", "channels")
# Fields that change what is computed and no tensor's name or shape: they are assumed, said, or asked for.
UNTOLD = ("heads", "activation", "norm", "norm_epsilon", "pooling")


@dataclass(frozen=True)
class Inferred:
    """A configuration, the layout of the names, and sentences about what no tensor tells."""

    config: ViTConfig
    layout: str
    assumed: tuple[str, ...]


def infer(
    weights: Mapping[str, np.ndarray],
    preset: str | None = None,
    layout: str | None = None,
    settings: Settings = (),
) -> Inferred:
    """The configuration of these weights: of a preset, named or the first that fits; else of tensors and `settings`.

    Raises InputError for an unknown preset or field and where none fits, naming the feature that is not known, or the
    field that is open; and ConversionError where no layout knows the names.
    """
    settings, sizes = parse_settings(settings), {}
    named = None if preset is None else preset_config(preset)
    layout = layout or detect_layout(weights, one_block(FULL[0]))
    told = told_by_tensors(weights, layout)
    if named is not None:  # what does not fit is listed when the weights are loaded
        config = _adapted(named, told, layout)
    else:
        sized = (name for name in PRESETS if _has_sizes(preset_config(name), told))
        fitting = ((name, _adapted(preset_config(name), told, layout)) for name in sized)
        preset, config = next(((n, c) for n, c in fitting if not misfits(c, weights, layout)), (None, None))
    if config is None:
        config = _by_sizes(weights, told, layout, settings)
        sizes = {name: told[name] for name in ("heads", *SIZES) if name in told}
    source = f"most models in the layout {layout}" if preset is None else f"the preset {preset} in the layout {layout}"
    values = [f"{name} {getattr(config, name)}" for name in UNTOLD if name not in {*settings, *sizes}]
    assumed = [f"{', '.join(values)}: those of {source}, as no tensor tells"]
    if settings:
        assumed.append(f"{', '.join(f'{name} {value}' for name, value in settings.items())}: as was said on opening")
    return Inferred(with_settings(config, settings), layout, tuple(assumed))


def find_config(
    weights: Mapping[str, np.ndarray],
    preset: str | None = None,
    layout: str | None = None,
    settings: Settings = (),
) -> tuple[ViTConfig, str]:
    """The configuration and the layout of a Vision Transformer's weights: `infer`, which says what was assumed aloud.

    The number of classes, the size of the images, class and distillation token, a layer in front of the classifier and
    what is normalised at the end are read from the tensors.
    """
    inferred = infer(weights, preset, layout, settings)
    say_assumed(inferred.assumed)
    return inferred.config, inferred.layout


def say_assumed(assumed: Iterable[str]) -> None:
    """Each assumption as a line on the standard error: no guess passes in silence."""
    for assumption in assumed:
        print(f"assumed: {assumption}", file=sys.stderr)


def with_settings(config: ViTConfig, settings: Mapping[str, Any]) -> ViTConfig:
    """The configuration with these fields. Raises InputError for a value of another type than the field has."""
    for name, value in settings.items():
        now = getattr(config, name)
        number = isinstance(now, float) and type(value) in (int, float)
        if not (now is None or value is None or number or type(value) is type(now)):
            raise InputError(f"{name} is {value!r}, expected a value like {now!r}")
    return replace(config, **settings)


def misfits(config: ViTConfig, weights: Mapping[str, np.ndarray], layout: str) -> list[str]:
    """The tensors that are missing, left over or of another shape than such a model's; what no rule makes is one."""
    shapes, rules = shapes_of(config), layout_of(config, weights, layout)
    try:
        matches = match(rules, shapes)
    except ConversionError as error:
        return str(error).splitlines()[1:]
    wanted = {name: matched.torch_shape(shapes) for matched in matches for name in matched.torch}
    wrong = [name for name, shape in wanted.items() if name not in weights or weights[name].shape != shape]
    unused = (name for name in weights if name not in wanted)
    return [*(n for n in unused if not any(fnmatchcase(n, pattern) for pattern in rules.ignore)), *wrong]


def _has_sizes(config: ViTConfig, told: Mapping[str, Any]) -> bool:
    """Whether the sizes that the tensors tell are the configuration's: quickly, before a model of it is traced."""
    return all(told.get(name, getattr(config, name)) == getattr(config, name) for name in SIZES)


def _adapted(config: ViTConfig, told: Mapping[str, Any], layout: str) -> ViTConfig:
    """A preset with the layout's conventions and what the tensors tell, besides the sizes of the blocks."""
    changes = {**CONVENTIONS.get(layout, {}), **{name: v for name, v in told.items() if name not in ("heads", *SIZES)}}
    if "image_size" in told:  # it was told in patches of the tensors' size
        changes["image_size"] = told["image_size"] // told["patch_size"] * config.patch_size
    return replace(config, **changes)


def _by_sizes(
    weights: Mapping[str, np.ndarray], told: Mapping[str, Any], layout: str, settings: Mapping[str, Any]
) -> ViTConfig:
    """The configuration of sizes that no preset has. Raises InputError naming what is not known, or open."""
    sizes = {name: told[name] for name in SIZES if name in told}
    shown = ", ".join(f"{name} {value}" for name, value in sizes.items())
    names = f"the weights have the names of {layout}, but no preset has their sizes ({shown})"
    ways = f"name the nearest with --preset ({', '.join(PRESETS)}) to see what differs, or load them with a ViTConfig"
    if len(sizes) < len(SIZES):
        raise InputError(f"{names}: {ways} of your own (convert.from_torch)")
    heads = settings.get("heads") or told.get("heads")
    probe = replace(base_config(layout), **sizes, heads=heads or 1, image_size=sizes["patch_size"])
    config = _adapted(probe, told, layout)
    if problems := misfits(config, weights, layout):
        raise InputError(
            f"the weights have the names of {layout}, and no configuration has all of these: "
            f"{name_features(problems)}. {ways[0].upper()}{ways[1:]} of your own (convert.from_torch)"
        )
    if heads is None:
        usual = sizes["width"] // math.gcd(sizes["width"], 64)
        raise InputError(
            f"{names}, and the number of heads is in none of them: say it, with --set heads={usual} or what the "
            f"model's code has (convert.open(..., settings={{'heads': {usual}}})); or {ways} of your own"
        )
    return config
