"""`flaxformer-edu compare`: a saved model and a PyTorch model, or a recorded run of one, layer by layer."""

import importlib
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console

from flaxformer_edu import compare as comparison
from flaxformer_edu.convert import read
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import check_target
from flaxformer_edu.runs import open_model


def compare(
    *,
    ours: Path | None,
    theirs: Path,
    torch_model: str | None,
    inputs: tuple[Path, ...],
    record: Path | None = None,
    layout: str | None = None,
    tolerance: float | None = None,
    float64: bool = False,
    referee: bool = True,
    gradients: bool = False,
    compiled: bool = True,
    json: Path | None = None,
    html: Path | None = None,
) -> int:
    """Print the report; 1 if anything differs, else 0. With `record`, only run theirs and keep what it computes.

    Without `torch_model`, theirs is such a recording. Raises InputError for what cannot be opened or does not fit, and
    for a target that cannot be written, before anything is run.
    """
    for target in (record, json, html):
        if target is not None:
            check_target(target)
    if record is not None:
        _record(ours, theirs, torch_model, inputs, record, float64=float64, gradients=gradients)
        return 0
    if ours is None:
        raise InputError("--ours is missing: the folder of the model to compare (only --record does without)")
    model, _ = open_model(ours)
    other, arrays = _open_theirs(theirs, torch_model, inputs, float64=float64)
    with jax.enable_x64(True) if float64 else nullcontext():
        model = as_float64(model) if float64 else model
        asked = {"tolerance": tolerance, "referee": None if referee else False}
        asked |= {"gradients": gradients, "compiled": compiled}
        report = comparison.models(model, other, arrays, layout=layout, **asked)
    Console().print(report)
    if json is not None:
        report.to_json(json)
    if html is not None:
        report.to_html(html)
    return 0 if report.agrees else 1


def _record(
    ours: Path | None,
    theirs: Path,
    torch_model: str | None,
    inputs: tuple[Path, ...],
    record: Path,
    *,
    float64: bool,
    gradients: bool,
) -> None:
    if ours is not None:
        raise InputError(f"--record runs theirs alone: leave --ours out, and compare it with --theirs {record} later")
    if torch_model is None or not inputs:
        raise InputError("--record runs the PyTorch model: add --torch-model package.module:factory and --input")
    twin = build_torch(torch_model, theirs, float64=float64)
    run = comparison.record(record, twin, [read_array(path) for path in inputs], gradients=gradients)
    kinds = "outputs and gradients" if gradients else "outputs"
    Console(markup=False).print(f"{record}: {kinds} of {len(run.calls)} layers", highlight=False, soft_wrap=True)


def _open_theirs(
    theirs: Path, torch_model: str | None, inputs: tuple[Path, ...], *, float64: bool
) -> tuple[Any, list[np.ndarray] | None]:
    """The model and its inputs, or a recording, which has its own."""
    if torch_model is None:
        if inputs or theirs.suffix != ".npz":
            raise InputError(
                f"--torch-model is missing: package.module:factory, which makes the model of the weights {theirs} "
                "(a recorded run, a .npz file, needs neither that nor --input)"
            )
        return comparison.Recorded.load(theirs), None
    if not inputs:
        raise InputError("--input is missing: a .npy file for each of the model's arguments")
    return build_torch(torch_model, theirs, float64=float64), [read_array(path) for path in inputs]


def build_torch(spec: str, weights: Path, *, float64: bool = False) -> Any:
    """The PyTorch model that `package.module:factory` makes, with the weights of a file, in evaluation.

    The module may be in the current folder, as for `python -m`.
    """
    try:
        import torch
    except ImportError:
        raise InputError("comparing with a PyTorch model needs torch: pip install 'flaxformer-edu[torch]'") from None
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        raise InputError(f"--torch-model is {spec!r}, expected package.module:factory")
    arrays = {
        key: array.astype(np.float32) if array.dtype.name == "bfloat16" else array
        for key, array in read(weights).items()
    }
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        model = getattr(importlib.import_module(module_name), name)()
        model = model.double() if float64 else model
        model.load_state_dict({key: torch.tensor(array) for key, array in arrays.items()})
    except Exception as error:  # anything that the user's code can do, and names that do not fit it
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{spec} gives no model with the weights of {weights} ({reason:.300})") from error
    return model.eval()


def read_array(path: Path) -> np.ndarray:
    """The array in a .npy file."""
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")  # which believes no header that promises more
    except FileNotFoundError:
        raise InputError(f"no file {path}: --input is a .npy file, as numpy.save writes it") from None
    except Exception as error:  # there is no end to the ways in which a damaged header can fail
        raise InputError(f"{path} is no .npy file ({error!s:.100}): write it with numpy.save") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise InputError(f"{path} holds no single array of numbers: write one array a file with numpy.save")
    return np.array(array)


def as_float64(model: nnx.Module) -> nnx.Module:
    """The model with its floating-point parameters as float64."""

    def widen(x: jax.Array) -> jax.Array:
        return x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x

    graphdef, state = nnx.split(model)
    return nnx.merge(graphdef, jax.tree.map(widen, state))
