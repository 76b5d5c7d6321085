"""The training loop: steps, evaluation, checkpoints, and a run that can be stopped at any moment and resumed."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console

from flaxformer_edu.errors import InputError
from flaxformer_edu.training.config import LoopConfig
from flaxformer_edu.training.description import describe_model, describe_run
from flaxformer_edu.training.evaluation import EvaluateFn, Evaluation
from flaxformer_edu.training.mesh import data_mesh, replicate, share
from flaxformer_edu.training.metrics import Row
from flaxformer_edu.training.progress import TrainingProgress
from flaxformer_edu.training.run import Run
from flaxformer_edu.training.signals import stop_request
from flaxformer_edu.training.state import TrainState, new_state, split_model
from flaxformer_edu.training.step import Batch, LossFn, Step, compile_step, make_step


@runtime_checkable
class BatchSource(Protocol):
    """Training batches as a pure function of the step. The arrays handed out are not written to afterwards."""

    batch_size: int
    steps_per_epoch: int

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """The batch of step 0, 1, 2, ..., counted over all epochs."""
        ...


@runtime_checkable
class OptimiserConfig(Protocol):
    """A dataclass that describes an optimiser: `Optimiser`, or your own."""

    def build(self, steps: int) -> optax.GradientTransformation:
        """The optimiser for a run of that many steps."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run ends with: the trained model, its state, all rows of metrics, and the examples per second measured."""

    model: Any
    state: TrainState
    rows: list[Row]
    examples_per_second: float | None


def fit(
    model: nnx.Module,
    loss_fn: LossFn,
    optimiser: OptimiserConfig,
    train: BatchSource,
    config: LoopConfig,
    *,
    evaluate_fn: EvaluateFn | None = None,
    validation: Callable[[], Iterable[Batch]] | None = None,
    folder: Path | None = None,
    tensorboard: bool = False,
    settings: Any = None,
    notes: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
    console: Console | None = None,
) -> TrainResult:
    """Train a copy of `model` and return it.

    `loss_fn(model, batch, rngs)` gives the mean loss of a batch and a dict of further means;
    `evaluate_fn(model, batch)` a value an example for each metric, over the batches that `validation()` gives anew at
    each evaluation. `mesh` says which devices share a batch (default: as many as divide it).

    A `folder` receives metrics (with `tensorboard` for TensorBoard too), curves and checkpoints. Where it holds a run
    of the same settings already, that run is resumed and ends as if it had never been stopped. `settings`, the caller's
    own configuration, is part of what must be the same; `notes` are kept for `open_model`. With a folder, SIGTERM and
    Ctrl-C write a checkpoint and leave the program (SystemExit).

    Raises DivergedError, an InputError, where the loss or the parameters stop being finite, and InputError where the
    folder holds a run with other settings.
    """
    if (evaluate_fn is None) != (validation is None):
        raise InputError("evaluation needs both evaluate_fn and validation: hand in both, or neither")
    mesh = data_mesh(train.batch_size) if mesh is None else mesh
    graphdef, params = split_model(model)
    transform = optimiser.build(config.steps)
    step_fn = make_step(
        graphdef,
        transform,
        loss_fn,
        accumulate=config.accumulate,
        clip_norm=config.clip_norm,
        ema_decay=config.ema_decay,
    )
    advance = compile_step(step_fn, mesh, steps_per_call=config.steps_per_call)
    evaluate = None
    if evaluate_fn is not None and validation is not None:
        evaluate = Evaluation(graphdef, evaluate_fn, validation, mesh)
        evaluate.check(params, config.best_metric)
    state = new_state(params, transform, seed=config.seed, ema=config.ema_decay is not None)

    with ExitStack() as stack:
        run = stack.enter_context(Run(config, tensorboard=tensorboard))
        if folder is not None:
            described = describe_run(optimiser, train, config, settings)
            state = run.resume(state, folder, describe_model(model, notes, config), described)
        calls = batches(train, int(state.step), config, mesh)
        progress = stack.enter_context(TrainingProgress(config.steps, int(state.step), train.batch_size, console))
        state = train_loop(replicate(state, mesh), calls, advance, evaluate, run, progress)
        run.draw_curves()
    host_params = jax.device_get(state.best_params)
    return TrainResult(
        model=nnx.merge(graphdef, jax.tree.map(jnp.asarray, host_params)),
        state=state,
        rows=run.log.rows,
        examples_per_second=progress.rate,
    )


def batches(
    train: BatchSource, start: int, config: LoopConfig, mesh: Mesh
) -> Iterator[tuple[int, int, dict[str, jax.Array]]]:
    """What each call to the device is given: the steps it starts and ends at, and its batch or batches."""
    for first in range(start, config.steps, config.steps_per_call):
        last = min(first + config.steps_per_call, config.steps)
        if config.steps_per_call == 1:
            yield first, last, share(train(first), mesh)
        else:
            several = [train(step) for step in range(first, last)]
            stacked = {name: np.stack([batch[name] for batch in several]) for name in several[0]}
            yield first, last, share(stacked, mesh, stacked=True)


def train_loop(
    state: TrainState,
    calls: Iterable[tuple[int, int, dict[str, jax.Array]]],
    advance: Step,
    evaluate: Evaluation | None,
    run: Run,
    progress: TrainingProgress,
) -> TrainState:
    """Work through the calls. The host only starts them: it looks at metrics when the device has long produced them."""
    config = run.config
    with stop_request(run.folder is not None) as stop, run.explain_divergence():
        for before, step, batch in calls:
            state, metrics = advance(state, batch)
            if run.log.add(step, metrics):
                progress.update(run.log.rows[-1])
            stopping = stop.signal is not None
            evaluating = evaluate is not None and config.is_due(config.evaluate_every, before, step)
            if not (stopping or evaluating or config.is_due(config.save_every, before, step)):
                continue
            run.log.fetch()
            progress.update(run.log.rows[-1])
            averages = evaluate(state.best_params) if evaluate is not None and evaluating else None
            if averages is not None:
                run.log.write({"step": step, **{f"eval_{name}": value for name, value in averages.items()}})
                progress.evaluated(step, averages)
            run.save(state, averages)
            progress.skip_time()
            if stopping:
                progress.say(f"stopped after step {step}, which is saved in {run.folder}: the same call resumes it")
                stop.leave()
    return state
