"""`flaxformer-edu convert`: a model's weights from one kind of file or folder to another."""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flaxformer_edu import convert as conversion
from flaxformer_edu.convert import Opened
from flaxformer_edu.convert.huggingface_config import describe_config
from flaxformer_edu.convert.layouts import LAYOUTS, find_layout
from flaxformer_edu.convert.readers.writing import FORMATS
from flaxformer_edu.convert.resize import Convention
from flaxformer_edu.convert.rules import match, parameter_shapes
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import is_filled, make_folder, written_folder
from flaxformer_edu.models import VisionTransformer
from flaxformer_edu.runs import save_model
from flaxformer_edu.runs.checkpoints import FOLDER
from flaxformer_edu.runs.checksums import EARLIER_MODEL_FILE
from flaxformer_edu.runs.folder import LOCK_FILE, MODEL_FILE


def convert(
    source: str,
    target: Path,
    *,
    layout: str | None = None,
    preset: str | None = None,
    set: tuple[str, ...] = (),
    target_layout: str | None = None,
    built_with: tuple[str, ...] = (),
    image_size: int | None = None,
    resize: Convention | None = None,
    verbose: bool = False,
    dry_run: bool = False,
) -> int:
    """Read the model in `source`, write it to `target`, and say what went where.

    Raises InputError where the source cannot be read, or the target cannot hold it or is there already.
    """
    if target_layout is not None and target_layout not in LAYOUTS:
        raise InputError(f"unknown layout {target_layout!r}: choose one of {', '.join(LAYOUTS)}")
    _check_target(target)
    opened = conversion.open(source, layout=layout, preset=preset, settings=set, views=True)
    if image_size is not None:
        opened = _resized(opened, image_size, resize)
    target_layout = _target_layout(opened, target, target_layout)
    _check_computed(opened, target, target_layout, built_with)
    if verbose or dry_run:
        Console().print(_table(opened, target_layout))
    if not dry_run:
        _write(opened, target, target_layout, built_with)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(opened.model)))
    what = f"{type(opened.model).__name__}, {parameters:,} parameters"
    names = f"{opened.layout or 'flaxformer_edu'} -> {target_layout or 'flaxformer_edu'}"
    print(f"{source} -> {target}: {what}, {names}" + (", nothing written (--dry-run)" if dry_run else ""))
    return 0


def _resized(opened: Opened, image_size: int, convention: Convention | None) -> Opened:
    if not isinstance(opened.model, VisionTransformer):
        raise InputError(f"--image-size is for a VisionTransformer, and this is a {type(opened.model).__name__}")
    layout = opened.layout or opened.notes.get("layout")
    chosen = convention or conversion.convention_of(layout)
    if convention is None:
        print(f"assumed: positions resampled as {layout or 'timm'} does it, --resize {chosen}", file=sys.stderr)
    return replace(opened, model=conversion.resize_positions(opened.model, image_size, convention=chosen))


def _target_layout(opened: Opened, target: Path, named: str | None) -> str | None:
    """The layout to write: the one that is named, the source's, or the only one there is; None for our own folder."""
    if target.suffix not in FORMATS:
        if named not in (None, "hf_vit"):
            raise InputError(
                f"{target} would be a folder of our own, or, with --target-layout hf_vit, one for transformers: "
                f"for {named} give a file that ends in {', '.join(FORMATS)}"
            )
        return named
    if named is not None:
        return named
    candidates = _layouts(opened.model)
    known = opened.layout or opened.notes.get("layout")  # a folder of ours may say where its weights came from
    if known in candidates:
        return known
    if len(candidates) != 1:
        names = ", ".join(candidates) or "none"
        raise InputError(
            f"the names to write are not known: layouts for this {type(opened.model).__name__} are {names} (say which "
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


def _table(opened: Opened, target_layout: str | None) -> Table:
    """Each parameter with its shape, the tensors it was made of, and those it is written as."""
    shapes = parameter_shapes(opened.model)
    read = _names(opened.model, opened.layout, opened.names)
    written = _names(opened.model, target_layout)
    table = Table("read", "parameter", "shape", "written")
    for name, shape in shapes.items():
        cells = (read.get(name, name), name, " x ".join(map(str, shape.shape)), written.get(name, name))
        table.add_row(*map(Text, cells))
    return table


def _names(model: nnx.Module, layout: str | None, weights: tuple[str, ...] = ()) -> dict[str, str]:
    if layout is None:
        return {}
    matches = match(find_layout(layout, model, weights), parameter_shapes(model))
    return {name: "\n".join(matched.torch) for matched in matches for name in matched.ours}


def _check_target(target: Path) -> None:
    """Raise InputError where the target is there already, unless `save_model` or this command wrote it."""
    if target.suffix in FORMATS:
        if target.exists():
            raise InputError(f"{target} already exists: choose another name, or delete it first")
    elif target.is_file() or (is_filled(target) and not _is_saved_model(target)):
        raise InputError(f"{target} already exists and is no saved model: choose another folder, or delete it first")


def _is_saved_model(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()}
    return names - {LOCK_FILE, EARLIER_MODEL_FILE} == {MODEL_FILE, FOLDER}


def _check_computed(opened: Opened, target: Path, layout: str | None, built_with: tuple[str, ...]) -> None:
    """Raise InputError, before anything is shown or written, where the target would compute something else."""
    if layout is not None and target.suffix in FORMATS:
        conversion.check_export(opened.model, layout, built_with)
    elif layout == "hf_vit" and isinstance(opened.model, VisionTransformer):
        describe_config(opened.model.config)


def _write(opened: Opened, target: Path, layout: str | None, built_with: tuple[str, ...]) -> None:
    if layout is not None and target.suffix in FORMATS:
        make_folder(target.parent)
        conversion.export(target, opened.model, layout=layout, built_with=built_with)
        return
    with written_folder(target, replace=True) as draft:  # `_check_target` saw that nothing is lost
        if layout == "hf_vit":
            conversion.save_huggingface(draft, opened.model, opened.notes)
        else:
            save_model(draft, _turned(opened.model), notes=opened.notes)


def _turned(model: nnx.Module) -> nnx.Module:
    """With contiguous arrays in place of views in PyTorch's order of axes: XLA transposes faster than NumPy does."""
    leaves, structure = jax.tree.flatten(model)
    with ThreadPoolExecutor() as pool:
        return jax.tree.unflatten(structure, list(pool.map(jnp.asarray, leaves)))
