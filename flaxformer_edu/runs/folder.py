"""A run's folder: what it says about the run, and a model opened from it alone."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from flaxformer_edu.errors import InputError
from flaxformer_edu.files import read_json_object, write_json, write_text
from flaxformer_edu.locks import locked
from flaxformer_edu.models.abstract import abstract, split_model
from flaxformer_edu.runs.checkpoints import FOLDER, Checkpoints, say
from flaxformer_edu.runs.checksums import EARLIER_MODEL_FILE, MODEL_FILE
from flaxformer_edu.runs.description import decode, describe_model, differences, resolve, up_to_date

RUN_FILE, LOCK_FILE, METRICS_FILE, CURVES_FILE = "run.json", ".lock", "metrics.jsonl", "curves.png"
DEVICES = "devices"  # the entry of run.json that may differ
SINCE = {"data": "its data", "validation": "its validation data"}  # whose fingerprints earlier versions did not keep


def save_model(folder: str | Path, model: nnx.Module, *, notes: Mapping[str, Any] | None = None) -> None:
    """Write a model's weights and configuration, for `open_model`.

    `notes` is what using the model later needs to know: the names of the classes, the vocabulary. A model saved there
    earlier is replaced: a process killed meanwhile leaves the one or the other. Raises InputError where the folder is
    that of a run, or another process is writing to it.
    """
    folder = Path(folder)
    if (folder / RUN_FILE).exists() or _resumable(folder):
        raise InputError(f"{folder} holds a run, whose model open_model opens: choose another folder")
    described = describe_model(model, notes)
    with written_by_one(folder):
        with Checkpoints(folder) as checkpoints:
            described_before = checkpoints.description()
            if described_before is not None:
                write_text(folder / EARLIER_MODEL_FILE, described_before.read_text(encoding="utf-8"))
            write_json(folder / MODEL_FILE, described)
            step = 0 if checkpoints.latest is None else checkpoints.latest + 1
            checkpoints.save(step, {"params": split_model(model)[1]})
        (folder / EARLIER_MODEL_FILE).unlink(missing_ok=True)


def open_model(
    folder: str | Path,
    *,
    which: Literal["best", "latest"] = "best",
    classes: Iterable[type] = (),
    **options: Any,
) -> tuple[Any, dict[str, Any]]:
    """The model that a run or `save_model` left in the folder, and its notes.

    `classes` are your own model and configuration classes, where they are not those of `flaxformer_edu.models`;
    `options`, such as `dtype`, go to the model. Of a run whose checkpoint is damaged the next best, or the one before,
    is used, and a line on standard error says so. Raises InputError where the folder holds no model, a damaged one, or
    weights of another shape or type.
    """
    folder = Path(folder)
    with Checkpoints(folder, read_only=True) as checkpoints:
        described = described_in(checkpoints.description() or folder / MODEL_FILE)
    if described is None:
        raise InputError(f"{folder} holds no model: expected {MODEL_FILE} and {FOLDER}/, which training writes there")
    if missing := [name for name in ("model", "config", "notes", "best") if name not in described]:
        raise InputError(f"{folder / MODEL_FILE} lacks {', '.join(missing)}: put the right one back")
    with Checkpoints(folder, **described["best"], read_only=True) as checkpoints:
        classes = list(classes)
        model_class, config = resolve(described["model"], classes), decode(described["config"], classes)
        graphdef, like = split_model(abstract(model_class, config, **options))
        if checkpoints.latest is None:
            raise InputError(
                f"{folder} holds no checkpoint: the run was stopped before its first one, so start it again"
            )
        params = checkpoints.restore_first(which, partial(checkpoints.restore_params, like))[1]
    return nnx.merge(graphdef, jax.tree.map(jnp.asarray, params)), decode(described["notes"])


@contextmanager
def written_by_one(folder: Path) -> Iterator[None]:
    """Only this process writes to the folder; others may read. Raises InputError, naming it, where another one does.

    The processes of one distributed run write together: only the first of them holds the lock.
    """

    def refuse(holder: str) -> None:
        raise InputError(f"{folder} is in use by {holder}: wait until it has ended, or choose another folder")

    if jax.process_index() > 0:
        yield
        return
    with locked(folder / LOCK_FILE, refuse):
        yield


def register_run(folder: Path, model: dict[str, Any], run: dict[str, Any]) -> None:
    """Write what the run is into its folder, if it is new. Raises InputError where the folder holds a different one.

    A run whose run.json is gone is taken for this one, if its model is the same, which is said.
    """
    found = {name: described_in(folder / name) for name in (MODEL_FILE, RUN_FILE)}
    if found[RUN_FILE] is None:
        if _resumable(folder):
            say(f"{folder} has lost its {RUN_FILE}: its settings and its data are taken to be those of now")
        elif Checkpoints(folder).steps:
            raise InputError(f"{folder} holds a saved model, not a run: choose another folder")
    else:
        run = _comparable(folder, found[RUN_FILE], run)
    for name, value in {MODEL_FILE: model, RUN_FILE: run}.items():
        if found[name] is None:
            write_json(folder / name, value)
        elif different := differences(found[name], value):
            raise InputError(
                f"{folder} holds a different run ({'; '.join(different)}): "
                "to resume it use its settings and data, to start afresh choose another folder or delete this one"
            )


def _resumable(folder: Path) -> bool:
    """Whether a checkpoint in it is that of a run."""
    return any((folder / FOLDER).glob("[0-9]*/training"))


def _comparable(folder: Path, saved: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """`run` as far as `saved` has something to compare it with; what is not compared is said."""
    unknown = [name for name in SINCE if name in run and name not in saved]
    if unknown:
        named = " and ".join(SINCE[name] for name in unknown)
        say(f"{folder} was begun by an earlier version, without a fingerprint of {named}: not compared")
    before, now = saved.get(DEVICES), run.get(DEVICES)
    if before is not None and before != now:
        say(
            f"{folder} was begun on {before} device{'s' * (before != 1)} and goes on on {now}: sums are rounded in "
            "another order, so its numbers differ from those of an undisturbed run, in float32 by about 1e-6"
        )
    run = {name: value for name, value in run.items() if name not in (*unknown, DEVICES)}
    return run if before is None else {**run, DEVICES: before}


def described_in(path: Path) -> Any:
    """What the file says, under today's names; None where there is no such file."""
    return up_to_date(read_json_object(path, remedy="delete the folder and start afresh")) if path.exists() else None
