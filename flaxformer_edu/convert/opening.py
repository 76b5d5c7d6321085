"""A model from anywhere, in one call: a file of any library, a folder, or a name."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from flaxformer_edu.convert.huggingface import CONFIG, read_huggingface
from flaxformer_edu.convert.layouts import LAYOUTS
from flaxformer_edu.convert.models import fill
from flaxformer_edu.convert.presets import choose_preset
from flaxformer_edu.convert.readers import read
from flaxformer_edu.convert.sources import fetch
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import VisionTransformer
from flaxformer_edu.models.abstract import abstract
from flaxformer_edu.runs import open_model
from flaxformer_edu.runs.folder import MODEL_FILE

# What the pixels of the images were normalised by on which libraries' published models were trained.
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5,), "std": (0.5,)}
NORMALISATIONS = {"torchvision": IMAGENET, "timm": HALF, "hf_vit": HALF, "google_npz": HALF}
NOT_IN_SHAPES = ("heads", "activation", "norm_epsilon")  # fields that no tensor's shape determines


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
    views: bool = False,
    **options: Any,
) -> Opened:
    """The model in a file or a folder, or of a name, and what is known about it.

    >>> model, notes = convert.open("vit_b_16.pth")                  # .pth, .pt, .bin, .safetensors or .npz: a ViT
    >>> model, notes = convert.open("runs/digits")                   # of a run, of `save_model`, or of transformers
    >>> model, notes = convert.open("torchvision://vit_b_16")        # downloaded once; also hf://OWNER/NAME

    Notes are those that were saved in a folder of ours. Of other sources they hold `layout`, whose names the weights
    had; `class_names`, `mean` and `std` (of the pixels, from 0 to 1) where they are known; and `assumed`, sentences
    about what no tensor tells: the configuration of a bare file is that of `preset`, or of the first one that fits.

    `options`, such as `dtype`, go to the model. With `views`, parameters are views of the file where they can be:
    enough for a model that is only to be written elsewhere.
    Raises InputError where there is nothing, where it is damaged, or its configuration cannot be determined.
    """
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"unknown layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    path = fetch(os.fspath(source))
    if not path.exists():
        raise InputError(f"no file or folder {path}")
    described = [name for name in (MODEL_FILE, CONFIG) if (path / name).is_file()]
    if described and (layout is not None or preset is not None):
        raise InputError(f"{path} says itself which model it holds: leave layout and preset out")
    if MODEL_FILE in described:
        return Opened(*open_model(path, **options))
    if CONFIG in described:
        config, notes, weights = read_huggingface(path)
        layout, assumed = "hf_vit", ()
    else:
        notes, weights = {}, read(path)
        preset, config, layout = choose_preset(weights, preset, layout)
        values = ", ".join(f"{name} {getattr(config, name)}" for name in NOT_IN_SHAPES)
        assumed = (f"{values}: those of the preset {preset} in the layout {layout}",)
    if "mean" not in notes and layout in NORMALISATIONS:
        pixels = NORMALISATIONS[layout]
        notes, normalisation = notes | pixels, ", ".join(f"{name} {value}" for name, value in pixels.items())
        assumed += (f"pixels normalised by {normalisation}: what most models in the layout {layout} expect",)
    notes = {"layout": layout, "assumed": assumed, **notes}
    model = fill(abstract(VisionTransformer, config, **options), weights, layout, np.asarray if views else jnp.array)
    return Opened(model, notes, layout, tuple(weights))
