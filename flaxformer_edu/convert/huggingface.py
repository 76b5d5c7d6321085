"""A Hugging Face folder of a Vision Transformer: config.json beside the weights, read and written without a preset."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flaxformer_edu.convert.huggingface_config import describe_config, is_number, read_class_names, read_config
from flaxformer_edu.convert.models import from_torch, to_torch
from flaxformer_edu.convert.readers import read, write
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import read_json_object, write_json, written_folder
from flaxformer_edu.models import VisionTransformer, ViTConfig

CONFIG, PREPROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"


def open_huggingface(folder: str | Path, **options: Any) -> tuple[VisionTransformer, dict[str, Any]]:
    """The Vision Transformer in a folder that transformers' `save_pretrained` wrote, and its notes.

    The notes hold `class_names`, and `mean` and `std` of the pixels where preprocessor_config.json has them. `options`,
    such as `param_dtype`, go to the model.
    Raises InputError where config.json is damaged, describes another model, or has a field that is neither understood
    nor known to have no effect, and ConversionError where the weights do not fit it.
    """
    config, notes, weights = read_huggingface(folder)
    return from_torch(VisionTransformer, config, weights, layout="hf_vit", **options), notes


def read_huggingface(source: str | Path) -> tuple[ViTConfig, dict[str, Any], dict[str, np.ndarray]]:
    """The configuration, the notes and the weights in such a folder, or in one of its files."""
    source = Path(source)
    path = source / CONFIG if source.is_dir() or not source.exists() else source.with_name(CONFIG)
    if not path.is_file():
        raise InputError(f"there is no {path}: give the file of weights itself, with a preset")
    described, weights = read_json_object(path), read(source)
    config = read_config(path, described, weights)
    notes = {} if config.classes is None else {"class_names": read_class_names(path, described, config.classes)}
    return config, notes | _read_pixels(path.with_name(PREPROCESSOR)), weights


def save_huggingface(folder: str | Path, model: VisionTransformer, notes: Mapping[str, Any] | None = None) -> None:
    """Write a folder that transformers opens: `AutoModelForImageClassification.from_pretrained(folder)`.

    Of the notes `class_names`, `mean` and `std` are kept. Rates that transformers does not have (of hidden features, of
    stochastic depth) are not: they matter in training alone.
    Raises InputError where transformers' ViT cannot compute what the model does, naming why, and where the folder
    already holds something.
    """
    notes = notes or {}
    described = describe_config(model.config, notes.get("class_names"))
    with written_folder(folder) as draft:
        write_json(draft / CONFIG, described)
        if "mean" in notes and "std" in notes:
            write_json(draft / PREPROCESSOR, _describe_pixels(model.config, notes))
        write(draft / WEIGHTS, to_torch(model, layout="hf_vit"))


def _read_pixels(path: Path) -> dict[str, tuple[float, ...]]:
    """How the model's images are normalised, if there is a file that says so."""
    described = read_json_object(path) if path.is_file() else {}
    if not described.get("do_normalize", True):
        return {"mean": (0.0,), "std": (1.0,)}
    mean, std = described.get("image_mean"), described.get("image_std")
    if mean is None or std is None:
        return {}
    if not all(isinstance(value, list) and value and all(map(is_number, value)) for value in (mean, std)):
        raise InputError(
            f"{path}: image_mean and image_std are {mean!r:.40} and {std!r:.40}, expected lists of numbers"
        )
    return {"mean": tuple(map(float, mean)), "std": tuple(map(float, std))}


def _describe_pixels(config: ViTConfig, notes: Mapping[str, Any]) -> dict[str, Any]:
    size = {"height": config.image_size, "width": config.image_size}
    normal = {"do_normalize": True, "image_mean": list(notes["mean"]), "image_std": list(notes["std"])}
    return {"image_processor_type": "ViTImageProcessor", "do_resize": True, "size": size, "do_rescale": True, **normal}
