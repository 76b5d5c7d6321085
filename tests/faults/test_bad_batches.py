"""Data that is wrong in the middle of a run: it stops by name, keeps what was good, and goes on with the right data."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from faults.children import train
from training.tiny import Source, Tiny, TinyConfig

from flaxformer_edu.errors import InputError
from flaxformer_edu.runs import open_model
from flaxformer_edu.training import DivergedError

CLASSES = [Tiny, TinyConfig]
TRIALS = [1, pytest.param(100, marks=pytest.mark.slow)]


class LostError(Exception):
    """What a source of somebody's own raises."""


class Spoiled(Source):
    """Batches of which that of one step, from 1 on, goes through `spoil`."""

    def __init__(self, step: int, spoil: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]):
        super().__init__()
        self.step, self.spoil = step, spoil

    def __call__(self, step):
        batch = super().__call__(step)
        return self.spoil(batch) if step + 1 == self.step else batch


def one_number(value: float, draw: random.Random):
    """A batch's pixels with one of them changed."""

    def spoil(batch):
        inputs = batch["inputs"].copy()
        inputs.flat[draw.randrange(inputs.size)] = value
        return {**batch, "inputs": inputs}

    return spoil


@dataclass(frozen=True, kw_only=True)
class Exploding:
    """Gradient descent whose learning rate is far too high in one step."""

    step: int

    def build(self, steps):
        return optax.sgd(lambda done: jnp.where(done + 1 == self.step, 1e37, 0.01))


def lose(batch):
    raise LostError("the disk is gone")


def steps(trials: int) -> list[int]:
    """At which of the steps after the first, whose batch is compared, something is wrong."""
    return random.Random(trials).choices(range(2, 15), k=trials)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tmp_path_factory.mktemp("undisturbed") / "run")


def equal(left, right) -> bool:
    return bool(jax.tree.all(jax.tree.map(np.array_equal, left, right)))


def finite(folder) -> bool:
    """Whether the run's best model gives numbers."""
    return bool(np.isfinite(open_model(folder, classes=CLASSES)[0](Source()(0)["inputs"])).all())


def goes_on(folder, whole) -> bool:
    """Whether the run ends with the right data as if it had never had other data."""
    if (folder / "checkpoints").exists() and any((folder / "checkpoints").iterdir()):
        assert finite(folder)
    return equal(train(folder).state.groups, whole.state.groups)


@pytest.mark.parametrize("trials", TRIALS)
def test_a_number_that_is_none_in_one_batch(whole, trials, tmp_path, outcomes):
    draw = random.Random(trials)
    for trial, step in enumerate(steps(trials)):
        folder, value = tmp_path / str(trial), draw.choice([np.nan, np.inf, -np.inf])
        with pytest.raises(DivergedError, match=rf"The batch of step {step} holds NaN or infinities in inputs: mend"):
            train(folder, source=Spoiled(step, one_number(value, draw)))
        outcomes["refused" if goes_on(folder, whole) else "silent"] += 1


@pytest.mark.parametrize("trials", TRIALS)
def test_a_step_that_explodes(whole, trials, tmp_path, outcomes):
    """Its parameters are finite, but too large for the next step, or not finite any more."""
    for trial, step in enumerate(steps(trials)):
        folder = tmp_path / str(trial)
        named = rf"(loss is .* at|finite after) step ({step}|{step + 1})[;,] .*Lower the learning rate"
        with pytest.raises(DivergedError, match=named):
            train(folder, optimizer=Exploding(step=step))
        if step > 5:
            assert finite(folder)
        outcomes["refused"] += 1


@pytest.mark.parametrize("trials", TRIALS)
def test_a_source_that_raises_in_the_middle(whole, trials, tmp_path, outcomes):
    for trial, step in enumerate(steps(trials)):
        folder = tmp_path / str(trial)
        with pytest.raises(LostError):
            train(folder, source=Spoiled(step, lose))
        outcomes["recovered" if goes_on(folder, whole) else "silent"] += 1


@pytest.mark.parametrize("trials", TRIALS)
def test_data_that_changes_between_start_and_resume(trials, tmp_path, outcomes):
    """One pixel of the batch that is compared: the first, where the batches name no data set."""
    draw = random.Random(trials)
    with pytest.raises(LostError):
        train(tmp_path / "run", source=Spoiled(11, lose))
    for _ in range(trials):
        with pytest.raises(InputError, match=r"a different run \(data\.inputs\.crc32: .* now\)"):
            train(tmp_path / "run", source=Spoiled(1, one_number(draw.random(), draw)))
        outcomes["refused"] += 1
