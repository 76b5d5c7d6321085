"""A model from anywhere, in one call: a file of any library, a folder, or a name."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from flaxformer_edu.convert.exporting import METADATA
from flaxformer_edu.convert.huggingface import CONFIG, read_huggingface
from flaxformer_edu.convert.inference import infer, say_assumed
from flaxformer_edu.convert.layouts import LAYOUTS
from flaxformer_edu.convert.models import fill
from flaxformer_edu.convert.presets import Settings
from flaxformer_edu.convert.readers import read
from flaxformer_edu.convert.readers.safetensors_files import read_metadata
from flaxformer_edu.convert.sources import fetch
from flaxformer_edu.data.preprocessing import assumed_for
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import read_json
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.models.abstract import abstract
from flaxformer_edu.runs import open_model
from flaxformer_edu.runs.description import decode
from flaxformer_edu.runs.folder import MODEL_FILE


@dataclass(frozen=True)
class Opened:
    """A model and its notes, `model, notes = open(source)`; and where its weights came from.

    `layout` says whose names the weights had, and `names` which: None and nothing for a folder of ours.
    """

    model: Any
    notes: dict[str, Any]
    layout: str | None = None
    names: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter((self.model, self.notes))


def open(
    source: str | os.PathLike[str],
    *,
    layout: str | None = None,
    preset: str | None = None,
    settings: Settings = (),
    views: bool = False,
    **options: Any,
) -> Opened:
    """The model in a file or a folder, or of a name, and what is known about it.

    >>> model, notes = convert.open("vit_b_16.pth")                  # .pth, .pt, .bin, .safetensors or .npz: a ViT
    >>> model, notes = convert.open("mine.pth", settings={"heads": 6, "activation": "relu"})  # what no tensor tells
    >>> model, notes = convert.open("runs/digits")                   # of a run, of `save_model`, or of transformers
    >>> model, notes = convert.open("torchvision://vit_b_16")        # downloaded once; also hf://OWNER/NAME

    A folder says which model it holds, and so do a file's own metadata, and config.json beside it. The configuration of
    a bare file is that of `preset`, or of the first one that fits, with the fields in `settings`.

    Notes are those that were saved in a folder of ours. Of other sources they hold `layout`, whose names the weights
    had; `class_names`, `preprocessing`, `mean` and `std` where they are known; and `assumed`, sentences about what no
    tensor tells, which are printed too (on the standard error): no guess passes in silence.

    `options`, such as `dtype`, go to the model. With `views`, parameters are views of the file where they can be:
    enough for a model that is only to be written elsewhere.
    Raises InputError where there is nothing, where it is damaged, or its configuration cannot be determined.
    """
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"unknown layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    path, chosen = fetch(os.fspath(source)), bool(layout or preset or settings)
    if not path.exists():
        raise InputError(f"no file or folder {path}")
    described = [name for name in (MODEL_FILE, CONFIG) if (path / name).is_file()]
    if described and chosen:
        raise InputError(f"{path} says itself which model it holds: leave layout and preset out")
    if MODEL_FILE in described:
        return Opened(*open_model(path, **options))
    if not chosen and (kept := _kept_config(path)) is not None:
        (config, layout), notes, weights, assumed = kept, {}, read(path), ()
    elif described or (not chosen and _describes(path.with_name(CONFIG))):
        config, notes, weights = read_huggingface(path)
        layout, assumed = "hf_vit", ()
    else:
        notes, weights = {}, read(path)
        inferred = infer(weights, preset, layout, settings)
        config, layout, assumed = inferred.config, inferred.layout, inferred.assumed
    sees = {"size": config.image_size, "channels": config.channels}
    if "preprocessing" not in notes and (expected := assumed_for(layout, **sees)) is not None:
        notes |= expected.notes()
        normalisation = f"pixels normalised by mean {expected.mean}, std {expected.std}"
        resizing = f"pictures resized by {expected.interpolation} ({expected.resize})"
        assumed += (f"{normalisation}, {resizing}: what most models in the layout {layout} expect",)
    print(f"read: {source}, {len(weights)} tensors with the names of {layout}", file=sys.stderr)
    say_assumed(assumed)
    notes = {"layout": layout, "assumed": assumed, **notes}
    model = fill(abstract(VisionTransformer, config, **options), weights, layout, np.asarray if views else jnp.array)
    return Opened(model, notes, layout, tuple(weights))


def _kept_config(path: Path) -> tuple[ViTConfig, str] | None:
    """The configuration and the layout that `export` kept in a .safetensors file. Raises InputError for other words."""
    kept = read_metadata(path).get(METADATA) if path.suffix == ".safetensors" and path.is_file() else None
    if kept is None:
        return None
    try:
        described = json.loads(kept)
        config, layout = decode(described["config"]), described["layout"]
    except (ValueError, KeyError, TypeError, RecursionError):
        config, layout = None, None
    if not isinstance(config, ViTConfig) or layout not in LAYOUTS:
        raise InputError(f"{path}: what it keeps under {METADATA!r} is no configuration: say which it is with --preset")
    return config, layout


def _describes(path: Path) -> bool:
    """Whether there is a config.json of a model, and not of something else that lies in the same folder."""
    described = read_json(path) if path.is_file() else None
    return isinstance(described, dict) and not described.keys().isdisjoint({"model_type", "architecture"})
