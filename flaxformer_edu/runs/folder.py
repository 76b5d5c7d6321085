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
from flaxformer_edu.files import read_json_object, write_json
from flaxformer_edu.locks import locked
from flaxformer_edu.models.abstract import abstract, split_model
from flaxformer_edu.runs.checkpoints import FOLDER, Checkpoints, say
from flaxformer_edu.runs.checksums import MODEL_FILE
from flaxformer_edu.runs.description import decode, describe_model, differences, resolve, up_to_date

RUN_FILE, LOCK_FILE, METRICS_FILE, CURVES_FILE = "run.json", ".lock", "metrics.jsonl", "curves.png"


def save_model(folder: str | Path, model: nnx.Module, *, notes: Mapping[str, Any] | None = None) -> None:
    """Write a model's weights and configuration, for `open_model`.

    `notes` is what using the model later needs to know: the names of the classes, the vocabulary. A model saved there
    earlier is replaced. Raises InputError where the folder is that of a run, or another process is writing to it.
    """
    folder = Path(folder)
    if (folder / RUN_FILE).exists():
        raise InputError(f"{folder} holds a run, whose model open_model opens: choose another folder")
    described = describe_model(model, notes)
    with written_by_one(folder), Checkpoints(folder) as checkpoints:
        write_json(folder / MODEL_FILE, described)
        step = 0 if checkpoints.latest is None else checkpoints.latest + 1
        checkpoints.save(step, {"params": split_model(model)[1]})


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
    described = described_in(folder / MODEL_FILE)
    if described is None:
        raise InputError(f"{folder} holds no model: expected {MODEL_FILE} and {FOLDER}/, which training writes there")
    if missing := [name for name in ("model", "config", "notes", "best") if name not in described]:
        raise InputError(f"{folder / MODEL_FILE} lacks {', '.join(missing)}: put the right one back")
    with Checkpoints(folder, **described["best"], read_only=True) as checkpoints:
        checkpoints.check_description()
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
    """Write what the run is into its folder, if it is new. Raises InputError where the folder holds a different one."""
    found = {name: described_in(folder / name) for name in (MODEL_FILE, RUN_FILE)}
    now = {MODEL_FILE: model, RUN_FILE: run}
    if found[RUN_FILE] is None and (folder / FOLDER).exists():
        raise InputError(
            f"{folder} holds a saved model, not a run: choose another folder. If it is a run that has lost its "
            f"{RUN_FILE}, start one with the same settings in another folder, and copy that file from there"
        )
    if found[RUN_FILE] and "data" in run and "data" not in found[RUN_FILE]:
        say(f"{folder} was begun by an earlier version, without a fingerprint of its data: not compared")
        now[RUN_FILE] = {name: value for name, value in run.items() if name != "data"}
    for name, value in now.items():
        if found[name] is None:
            write_json(folder / name, value)
        elif different := differences(found[name], value):
            raise InputError(
                f"{folder} holds a different run ({'; '.join(different)}): "
                "to resume it use its settings and data, to start afresh choose another folder or delete this one"
            )


def described_in(path: Path) -> Any:
    """What the file says, under today's names; None where there is no such file."""
    return up_to_date(read_json_object(path, remedy="delete the folder and start afresh")) if path.exists() else None
