"""A run killed without warning, many times, ends as one that was never killed: every parameter and every metric."""

import io
import multiprocessing
import random
from multiprocessing.connection import Connection
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

STEPS = 45


def child(folder: Path, cache: Path, connection: Connection | None = None) -> None:
    """Train in a process of its own, which asks its parent before every step."""
    jax.config.update("jax_platforms", "cpu")  # an accelerator's memory belongs to the parent
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    from training.tiny import Source, evaluate_fn, loss_fn, tiny, validation

    from flaxformer_edu.training import LoopConfig, Optimizer, fit

    class Asking(Source):
        def __call__(self, step: int) -> dict[str, np.ndarray]:
            if connection is not None:
                connection.send(step)
                connection.recv()
            return super().__call__(step)

    fit(
        tiny(rate=0.2),
        loss_fn,
        Optimizer(schedule="cosine"),
        Asking(),
        LoopConfig(steps=STEPS, save_every=3, evaluate_every=7, ema_decay=0.9),
        evaluate_fn=evaluate_fn,
        validation=validation,
        folder=folder,
        console=Console(file=io.StringIO()),
    )


@pytest.mark.one_mode
@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_a_killed_run_ends_as_if_it_had_not_been_killed(kills, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flaxformer_edu.training", "orbax.checkpoint"])
    whole = context.Process(target=child, args=(tmp_path / "whole", tmp_path / "cache"))
    whole.start()
    whole.join()
    assert whole.exitcode == 0

    moments = random.Random(231)
    started = []
    for _ in range(kills):
        ours, theirs = context.Pipe()
        process = context.Process(target=child, args=(tmp_path / "killed", tmp_path / "cache", theirs))
        process.start()
        theirs.close()
        assert ours.recv() == 0  # the batch that is compared
        ours.send(None)
        started.append(ours.recv())
        for _ in range(moments.randrange(10)):  # steps it is granted, the last of them not to be finished in peace
            ours.send(None)
            ours.recv()
        if moments.random() < 0.5:
            ours.send(None)
        process.kill()
        process.join()
    assert started[0] == 0
    assert 0 < started[-1] < STEPS

    last = context.Process(target=child, args=(tmp_path / "killed", tmp_path / "cache"))
    last.start()
    last.join()
    assert last.exitcode == 0
    assert_same_folders(tmp_path / "killed", tmp_path / "whole")


def assert_same_folders(left: Path, right: Path) -> None:
    """The same metrics, the same checkpoints, and in them the same arrays, bit for bit."""
    from training.tiny import assert_same, tiny

    from flaxformer_edu.runs import Checkpoints
    from flaxformer_edu.training import Optimizer, new_state, split_model

    assert (left / "metrics.jsonl").read_bytes() == (right / "metrics.jsonl").read_bytes()
    like = new_state(split_model(tiny())[1], Optimizer(schedule="cosine").build(STEPS), ema=True)
    with Checkpoints(left) as ours, Checkpoints(right) as theirs:
        assert ours.latest == theirs.latest == STEPS
        assert ours.best == theirs.best
        for step in {ours.latest, ours.best}:
            assert_same(ours.restore(like.groups, step), theirs.restore(like.groups, step))
