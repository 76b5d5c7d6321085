"""The published Vision Transformers by name, and what the models behind each layout's names share."""

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from flaxformer_edu.errors import InputError
from flaxformer_edu.models import ViTConfig

Settings = Mapping[str, Any] | Iterable[str]  # fields of `ViTConfig`: by name, or as the command line has them

# Letter and side of a patch, as in ViT-B/16, the usual ones first; then the tutorials' and the course's.
PRESETS = (
    *("b16", "b32", "l16", "s16", "ti16", "b8", "s8", "s32", "l32", "l14", "h14", "g14"),
    *("scratch", "scratch_large", "cs231n"),
)
# Those that ViTConfig has no method for: ViT-Huge (Dosovitskiy et al. 2020, table 1) and ViT-g (Zhai et al. 2021,
# table 2, whose hidden width 6144 is timm's vit_giant_patch14).
LARGE = {
    "h": {"width": 1280, "layers": 32, "heads": 16, "hidden": 5120},
    "g": {"width": 1408, "layers": 40, "heads": 16, "hidden": 6144},
}
# What the models in these layouts share, where it differs from `ViTConfig.b16`, and no tensor shows.
CONVENTIONS: dict[str, dict[str, Any]] = {
    "hf_vit": {"norm_epsilon": 1e-12, "hidden_dropout": 0.0},
    "google_npz": {"activation": "gelu_tanh"},
}


def base_config(layout: str) -> ViTConfig:
    """What the models behind a layout's names have in common, in the sizes of one of them."""
    base = {"scratch": ViTConfig.scratch, "cs231n": ViTConfig.cs231n}.get(layout, ViTConfig.b16)
    return base(**CONVENTIONS.get(layout, {}))


def preset_config(name: str) -> ViTConfig:
    """The configuration of that name. Raises InputError, listing what there is."""
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    if hasattr(ViTConfig, name):
        return getattr(ViTConfig, name)()
    letter, patch = re.findall(r"[a-z]+|\d+", name)
    sizes = {"patch_size": int(patch), **LARGE.get(letter, {})}
    return ViTConfig.b16(**sizes) if letter in LARGE else getattr(ViTConfig, f"{letter}16")(**sizes)


def parse_settings(settings: Settings) -> dict[str, Any]:
    """Fields of `ViTConfig` by name, also as the command line has them: "heads=6", "activation=relu".

    Raises InputError for what is no such field; a value that cannot be is refused when the configuration is made.
    """
    if not isinstance(settings, Mapping):
        wrong = [setting for setting in settings if "=" not in setting]
        if wrong:
            raise InputError(f"--set {wrong[0]!r} has no value: write it like heads=6")
        settings = {name: _literal(value) for name, _, value in (setting.partition("=") for setting in settings)}
    known = [field.name for field in fields(ViTConfig)]
    if unknown := [name for name in settings if name not in known]:
        raise InputError(f"ViTConfig has no field {', '.join(unknown)}: its fields are {', '.join(known)}")
    return dict(settings)


def _literal(value: str) -> Any:
    """A number, True, False or None; else the word itself."""
    try:
        return ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return value
