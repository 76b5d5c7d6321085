"""Checkpoints: the latest and the best, written in the background, each complete or not there at all."""

import json
import logging
import math
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import numpy as np
from jaxtyping import PyTree
from rich.console import Console

from flaxformer_edu.errors import InputError
from flaxformer_edu.runs.checksums import DamagedError, check, checked_commit, described_by

FOLDER = "checkpoints"
# The parameters, their moving average, what else a run goes on from, and the checksums of its metrics' rows.
GROUPS = ("params", "average", "training", "rows")
UNFINISHED, DAMAGED = ".orbax-checkpoint-tmp", ".damaged"
Restored = TypeVar("Restored")


def say(text: str) -> None:
    """Print a line on standard error."""
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of Orbax's log tells something.

    It warns of every folder that it only reads, and of every array that has a file of its own. Where saving fails, each
    of its threads logs the traceback of what it then raises, which is seen anyway.
    """
    if record.exc_info and record.exc_info[0] is not None:
        return False
    return not any(text in record.getMessage() for text in ("is read only", "Skipping merge of OCDBT"))


class Checkpoints:
    """The checkpoints of one run, in `folder/checkpoints/<step>/`; a context manager that ends writing what it began.

    Orbax writes a checkpoint under a temporary name, and it is renamed when it is complete and its checksums are in it:
    a process killed at any moment leaves only whole ones. Kept are the `keep` latest, and the one whose evaluation had
    the best `metric`. What there is to `tell` about damaged ones goes to standard error.
    """

    def __init__(
        self,
        folder: Path,
        *,
        metric: str = "loss",
        best_is: Literal["lowest", "highest"] = "lowest",
        read_only: bool = False,
        keep: int = 1,
        tell: Callable[[str], None] = say,
    ):
        """`read_only` leaves alone what a run that is still going on may be writing."""
        self.folder = folder
        self._metric, self._lowest = metric, best_is == "lowest"
        self._read_only, self._keep, self._tell = read_only, keep, tell
        logging.getLogger("absl").addFilter(_is_news)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        if "_manager" in self.__dict__:
            self._manager.close()

    @property
    def steps(self) -> list[int]:
        """The steps of all checkpoints that are written, in ascending order; some may be damaged."""
        self.wait()
        place = self.folder / FOLDER
        names = [path.name for path in place.iterdir() if path.is_dir()] if place.is_dir() else []
        return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)

    @property
    def latest(self) -> int | None:
        """The step of the latest checkpoint, None where there is none."""
        return max(self.steps, default=None)

    @property
    def best(self) -> int | None:
        """The step of the checkpoint with the best evaluation; the latest where nothing was evaluated."""
        return max(self.steps, key=self._rank, default=None)

    def save(self, step: int, groups: dict[str, PyTree], metrics: dict[str, float] | None = None) -> None:
        """Let Orbax copy the arrays, and return; writing goes on in the background. `metrics` are of an evaluation.

        `groups` are some of `GROUPS`, each a tree of arrays; one without arrays is left out.
        """
        import orbax.checkpoint as ocp

        arrays = {name: flatten(tree) for name, tree in groups.items()}
        finite = {name: value for name, value in (metrics or {}).items() if math.isfinite(value)}
        items = {name: ocp.args.PyTreeSave(leaves) for name, leaves in arrays.items() if leaves}
        self._manager.save(step, args=ocp.args.Composite(**items), metrics=finite, force=True)

    def wait(self) -> None:
        """Return when everything saved is on the disk."""
        if "_manager" in self.__dict__:
            self._manager.wait_until_finished()

    def restore(self, like: dict[str, PyTree], step: int) -> dict[str, PyTree]:
        """The groups saved at `step`, on the host.

        Raises InputError where they do not fit `like`, and DamagedError, one of them, where they are damaged.
        """
        wanted = [name for name, tree in like.items() if jax.tree.leaves(tree)]
        self._check(step, wanted)
        return {name: self._group(name, step, tree) if name in wanted else tree for name, tree in like.items()}

    def restore_rows(self, step: int) -> list[int] | None:
        """The checksums of the rows that were written before `step` was saved; None where none were kept."""
        place = self._place(step)
        if not (place / "rows").exists():
            return None
        check(place, ["rows"])
        return self._arrays("rows", step)["crc32"].tolist()

    def restore_params(self, like: PyTree, step: int) -> PyTree:
        """The parameters to use, saved at `step`: their average where one was kept. Raises as `restore` does."""
        name = "average" if (self._place(step) / "average").exists() else "params"
        self._check(step, [name])
        return self._group(name, step, like)

    def restore_first(
        self, which: Literal["best", "latest"], restore: Callable[[int], Restored]
    ) -> tuple[int, Restored]:
        """The step of the best, or the latest, checkpoint that is not damaged, and what `restore` gives for it.

        Those passed over are named, and if the folder is not only read, renamed. Raises InputError where none is left.
        """
        steps, damaged = self.steps, dict[int, str]()
        for step in sorted(steps, key=self._rank if which == "best" else None, reverse=True):
            try:
                restored = restore(step)
            except DamagedError as error:
                if self.steps != steps:  # a run that goes on has written a new one, and deleted this one
                    return self.restore_first(which, restore)
                damaged[step] = str(error)
                continue
            for problem in damaged.values():
                self._tell(f"{problem}; checkpoint {step} is used instead")
            if not self._read_only:
                self._put_aside(damaged)
            return step, restored
        problems = "; ".join(damaged.values())
        raise InputError(f"{problems}. No other checkpoint is left: copy the folder anew, or delete it")

    def description(self) -> Path | None:
        """The model.json of the latest checkpoint that can be read, None where none can. Raises as `described_by`."""
        for step in reversed(self.steps):
            with suppress(DamagedError, OSError):
                return described_by(self._place(step))
        return None

    def tidy(self) -> None:
        """Delete what processes that were killed left: checkpoints half written, and those that newer ones replace."""
        steps = self.steps
        for step in set(steps[: -self._keep]) - {self.best}:
            self._place(step).rename(self._place(step).with_name(f"{step}{UNFINISHED}"))
        for path in (self.folder / FOLDER).glob(f"*{UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)  # a thread of a save that failed may be deleting it, too

    @cached_property
    def _manager(self) -> Any:
        """What writes, made when the first checkpoint is to be written: no damaged one is left for it to trip over."""
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

        self.tidy()

        def quality(metrics: dict[str, float]) -> float:
            return metrics.get(self._metric, math.inf if self._lowest else -math.inf)  # the worst, where not evaluated

        best = BestN(get_metric_fn=quality, reverse=self._lowest, n=1)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(self._keep), best]),
            best_fn=quality,
            best_mode="min" if self._lowest else "max",
            save_interval_steps=1,
            temporary_path_class=checked_commit(),
        )
        return ocp.CheckpointManager(
            (self.folder / FOLDER).absolute(), options=options, item_handlers=dict.fromkeys(GROUPS, _handler())
        )

    def _rank(self, step: int) -> tuple[float, int]:
        """The higher, the better; of equals the later one."""
        try:
            value = json.loads((self._place(step) / "metrics" / "metrics").read_bytes())[self._metric]
            return (-value if self._lowest else value), step
        except (OSError, ValueError, KeyError, TypeError):  # it was not evaluated, or is damaged
            return -math.inf, step

    def _place(self, step: int) -> Path:
        return self.folder / FOLDER / str(step)

    def _check(self, step: int, groups: list[str]) -> None:
        if not check(self._place(step), groups):
            self._tell(f"{self._place(step)} has no checksums, as it was written by an earlier version: not checked")

    def _group(self, name: str, step: int, like: PyTree) -> Any:
        arrays, place = self._arrays(name, step), self._place(step) / name
        if name == "training" and int(arrays.get("step", step)) != step:
            raise DamagedError(f"{place} is damaged: it says that it was written after step {arrays['step']}")
        return unflatten(arrays, like, str(place))

    def _arrays(self, name: str, step: int) -> dict[str, np.ndarray]:
        import orbax.checkpoint as ocp

        place = self._place(step) / name
        try:
            with ocp.Checkpointer(_handler()) as reader:
                return reader.restore(place.absolute(), args=ocp.args.PyTreeRestore())
        except Exception as error:  # of many kinds, by Orbax and TensorStore
            raise DamagedError(f"{place} cannot be read ({type(error).__name__}: {error!s:.200})") from error

    def _put_aside(self, steps: Iterable[int]) -> None:
        for step in steps:
            aside = self._place(step).with_name(f"{step}{DAMAGED}")
            shutil.rmtree(aside, ignore_errors=True)
            self._place(step).rename(aside)


def _handler() -> Any:
    """Each array in a file of its own, as it is.

    To gather and compress them takes two thirds of the time of saving, for a twelfth of the space.
    """
    import orbax.checkpoint as ocp

    return ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_compression=False)


def flatten(tree: PyTree) -> dict[str, np.ndarray]:
    """The arrays on the host (on a processor: views) by their paths, as {"blocks.0.mlp.up.kernel": array}."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def unflatten(arrays: dict[str, np.ndarray], like: PyTree, source: str) -> PyTree:
    """`like` with each array, or its mere shape, replaced by that of the same path. An InputError lists all misfits."""
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    expected = {_name(path): (leaf.shape, np.dtype(leaf.dtype)) for path, leaf in paths}
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} is not part of the model" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} is {_show(*found[name])}, expected {_show(*expected[name])}"
        for name in expected.keys() & found.keys()
        if found[name] != expected[name]
    ]
    if problems:
        raise InputError(f"{source} does not fit: " + "; ".join(sorted(problems)))
    return jax.tree.unflatten(structure, [arrays[_name(path)] for path, _ in paths])


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _show(shape: tuple[int, ...], dtype: np.dtype) -> str:
    return f"{dtype}{list(shape)}"
