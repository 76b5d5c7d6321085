"""The training loop: steps, evaluation, checkpoints, and a run that can be stopped at any moment and resumed."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, Sharding
from rich.console import Console

from flaxformer_edu.data.finite import blame_data
from flaxformer_edu.errors import InputError
from flaxformer_edu.models.abstract import split_model
from flaxformer_edu.runs import DEVICES, Row, Run, describe_model
from flaxformer_edu.training.config import BatchSource, LoopConfig, OptimizerConfig, describe_run
from flaxformer_edu.training.evaluation import EvaluateFn, Evaluation
from flaxformer_edu.training.mesh import batch_sharding, data_mesh, replicate
from flaxformer_edu.training.step import Batch, LossFn, TrainState, compile_step, make_step, new_state


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
    optimizer: OptimizerConfig,
    train: BatchSource,
    config: LoopConfig,
    *,
    evaluate_fn: EvaluateFn | None = None,
    validation: Callable[[], Iterable[Batch]] | None = None,
    folder: str | Path | None = None,
    tensorboard: bool = False,
    settings: Any = None,
    notes: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
    console: Console | None = None,
) -> TrainResult:
    """Train a copy of `model` and return it. `train/tiny.py` is the same on one page, without what surrounds it.

    `loss_fn(model, batch, rngs)` gives the mean loss of a batch and a dict of further means;
    `evaluate_fn(model, batch)` one value per example for each metric, over the batches that `validation()` gives anew
    at each evaluation. `mesh` says which devices share a batch (default: as many as divide it).

    A `folder` receives metrics (with `tensorboard` for TensorBoard too), curves and checkpoints. Where it holds a run
    of the same settings already, that run is resumed and ends as if it had never been stopped. `settings`, the caller's
    own configuration, is part of what must be the same, and so is the data: `train.dataset`, or the first batch where
    there is none, and the first 64 MiB of the validation. `notes` are kept for `open_model`. On another number of
    devices a run goes on, but its numbers differ by rounding, which is said. With a folder, SIGTERM and Ctrl-C write a
    checkpoint and leave the program (SystemExit).

    Raises DivergedError, an InputError, where the loss explodes or stops being finite, or the parameters do: it names
    the step, and what of its batch is not finite. Raises InputError where the folder holds a run with other settings or
    other data, or is in use by another process. What `train` raises passes through, and the same call resumes the run.
    """
    if (evaluate_fn is None) != (validation is None):
        raise InputError("evaluation needs both evaluate_fn and validation: hand in both, or neither")
    mesh = data_mesh(train.batch_size) if mesh is None else mesh
    sharding = batch_sharding(mesh, train.batch_size, stacked=config.steps_per_call > 1)
    graphdef, params = split_model(model)
    transform = optimizer.build(config.steps)
    options = {"accumulate": config.accumulate, "clip_norm": config.clip_norm, "ema_decay": config.ema_decay}
    step = make_step(graphdef, transform, loss_fn, **options)
    advance = compile_step(step, mesh, steps_per_call=config.steps_per_call)
    evaluate = None
    if evaluate_fn is not None and validation is not None:
        evaluate = Evaluation(graphdef, evaluate_fn, validation, mesh)
        evaluate.check(params, config.best_metric)
    state = new_state(params, transform, seed=config.seed, ema=config.ema_decay is not None)

    best: dict[str, Any] = {"metric": config.best_metric, "best_is": config.best_is}
    options = {"tensorboard": tensorboard, "console": console, "blame": partial(blame_data, train)}
    with Run(config.steps, train.batch_size, **best, **options) as run:
        if folder is not None:
            described = describe_run(optimizer, train, config, settings, validation) | {DEVICES: mesh.size}
            groups = run.resume(Path(folder), state.groups, describe_model(model, notes, best), described)
            state = TrainState.from_groups(groups)
        state = replicate(state, mesh)
        for before, after, batch in batches(train, int(state.step), config, sharding):
            state, metrics = advance(state, batch)
            run.log.add(after, metrics)
            ended = after == config.steps
            evaluating = evaluate is not None and (ended or is_due(config.evaluate_every, before, after))
            if evaluating or ended or run.stop.signal is not None or is_due(config.save_every, before, after):
                run.log.fetch()
                averages = evaluate(state.best_params) if evaluate is not None and evaluating else None
                run.save(after, state.groups, averages)

    host_params = jax.device_get(state.best_params)
    trained = nnx.merge(graphdef, jax.tree.map(jnp.asarray, host_params))
    return TrainResult(model=trained, state=state, rows=run.rows, examples_per_second=run.examples_per_second)


def is_due(every: int | None, before: int, after: int) -> bool:
    """Whether the steps from `before` to `after` passed a multiple of `every`."""
    return every is not None and before // every < after // every


def batches(
    train: BatchSource, start: int, config: LoopConfig, sharding: Sharding
) -> Iterator[tuple[int, int, dict[str, jax.Array]]]:
    """What each call to the device is given: the steps it starts and ends at, and its batch, or batches stacked."""
    for first in range(start, config.steps, config.steps_per_call):
        last = min(first + config.steps_per_call, config.steps)
        several = [train(step) for step in range(first, last)]
        batch = several[0]
        if config.steps_per_call > 1:
            batch = {name: np.stack([each[name] for each in several]) for name in batch}
        yield first, last, jax.device_put(batch, sharding)
