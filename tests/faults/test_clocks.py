"""Clocks that jump: a run does not go by them, and what it says of the time left is only what it looks like."""

import random
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from faults.children import exit_of, train

pytestmark = pytest.mark.one_mode
MINUTE, YEARS = 60.0, 1e8  # seconds; Orbax gives a save up after some minutes by the clock


def train_by_clocks(folder: Path, way: str, seed: int) -> None:
    """Train by clocks that stand still, run backwards, or jump at each look."""
    draw, real = random.Random(seed), {name: getattr(time, name) for name in ("time", "monotonic")}
    begun = {name: clock() for name, clock in real.items()}

    def look(name: str) -> float:
        passed = real[name]() - begun[name]
        jump = {"minutes": draw.uniform(-MINUTE, MINUTE), "years": draw.uniform(-YEARS, YEARS)}
        return begun[name] + {"still": 0.0, "backwards": -passed}.get(way, passed + jump.get(way, 0.0))

    time.time, time.monotonic = lambda: look("time"), lambda: look("monotonic")
    train(folder)


@pytest.mark.parametrize(
    ("way", "trials"),
    [("backwards", 1), *(pytest.param(way, 15, marks=pytest.mark.slow) for way in ("still", "minutes", "years"))],
)
def test_a_run_ends_the_same(way, trials, tmp_path, outcomes):
    """Where a clock jumps by years, Orbax may give up a save: then the same call goes on."""
    whole = train(tmp_path / "whole")
    for trial in range(trials):
        folder = tmp_path / str(trial)
        status = exit_of(train_by_clocks, folder, way, trial)
        assert status == 0 or way == "years"
        same = jax.tree.all(jax.tree.map(np.array_equal, train(folder).state.groups, whole.state.groups))
        same &= (folder / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
        outcomes["silent" if not same else "recovered" if status else "harmless"] += 1
