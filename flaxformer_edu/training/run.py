"""What a run leaves on the disk: settings, metrics and checkpoints, from which it is resumed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from flaxformer_edu import plots
from flaxformer_edu.training.checkpoints import Checkpoints
from flaxformer_edu.training.config import LoopConfig
from flaxformer_edu.training.folder import CURVES_FILE, METRICS_FILE, claim
from flaxformer_edu.training.metrics import DivergedError, MetricsLog
from flaxformer_edu.training.state import TrainState
from flaxformer_edu.training.tensorboard import TensorBoard


class Run:
    """The metrics and checkpoints of a run; a context manager. Without `resume`, metrics stay in memory."""

    def __init__(self, config: LoopConfig, *, tensorboard: bool = False):
        self.config, self.tensorboard = config, tensorboard
        self.folder: Path | None = None
        self.log = MetricsLog()
        self._checkpoints: Checkpoints | None = None
        self._open = ExitStack()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def resume(self, state: TrainState, folder: Path, model: dict[str, Any], run: dict[str, Any]) -> TrainState:
        """The state to go on from: that of the folder's latest checkpoint, or `state` where there is none.

        Raises InputError where the folder holds a model or a run that is described otherwise.
        """
        claim(folder, model, run)
        self.folder = folder
        self._checkpoints = self._open.enter_context(
            Checkpoints(folder, metric=self.config.best_metric, best_is=self.config.best_is)
        )
        if (latest := self._checkpoints.latest) is not None:
            state = self._checkpoints.restore(state, latest)
        step = int(state.step)
        board = TensorBoard(folder, step=step) if self.tensorboard else None
        self.log = self._open.enter_context(MetricsLog(folder / METRICS_FILE, step=step, board=board))
        return state

    def save(self, state: TrainState, metrics: dict[str, float] | None) -> None:
        """Write a checkpoint if there is a folder. Raises DivergedError where the state is no longer finite."""
        if not all_finite(state):
            raise DivergedError(f"the parameters are no longer finite after step {int(state.step)}")
        if self._checkpoints is not None:
            self.log.flush()
            self._checkpoints.save(state, metrics)

    @contextmanager
    def explain_divergence(self) -> Iterator[None]:
        """Add to a DivergedError which checkpoint is left, and what to do."""
        try:
            yield
        except DivergedError as error:
            latest = self._checkpoints.latest if self._checkpoints else None
            left = "no checkpoint was saved" if latest is None else f"the last good checkpoint is that of step {latest}"
            raise DivergedError(
                f"{error}; {left}. Lower the learning rate, lengthen its warm-up or set clip_norm, and start afresh"
            ) from None

    def draw_curves(self) -> None:
        """Draw the learning curves into the folder."""
        if self.folder is not None:
            plots.training_curves({"": self.log.rows}).savefig(self.folder / CURVES_FILE)


@jax.jit
def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """True where no number of the tree is infinite or NaN."""
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))
