"""Any damage to any file of a run: it ends as if nothing had happened, or says what is wrong. Nothing is silent."""

import io
import random
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console
from training.tiny import Source, Tiny, TinyConfig, evaluate_fn, loss_fn, tiny, validation

from flaxformer_edu.errors import InputError
from flaxformer_edu.runs import open_model
from flaxformer_edu.training import LoopConfig, Optimizer, fit

CLASSES = [Tiny, TinyConfig]
SHORT, LONG = 12, pytest.param(500, marks=pytest.mark.slow)


def train(folder):
    return fit(
        tiny(),
        loss_fn,
        Optimizer(learning_rate=0.01),
        Source(),
        LoopConfig(steps=14, evaluate_every=5, save_every=4, ema_decay=0.9),
        evaluate_fn=evaluate_fn,
        validation=validation,
        folder=folder,
        console=Console(file=io.StringIO()),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run, and what the run ended with."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, train(folder)


def damage(path: Path, draw: random.Random) -> str:
    """Flip a bit, cut the end off, write over a part, put something behind, empty or delete the file."""
    content = bytearray(path.read_bytes())
    place = draw.randrange(len(content)) if content else 0
    kind = draw.choice(["flip", "flip", "flip", "cut", "overwrite", "append", "empty", "gone"])
    if kind == "gone":
        path.unlink()
        return kind
    if kind == "flip" and content:
        content[place] ^= 1 << draw.randrange(8)
    elif kind == "overwrite":
        content[place : place + 64] = draw.randbytes(min(64, len(content) - place))
    changed = {"cut": content[:place], "append": content + b"\0" * 9, "empty": b""}.get(kind, content)
    path.write_bytes(changed)
    return kind


def outcome(use, same, capfd, *, older: bool) -> str:
    """What `use` makes of the damage; `same` says whether it gives what it gave before.

    Where `older`, something else may come out, of an earlier checkpoint, if that is said.
    """
    capfd.readouterr()
    try:
        result = use()
    except InputError:
        return "refused"
    said = capfd.readouterr().err
    if same(result):
        return "recovered" if said else "harmless"
    return "recovered" if said and older else "silent"


def equal(left, right) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, left, right)))


def try_out(source: Path, copy: Path, trials: int, outcomes, outcome_of) -> None:
    """Damage a copy of the folder, again and again; what nobody noticed fails the test."""
    files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    draw, silent = random.Random(trials), []
    for _ in range(trials):
        shutil.copytree(source, copy)
        name = draw.choice(files)
        kind = damage(copy / name, draw)
        how = outcome_of(copy)
        outcomes[how] += 1
        if how == "silent":
            silent.append(f"{name}: {kind}")
        shutil.rmtree(copy)
    assert not silent


@pytest.mark.parametrize("trials", [SHORT, LONG])
def test_a_run_is_resumed_or_refused(finished, trials, tmp_path, capfd, outcomes):
    source, whole = finished

    def outcome_of(folder):
        def same(run):
            return equal(run.state.groups, whole.state.groups)

        return outcome(lambda: train(folder), same, capfd, older=False)

    try_out(source, tmp_path / "copy", trials, outcomes, outcome_of)


@pytest.mark.parametrize("trials", [SHORT, LONG])
def test_a_model_is_opened_or_refused(finished, trials, tmp_path, capfd, outcomes):
    source, _ = finished
    inputs = Source()(0)["inputs"]
    logits = np.asarray(open_model(source, classes=CLASSES)[0](inputs))

    def outcome_of(folder):
        def same(opened):
            return np.array_equal(opened[0](inputs), logits)

        return outcome(lambda: open_model(folder, classes=CLASSES), same, capfd, older=True)

    try_out(source, tmp_path / "copy", trials, outcomes, outcome_of)
