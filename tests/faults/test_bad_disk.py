"""A disk that fails in one read or one write: what is read is right or refused, what is written whole or not there."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from faults.seam import ERRORS, Disk, failing
from training.tiny import Tiny, TinyConfig, tiny

from flaxformer_edu import convert
from flaxformer_edu.data.image_sets.mnist import read_idx
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import write_json
from flaxformer_edu.models.abstract import split_model
from flaxformer_edu.runs import open_model, read_rows, save_model

pytestmark = pytest.mark.one_mode
CLASSES = [Tiny, TinyConfig]
WEIGHTS = {"a": np.arange(6000, dtype=np.float32), "b": np.ones((3, 4), np.float16)}
TRIALS = [2, pytest.param(10_000, marks=pytest.mark.slow)]  # at most: as many as there are reads, or writes


def opened(folder: Path) -> Any:
    return split_model(open_model(folder, classes=CLASSES)[0])[1]


def write_idx(path: Path) -> None:
    path.write_bytes(b"\0\0\x08\1\0\0\x10\0" + bytes(range(256)) * 16)


# What makes a file or folder, and what reads it.
READERS: dict[str, tuple[Callable[[Path], object], Callable[[Path], Any]]] = {
    "model": (lambda path: save_model(path, tiny()), opened),
    "weights.pth": (lambda path: convert.write(path, WEIGHTS), convert.read),
    "weights.npz": (lambda path: convert.write(path, WEIGHTS), convert.read),
    "train-labels-idx1-ubyte": (write_idx, lambda path: read_idx(path, rank=1)),
    "metrics.jsonl": (lambda path: path.write_text('{"step": 1, "loss": 2}\n' * 3000), read_rows),
}


def equal(left: Any, right: Any) -> bool:
    return bool(jax.tree.all(jax.tree.map(np.array_equal, left, right)))


def moments(count: int, trials: int) -> list[int]:
    return sorted(random.Random(trials).sample(range(count), min(trials, count)))


@pytest.mark.parametrize("how", ["a fault", "short"])
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("trials", TRIALS)
def test_reading(name, how, trials, tmp_path, outcomes):
    make, read = READERS[name]
    path = tmp_path / name
    make(path)
    with failing(Disk(path, "read")) as disk:
        expected = read(path)
    assert disk.seen
    for moment in moments(disk.seen, trials):
        try:
            with failing(Disk(path, "read", at=moment, error=ERRORS[how])):
                outcome = "harmless" if equal(read(path), expected) else "silent"
        except (InputError, OSError):  # which the door gives its line
            outcome = "refused"
        assert how == "a fault" or outcome == "harmless"  # a short read is no end of a file
        outcomes[outcome] += 1


WRITERS: dict[str, Callable[[Path, int], object]] = {
    "model": lambda path, seed: save_model(path, tiny(seed)),
    "weights.pth": lambda path, seed: convert.write(path, {"a": np.full(9000, seed, np.float32)}),
    "weights.npz": lambda path, seed: convert.write(path, {"a": np.full(9000, seed, np.float32)}),
    "figures.json": lambda path, seed: write_json(path, [seed] * 9000),
}


@pytest.mark.parametrize("how", ERRORS)
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("trials", TRIALS)
def test_writing_in_the_place_of_another(name, how, trials, tmp_path, outcomes):
    write, read = WRITERS[name], opened if name == "model" else Path.read_bytes
    found = []
    for seed in range(2):
        write(tmp_path / f"{seed}" / name if name == "model" else made(tmp_path / f"{seed}") / name, seed)
        found.append(read(tmp_path / f"{seed}" / name))
    target = made(tmp_path / "target") / name
    write(target, 0)
    with failing(Disk(target.parent, "write")) as disk:
        write(target, 0)
    assert disk.seen
    for moment in moments(disk.seen, trials):
        write(target, 0)
        try:
            with failing(Disk(target.parent, "write", at=moment, error=ERRORS[how])):
                write(target, 1)
            outcome = "harmless" if equal(read(target), found[1]) else "silent"
        except (InputError, OSError):
            outcome = "refused" if any(equal(read(target), old) for old in found) else "silent"
        outcomes[outcome] += 1


def made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder
