"""A Hugging Face folder of a Vision Transformer: config.json beside the weights, read and written without a preset."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flaxformer_edu.convert.huggingface_config import describe_config, read_class_names, read_config
from flaxformer_edu.convert.models import from_torch, to_torch
from flaxformer_edu.convert.readers import read, write
from flaxformer_edu.convert.sums import check_sums, write_sums
from flaxformer_edu.data.preprocessing import Preprocessing, describe_transformers, read_transformers
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import read_json_object, write_json, written_folder
from flaxformer_edu.models import VisionTransformer, ViTConfig

CONFIG, PREPROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"


def open_huggingface(folder: str | Path, **options: Any) -> tuple[VisionTransformer, dict[str, Any]]:
    """The Vision Transformer in a folder that transformers' `save_pretrained` wrote, and its notes.

    The notes hold `class_names` and, of preprocessor_config.json, `preprocessing`, `mean` and `std`. `options`,
    such as `param_dtype`, go to the model.
    Raises InputError where a file is not what SHA256SUMS says, if there is one, and where config.json is damaged,
    describes another model, or has a field that is neither understood nor known to have no effect; ConversionError
    where the weights do not fit it.
    """
    config, notes, weights = read_huggingface(folder)
    return from_torch(VisionTransformer, config, weights, layout="hf_vit", **options), notes


def read_huggingface(source: str | Path) -> tuple[ViTConfig, dict[str, Any], dict[str, np.ndarray]]:
    """The configuration, the notes and the weights in such a folder, or in one of its files."""
    source = Path(source)
    path = source / CONFIG if source.is_dir() or not source.exists() else source.with_name(CONFIG)
    if not path.is_file():
        raise InputError(f"there is no {path}: give the file of weights itself, with a preset")
    check_sums(path.parent)
    described, weights = read_json_object(path), read(source)
    config = read_config(path, described, weights)
    notes = {} if config.classes is None else {"class_names": read_class_names(path, described, config.classes)}
    return config, notes | _read_pixels(path.with_name(PREPROCESSOR), config), weights


def save_huggingface(folder: str | Path, model: VisionTransformer, notes: Mapping[str, Any] | None = None) -> None:
    """Write a folder that transformers opens: `AutoModelForImageClassification.from_pretrained(folder)`.

    Of the notes `class_names` and `preprocessing` (or `mean` and `std`) are kept. Rates that transformers does not have
    (of hidden features, of stochastic depth) are not: they matter in training alone. SHA256SUMS lists the files.
    Raises InputError where transformers' ViT cannot compute what the model does, naming why, and where the folder
    already holds something.
    """
    notes = notes or {}
    described = describe_config(model.config, notes.get("class_names"))
    with written_folder(folder) as draft:
        write_json(draft / CONFIG, described)
        if "mean" in notes and "std" in notes:
            sees = {"size": model.config.image_size, "channels": model.config.channels}
            write_json(draft / PREPROCESSOR, describe_transformers(Preprocessing.in_notes(notes, **sees)))
        write(draft / WEIGHTS, to_torch(model, layout="hf_vit"))
        write_sums(draft)


def _read_pixels(path: Path, config: ViTConfig) -> dict[str, Any]:
    """How pictures are preprocessed for the model, if there is a file that says so."""
    if not path.is_file() or config.channels not in (1, 3):
        return {}
    sees = {"size": config.image_size, "channels": config.channels}
    return read_transformers(path, read_json_object(path), **sees).notes()
