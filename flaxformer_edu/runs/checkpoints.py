"""Checkpoints: the latest and the best, written in the background, each complete or not there at all."""

import logging
import math
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import PyTree

from flaxformer_edu.errors import InputError

FOLDER = "checkpoints"
GROUPS = ("params", "average", "training")  # the parameters, their moving average, what else a run goes on from


def _is_news(record: logging.LogRecord) -> bool:
    """Orbax logs a warning for every folder that it only reads, and for every array that has a file of its own."""
    return not any(text in record.getMessage() for text in ("is read only", "Skipping merge of OCDBT"))


class Checkpoints:
    """The checkpoints of one run, in `folder/checkpoints/<step>/`; a context manager that ends writing what it began.

    Orbax writes a checkpoint under a temporary name and renames it when it is complete, so that a process killed at any
    moment leaves only whole ones. Kept are the latest, and the one whose evaluation had the best `metric`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        metric: str = "loss",
        best_is: Literal["lowest", "highest"] = "lowest",
        read_only: bool = False,
    ):
        """`read_only` leaves alone what a run that is still going on may be writing."""
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

        lowest = best_is == "lowest"

        def quality(metrics: dict[str, float]) -> float:
            return metrics.get(metric, math.inf if lowest else -math.inf)  # the worst, where nothing was evaluated

        best = BestN(get_metric_fn=quality, reverse=lowest, n=1)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(1), best]),
            best_fn=quality,
            best_mode="min" if lowest else "max",
            save_interval_steps=0 if read_only else 1,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        self.folder = folder
        self._args = ocp.args
        # Each array in a file of its own, as it is: to gather and compress them takes two thirds of the time of saving,
        # for a twelfth of the space.
        plain = ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_compression=False)
        logging.getLogger("absl").addFilter(_is_news)
        self._manager = ocp.CheckpointManager(
            (folder / FOLDER).absolute(), options=options, item_handlers=dict.fromkeys(GROUPS, plain)
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """The step of the latest checkpoint, None where there is none."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """The step of the checkpoint with the best evaluation; the latest where nothing was evaluated."""
        return self._manager.best_step()

    def save(self, step: int, groups: dict[str, PyTree], metrics: dict[str, float] | None = None) -> None:
        """Let Orbax copy the arrays, and return; writing goes on in the background. `metrics` are of an evaluation.

        `groups` are some of `GROUPS`, each a tree of arrays; one without arrays is left out.
        """
        arrays = {name: flatten(tree) for name, tree in groups.items()}
        finite = {name: value for name, value in (metrics or {}).items() if math.isfinite(value)}
        items = {name: self._args.PyTreeSave(leaves) for name, leaves in arrays.items() if leaves}
        self._manager.save(step, args=self._args.Composite(**items), metrics=finite, force=True)

    def wait(self) -> None:
        """Return when everything saved is on the disk."""
        self._manager.wait_until_finished()

    def restore(self, like: dict[str, PyTree], step: int) -> dict[str, PyTree]:
        """The groups saved at `step`, on the host. Raises InputError where they do not fit `like`."""
        return {name: self._group(name, step, tree) if jax.tree.leaves(tree) else tree for name, tree in like.items()}

    def restore_params(self, like: PyTree, step: int) -> PyTree:
        """The parameters to use, saved at `step`: their average where one was kept."""
        averaged = (self.folder / FOLDER / str(step) / "average").exists()
        return self._group("average" if averaged else "params", step, like)

    def _group(self, name: str, step: int, like: PyTree) -> Any:
        items = self._manager.restore(step, args=self._args.Composite(**{name: self._args.PyTreeRestore()}))
        return unflatten(items[name], like, f"{self.folder / FOLDER / str(step) / name}")


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
