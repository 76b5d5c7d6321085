"""Processes of their own that die, or stop, at a moment of one's choice; and what they do until then."""

import io
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax

# An accelerator's memory belongs to the parent; it computes what children compute, and so to the same rounding.
SETTINGS = {
    "jax_platforms": "cpu",
    "jax_disable_most_optimizations": True,
    "jax_default_matmul_precision": "highest",
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": 0,
}
# What Python tells its hooks about that may change a folder; C++ writes in between.
OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}


@cache
def context() -> Any:
    """How to start a process that has imported everything, but run none of JAX's threads."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["flaxformer_edu.training", "flaxformer_edu.convert", "orbax.checkpoint"])
    return server


def start(task: Callable[..., object], *arguments: Any, die_at: int = sys.maxsize, number: int = signal.SIGKILL) -> Any:
    """Run `task(folder, *arguments)` in a process that gets the signal at its `die_at`-th operation in the folder."""
    places = Path(jax.config.jax_compilation_cache_dir), Path(os.devnull)
    process = context().Process(target=_run, args=(places, die_at, number, task, arguments))
    process.start()
    return process


def exit_of(*arguments: Any, **options: Any) -> int:
    """The exit status of such a process."""
    process = start(*arguments, **options)
    process.join()
    return process.exitcode


def operations(task: Callable[..., object], folder: Path, *arguments: Any) -> int:
    """How many operations in the folder the task takes."""
    count = folder.with_name(f"{folder.name} count")
    assert exit_of(counted, folder, count, task, *arguments) == 0
    return int(count.read_text())


def counted(folder: Path, count: Path, task: Callable[..., object], *arguments: Any) -> None:
    task(folder, *arguments)
    count.write_text(str(_seen))


def moments(count: int, trials: int, seed: int) -> list[int]:
    """At which of `count` operations to die: all of them in turn, in random order, as often as there are trials."""
    draw, chosen = random.Random(seed), []
    while len(chosen) < trials:
        chosen += draw.sample(range(count), count)
    return chosen[:trials]


def train(folder: Path, *, source: Any = None, optimizer: Any = None) -> Any:
    """Fourteen steps of the tiny model, evaluated and saved."""
    from rich.console import Console
    from training.tiny import Source, evaluate_fn, loss_fn, tiny, validation

    from flaxformer_edu.training import LoopConfig, Optimizer, fit

    return fit(
        tiny(rate=0.2),
        loss_fn,
        optimizer or Optimizer(learning_rate=0.01),
        source or Source(),
        LoopConfig(steps=14, evaluate_every=5, save_every=4, ema_decay=0.9),
        evaluate_fn=evaluate_fn,
        validation=validation,
        folder=folder,
        console=Console(file=io.StringIO()),
    )


_seen = 0


def _run(places: tuple[Path, Path], die_at: int, number: int, task: Callable[..., object], arguments: Any) -> None:
    global _seen
    for name, value in {**SETTINGS, "jax_compilation_cache_dir": str(places[0])}.items():
        jax.config.update(name, value)
    folder = str(arguments[0])
    os.dup2(os.open(places[1], os.O_WRONLY), 2)  # what dying threads print
    _seen = 0

    def hook(event: str, details: tuple[Any, ...]) -> None:
        global _seen
        if event in OPERATIONS and str(details[0]).startswith(folder):
            _seen += 1
            if _seen == die_at + 1:
                os.kill(os.getpid(), number)

    sys.addaudithook(hook)
    task(*arguments)
