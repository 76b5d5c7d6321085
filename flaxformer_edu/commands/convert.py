"""`flaxformer-edu convert`: a model's weights from one kind of file or folder to another."""

import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flaxformer_edu import convert as conversion
from flaxformer_edu.convert.huggingface import CONFIG, open_huggingface, save_huggingface
from flaxformer_edu.convert.layouts import LAYOUTS, find_layout
from flaxformer_edu.convert.models import fill
from flaxformer_edu.convert.presets import find_config
from flaxformer_edu.convert.resize import Convention, resize_positions
from flaxformer_edu.convert.rules import match, parameter_shapes
from flaxformer_edu.convert.sources import fetch
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import written_folder
from flaxformer_edu.models import VisionTransformer
from flaxformer_edu.models.abstract import abstract
from flaxformer_edu.training.checkpoints import FOLDER
from flaxformer_edu.training.folder import MODEL_FILE, open_model, save_model

FILES = (".safetensors", ".pth", ".pt", ".bin", ".npz")


@dataclass(frozen=True)
class Source:
    """A model, what else is known about it, and the layout and names that its weights came in, if not our own."""

    model: Any
    notes: dict[str, Any]
    layout: str | None = None
    names: tuple[str, ...] = ()


def convert(
    source: str,
    target: Path,
    *,
    layout: str | None = None,
    preset: str | None = None,
    target_layout: str | None = None,
    image_size: int | None = None,
    resize: Convention = "antialiased",
    verbose: bool = False,
    dry_run: bool = False,
) -> int:
    """Read the model in `source`, write it to `target`, and say what went where.

    Raises InputError where the source cannot be read, or the target cannot hold it or is there already.
    """
    for name in filter(None, (layout, target_layout)):
        if name not in LAYOUTS:
            raise InputError(f"unknown layout {name!r}: choose one of {', '.join(LAYOUTS)}")
    _check_target(target)
    found = open_source(source, layout, preset)
    if image_size is not None:
        found = _resized(found, image_size, resize)
    target_layout = _target_layout(found, target, target_layout)
    if verbose or dry_run:
        Console().print(_table(found, target_layout))
    if not dry_run:
        _write(found, target, target_layout)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(found.model)))
    what = f"{type(found.model).__name__}, {parameters:,} parameters"
    names = f"{found.layout or 'flaxformer_edu'} -> {target_layout or 'flaxformer_edu'}"
    print(f"{source} -> {target}: {what}, {names}" + (", nothing written (--dry-run)" if dry_run else ""))
    return 0


def open_source(source: str, layout: str | None, preset: str | None) -> Source:
    """The model in a folder or a file, or of a name such as torchvision://vit_b_16.

    Raises InputError where there is none, or its configuration cannot be told.
    """
    path = fetch(source)
    if not path.exists():
        raise InputError(f"no file or folder {path}")
    if (path / MODEL_FILE).is_file() or (path / CONFIG).is_file():
        if layout is not None or preset is not None:
            raise InputError(f"{path} says itself which model it holds: leave --layout and --preset out")
        return _open_folder(path)
    weights = conversion.read(path)
    config, layout = find_config(weights, preset, layout)
    # Views: what is only written need not be copied.
    model = fill(abstract(VisionTransformer, config), weights, layout, np.asarray)
    return Source(model, {}, layout, tuple(weights))


def _open_folder(path: Path) -> Source:
    if (path / MODEL_FILE).is_file():
        return Source(*open_model(path))
    return Source(*open_huggingface(path), "hf_vit", tuple(conversion.read(path)))


def _resized(found: Source, image_size: int, convention: Convention) -> Source:
    if not isinstance(found.model, VisionTransformer):
        raise InputError(f"--image-size is for a VisionTransformer, and this is a {type(found.model).__name__}")
    model = resize_positions(found.model, image_size, convention=convention)
    return Source(model, found.notes, found.layout, found.names)


def _target_layout(found: Source, target: Path, named: str | None) -> str | None:
    """The layout to write: the one that is named, the source's, or the only one there is; None for our own folder."""
    if target.suffix not in FILES:
        if named not in (None, "hf_vit"):
            raise InputError(
                f"{target} would be a folder of our own, or, with --target-layout hf_vit, one for transformers: "
                f"for {named} give a file that ends in {', '.join(FILES)}"
            )
        return named
    if named is not None:
        return named
    candidates = _layouts(found.model)
    if found.layout in candidates:
        return found.layout
    if len(candidates) != 1:
        names = ", ".join(candidates) or "none"
        raise InputError(
            f"the names to write are not known: layouts for this {type(found.model).__name__} are {names} (say which "
            "with --target-layout)"
        )
    return candidates[0]


def _layouts(model: nnx.Module) -> list[str]:
    """The layouts that have a name for each of the model's parameters."""
    fitting, shapes = [], parameter_shapes(model)
    for name in LAYOUTS:
        try:
            match(find_layout(name, model), shapes)
        except InputError:
            continue
        fitting.append(name)
    return fitting


def _table(found: Source, target_layout: str | None) -> Table:
    """Each parameter with its shape, the tensors it was made of, and those it is written as."""
    shapes = parameter_shapes(found.model)
    read = _names(found.model, found.layout, found.names)
    written = _names(found.model, target_layout)
    table = Table("read", "parameter", "shape", "written")
    for name, shape in shapes.items():
        cells = (read.get(name, name), name, " x ".join(map(str, shape.shape)), written.get(name, name))
        table.add_row(*map(Text, cells))
    return table


def _names(model: nnx.Module, layout: str | None, weights: tuple[str, ...] = ()) -> dict[str, str]:
    if layout is None:
        return {}
    matches = match(find_layout(layout, model, weights), parameter_shapes(model))
    return {name: "\n".join(found.torch) for found in matches for name in found.ours}


def _check_target(target: Path) -> None:
    """Raise InputError where the target is there already, unless it is a model that `save_model` or we left there."""
    if target.suffix in FILES:
        if target.exists():
            raise InputError(f"{target} already exists: choose another name, or delete it first")
    elif target.is_file() or (target.is_dir() and any(target.iterdir()) and not _is_saved_model(target)):
        raise InputError(f"{target} already exists and is no saved model: choose another folder, or delete it first")


def _is_saved_model(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} == {MODEL_FILE, FOLDER}


def _write(found: Source, target: Path, layout: str | None) -> None:
    if layout is not None and target.suffix in FILES:
        target.parent.mkdir(parents=True, exist_ok=True)
        conversion.write(target, conversion.to_torch(found.model, layout=layout))
        return
    with _set_aside(target) if target.is_dir() and any(target.iterdir()) else nullcontext():
        if layout == "hf_vit":
            save_huggingface(target, found.model, found.notes)
        else:
            with written_folder(target) as draft:
                save_model(draft, _turned(found.model), notes=found.notes)


def _turned(model: nnx.Module) -> nnx.Module:
    """With arrays in place of views that PyTorch's axes make of them: XLA turns them round faster than NumPy does."""
    leaves, structure = jax.tree.flatten(model)
    with ThreadPoolExecutor() as pool:
        return jax.tree.unflatten(structure, list(pool.map(jnp.asarray, leaves)))


@contextmanager
def _set_aside(folder: Path) -> Iterator[None]:
    """The folder goes out of the way, to be deleted if all goes well, and to come back if not."""
    aside = folder.with_name(f".{uuid.uuid4().hex[:8]}-{folder.name}")
    folder.replace(aside)
    try:
        yield
    except BaseException:
        aside.replace(folder)
        raise
    shutil.rmtree(aside)
