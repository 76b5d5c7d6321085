"""Configurations as JSON and back: what a run is, and which model its weights belong to."""

import dataclasses
import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from flaxformer_edu.errors import InputError

MODELS, LAYERS = "flaxformer_edu.models", "flaxformer_edu.layers"
CLASS, DTYPE = "$class", "$dtype"
RENAMED_FIELDS = {"optimiser": "optimizer"}
MOVED_CLASSES = {
    "flaxformer_edu.training.optimisers:Optimiser": "flaxformer_edu.training.optimizers:Optimizer",
}


def encode(value: Any) -> Any:
    """A configuration as JSON can hold it: dataclasses with their class, tuples as lists, types by their names."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {CLASS: class_path(type(value)), **fields}
    if isinstance(value, Mapping):
        return {str(name): encode(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return encode(value.tolist())
    if isinstance(value, Path):
        return str(value)
    try:
        return {DTYPE: jnp.dtype(value).name}
    except TypeError:
        raise InputError(f"{value!r} cannot be written as JSON: use numbers, strings, lists and dataclasses") from None


def describe_model(
    model: Any, notes: Mapping[str, Any] | None, best: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What opening the model needs besides its weights, and by which metric its checkpoints are the `best`.

    Raises InputError for a model without a `config`.
    """
    if not hasattr(model, "config"):
        raise InputError(f"{type(model).__name__} has no attribute config, the dataclass that it is built from")
    return {
        "model": class_path(type(model)),
        "config": encode(model.config),
        "notes": encode(notes or {}),
        "best": encode(best or {}),
    }


def up_to_date(description: Any) -> Any:
    """What a folder says about its run, under today's names: folders written before a name changed stay open.

    Configurations of our own models read what they were before, and fill in what they lacked.
    """
    if isinstance(description, list):
        return [up_to_date(item) for item in description]
    if not isinstance(description, dict):
        return description
    renamed = {RENAMED_FIELDS.get(name, name): up_to_date(item) for name, item in description.items()}
    if renamed.get(CLASS) in MOVED_CLASSES:
        renamed[CLASS] = MOVED_CLASSES[renamed[CLASS]]
    try:
        if isinstance(renamed.get("model"), str):
            renamed["model"] = class_path(resolve(renamed["model"]))
        return encode(decode(renamed)) if CLASS in renamed else renamed
    except InputError:  # a class that is not ours
        return renamed


def decode(value: Any, classes: Iterable[type] = ()) -> Any:
    """The inverse of `encode`, with tuples for lists. Classes come from `flaxformer_edu.models` or are handed in."""
    if isinstance(value, list):
        return tuple(decode(item, classes) for item in value)
    if not isinstance(value, dict):
        return value
    if DTYPE in value:
        return jnp.dtype(value[DTYPE])
    fields = {name: decode(item, classes) for name, item in value.items() if name != CLASS}
    if CLASS not in value:
        return fields
    try:
        cls = resolve(value[CLASS], classes)
        return getattr(cls, "from_saved", cls)(**fields)  # a config that has changed reads what it was before
    except TypeError as error:
        raise InputError(f"{error}: the configuration was written by another version of {value[CLASS]}") from None


def class_path(cls: type) -> str:
    """Where a class can be imported from: "flaxformer_edu.models:ViTConfig", or the module that defines it."""
    for public in (MODELS, LAYERS):
        if getattr(importlib.import_module(public), cls.__name__, None) is cls:
            return f"{public}:{cls.__qualname__}"
    return f"{cls.__module__}:{cls.__qualname__}"


def resolve(path: str, classes: Iterable[type] = ()) -> type:
    """The class of that path. A folder's JSON may name only `classes` and those of our models and layers."""
    for cls in classes:
        if class_path(cls) == path:
            return cls
    module, _, name = path.partition(":")
    if module.startswith((MODELS, LAYERS)):
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ModuleNotFoundError:
            found = None
        if isinstance(found, type) and found.__module__.startswith((MODELS, LAYERS)):
            return found
    raise InputError(
        f"{path} is not a class of {MODELS}: hand in the classes that your own model needs, "
        "open_model(folder, classes=[MyModel, MyConfig])"
    )


def differences(saved: Any, now: Any, name: str = "") -> list[str]:
    """Where two encoded configurations differ, as "optimizer.learning_rate: 0.001 in the folder, 0.01 now"."""
    if isinstance(saved, dict) and isinstance(now, dict):
        found = []
        for key in dict.fromkeys([*saved, *now]):
            found += differences(saved.get(key), now.get(key), f"{name}.{key}" if name else key)
        return found
    return [] if saved == now else [f"{name}: {_short(saved)} in the folder, {_short(now)} now"]


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
