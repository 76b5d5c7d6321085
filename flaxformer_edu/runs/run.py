"""A run in progress: its metrics, what the screen shows, its checkpoints, and requests to stop it."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree
from rich.console import Console

from flaxformer_edu import plots
from flaxformer_edu.runs.checkpoints import Checkpoints
from flaxformer_edu.runs.folder import CURVES_FILE, METRICS_FILE, register_run, written_by_one
from flaxformer_edu.runs.metrics import MetricsLog
from flaxformer_edu.runs.progress import TrainingProgress
from flaxformer_edu.runs.rows import DivergedError, Row, check_loss
from flaxformer_edu.runs.signals import StopRequest, stop_request
from flaxformer_edu.runs.tensorboard import TensorBoard


class Run:
    """What surrounds the steps of a training; a context manager. Without `resume`, all of it stays in memory.

    As it ends, the learning curves are drawn into its folder. A DivergedError raised within says which checkpoint is
    left, and what to do; `blame` gives what is wrong with the data of a step, or None.
    """

    def __init__(
        self,
        steps: int,
        batch_size: int,
        *,
        metric: str = "loss",
        best_is: Literal["lowest", "highest"] = "lowest",
        tensorboard: bool = False,
        console: Console | None = None,
        blame: Callable[[int], str | None] | None = None,
    ):
        self.folder: Path | None = None
        self.progress = TrainingProgress(steps, batch_size, console)
        self.log = MetricsLog(show=self.progress.update)
        self._best: dict[str, Any] = {"metric": metric, "best_is": best_is}
        self._tensorboard = tensorboard
        self._blame = blame
        self._checkpoints: Checkpoints | None = None
        self.stop = StopRequest()
        self._open = ExitStack()

    def __enter__(self) -> "Run":
        self._open.enter_context(self.progress)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        latest = self._checkpoints.latest if self._checkpoints and isinstance(error, DivergedError) else None
        self._open.close()
        if isinstance(error, DivergedError):
            left = "no checkpoint was saved" if latest is None else f"the last good checkpoint is that of step {latest}"
            cause = self._blame(error.step) if self._blame is not None else None
            advice = "lower the learning rate, lengthen its warm-up or set clip_norm"
            advice = f"{cause}: mend the data" if cause is not None else advice.capitalize()
            raise DivergedError(f"{error}; {left}. {advice}, and start afresh", error.step) from None
        if kind is None and self.folder is not None:
            plots.save_figure(plots.training_curves({"": self.rows}), self.folder / CURVES_FILE)

    @property
    def rows(self) -> list[Row]:
        """The metrics of all steps and evaluations that were fetched from the device."""
        return self.log.rows

    @property
    def examples_per_second(self) -> float | None:
        """As measured: compilation, evaluation and checkpoints left out; None before it is known."""
        return self.progress.rate

    def resume(
        self, folder: Path, groups: dict[str, PyTree], model: dict[str, Any], run: dict[str, Any]
    ) -> dict[str, PyTree]:
        """Keep the run in the folder, and return what to go on from: its latest checkpoint, or else `groups`.

        A damaged checkpoint is named and renamed, and the one before it used. Raises InputError where none is left,
        where another process writes to the folder, where it holds a model or a run that is described otherwise, and
        where rows of the metrics up to there have changed.
        """

        def restore(step: int) -> tuple[dict[str, PyTree], list[int] | None]:
            return checkpoints.restore(groups, step), checkpoints.restore_rows(step)

        self._open.enter_context(written_by_one(folder))
        register_run(folder, model, run)
        self.folder = folder
        checkpoints = self._open.enter_context(Checkpoints(folder, **self._best, keep=2, tell=self.progress.say))
        self._checkpoints, step, checksums = checkpoints, 0, None
        if checkpoints.latest is not None:
            step, (groups, checksums) = checkpoints.restore_first("latest", restore)
            checkpoints.tidy()
        if step and not (folder / METRICS_FILE).exists():
            self.progress.say(f"{folder / METRICS_FILE} is not there: the metrics up to step {step} are lost")
        board = TensorBoard(folder, step=step) if self._tensorboard else None
        options = {"step": step, "checksums": checksums, "board": board, "show": self.progress.update}
        self.log = self._open.enter_context(MetricsLog(folder / METRICS_FILE, **options))
        self.progress.start_at(step)
        self.stop = self._open.enter_context(stop_request())
        return groups

    def save(self, step: int, groups: dict[str, PyTree], averages: dict[str, float] | None = None) -> None:
        """Note the averages of an evaluation, and write a checkpoint if there is a folder; leave if asked to stop.

        Raises DivergedError where a number is no longer finite.
        """
        if not all_finite(groups):
            raise DivergedError(f"the parameters are no longer finite after step {step}", step)
        if averages is not None:
            self._note(step, averages)
        if self._checkpoints is not None:
            self.log.flush()
            rows = {"crc32": np.array(self.log.checksums, np.uint32)}
            self._checkpoints.save(step, {**groups, "rows": rows}, averages)
        self.progress.skip_time()
        if self.stop.signal is not None:
            self.progress.say(f"stopped after step {step}, which is saved in {self.folder}: the same call resumes it")
            self.stop.leave()

    def _note(self, step: int, averages: dict[str, float]) -> None:
        """Write and show an evaluation. Raises DivergedError where the last step's update exploded: it shows here."""
        self.log.write({"step": step, **{f"eval_{name}": value for name, value in averages.items()}})
        self.progress.evaluated(step, averages)
        if math.isfinite(loss := averages.get("loss", 0.0)):
            check_loss(step, loss, self.log.rows)
        if not math.isfinite(value := averages[self._best["metric"]]):
            name = self._best["metric"]
            self.progress.say(f"{name} is {value} on the validation data: step {step} is not counted as the best")


@jax.jit
def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """True where no number of the tree is infinite or NaN."""
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))
