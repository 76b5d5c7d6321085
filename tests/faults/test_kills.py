"""A process killed at any moment of training, saving, converting and fetching: its work is whole, or not there."""

import hashlib
import os
import random
import shutil
import signal
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from data.conftest import Server, drawn, server  # noqa: F401 (fixtures)
from faults.children import exit_of, moments, operations, start, train
from training.tiny import Source, Tiny, TinyConfig, tiny

from flaxformer_edu import convert
from flaxformer_edu.data.captions.coco_download import fetch_coco
from flaxformer_edu.download import RemoteFile
from flaxformer_edu.errors import InputError
from flaxformer_edu.models.abstract import split_model
from flaxformer_edu.runs import open_model, save_model

pytestmark = pytest.mark.one_mode
CLASSES = [Tiny, TinyConfig]
SHORT, LONG = 3, pytest.param(50, marks=pytest.mark.slow)
ENDINGS = (".safetensors", ".pth", ".npz")
WEIGHTS = [{"w": np.full((64, 64), number, np.float32)} for number in range(2)]


def equal(left: Any, right: Any) -> bool:
    return bool(jax.tree.all(jax.tree.map(np.array_equal, left, right)))


def count(outcomes, status: int, whole: bool) -> None:
    """Note what became of a process: where it was killed and its work is whole now, the work was recovered."""
    outcomes["silent" if not whole else "recovered" if status else "harmless"] += 1


def save(folder: Path, seed: int) -> None:
    save_model(folder, tiny(seed), notes={"seed": seed})


def write(folder: Path, ending: str, number: int) -> None:
    convert.write(folder / f"weights{ending}", WEIGHTS[number])


def fetch(folder: Path, remote: RemoteFile, members: dict[str, str]) -> None:
    os.environ["FLAXFORMER_EDU_CACHE"] = str(folder / "cache")
    fetch_coco(folder / "coco", remote, members)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, Any, int]:
    """The folder of a run that nothing happened to, what it ended with, and how many operations it took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder / "run", train(folder / "run"), operations(train, folder / "counted")


def resumed(folder: Path, whole: tuple[Path, Any, int]) -> bool:
    """Whether the run in the folder ends as the undisturbed one; then it goes."""
    same = equal(train(folder).state.groups, whole[1].state.groups)
    same &= (folder / "metrics.jsonl").read_bytes() == (whole[0] / "metrics.jsonl").read_bytes()
    shutil.rmtree(folder)
    return same


@pytest.mark.parametrize("trials", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_training(whole, trials, tmp_path, outcomes):
    """Killed when Python does something in the folder; every other time by the clock, while C++ writes, too."""
    folder, draw = tmp_path / "run", random.Random(trials)
    for trial, moment in enumerate(moments(whole[2], trials, trials)):
        process = start(train, folder, die_at=moment if trial % 2 == 0 else sys.maxsize)
        process.join(draw.uniform(0, 2) if trial % 2 else None)
        process.kill()
        process.join()
        if (folder / "checkpoints").exists():
            opened_or_refused(folder)
        count(outcomes, process.exitcode, resumed(folder, whole))


def opened_or_refused(folder: Path) -> None:
    """What is left of a killed run can be opened, or it says that there is nothing."""
    try:
        model, _ = open_model(folder, classes=CLASSES)
    except InputError as error:
        assert "holds no checkpoint" in str(error)  # noqa: PT017 (either is right)
    else:
        assert np.isfinite(model(Source()(0)["inputs"])).all()


@pytest.mark.parametrize("trials", [SHORT, LONG])
def test_saving_a_model_in_the_place_of_another(trials, tmp_path, outcomes):
    """The weights and the notes of the one, or of the other."""
    save(tmp_path / "counted", 0)
    for trial, moment in enumerate(moments(operations(save, tmp_path / "counted", 1), trials, trials)):
        folder = tmp_path / f"model{trial}"
        save(folder, 0)
        status = exit_of(save, folder, 1, die_at=moment)
        model, notes = open_model(folder, classes=CLASSES)
        whole = equal(split_model(model)[1], split_model(tiny(notes["seed"]))[1])
        save(folder, 2)
        count(outcomes, status, whole and open_model(folder, classes=CLASSES)[1]["seed"] == 2)
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("ending", "trials"), [(".pth", 1), *(pytest.param(ending, 50, marks=pytest.mark.slow) for ending in ENDINGS)]
)
def test_converting_over_a_file(ending, trials, tmp_path, outcomes):
    write(tmp_path, ending, 0)
    for moment in moments(operations(write, tmp_path, ending, 1), trials, trials):
        write(tmp_path, ending, 0)
        status = exit_of(write, tmp_path, ending, 1, die_at=moment)
        found = convert.read(tmp_path / f"weights{ending}")
        count(outcomes, status, any(equal(found, weights) for weights in WEIGHTS))


@pytest.mark.parametrize("trials", [SHORT, LONG])
def test_fetching(trials, tmp_path, outcomes, server: Server, drawn):  # noqa: F811
    names = [path.name for path in drawn.iterdir() if path.name != "pictures.zip"]
    sums = {name: hashlib.sha256((drawn / name).read_bytes()).hexdigest() for name in names}
    archive = tmp_path / "coco_captioning.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in names:
            file.write(drawn / name, f"coco_captioning/{name}")
    content = archive.read_bytes()
    server.files["/coco_captioning.zip"] = content
    remote = RemoteFile(
        url=f"{server.url}/coco_captioning.zip", size=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    for trial, moment in enumerate(moments(operations(fetch, tmp_path / "counted", remote, sums), trials, trials)):
        folder = tmp_path / f"fetched{trial}"
        status = exit_of(fetch, folder, remote, sums, die_at=moment)
        if not (folder / "coco").exists():
            assert exit_of(fetch, folder, remote, sums) == 0
        found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "coco").iterdir()}
        count(outcomes, status, found == sums)
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("number", "trials"),
    [
        (signal.SIGTERM, 1),
        pytest.param(signal.SIGTERM, 25, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 25, marks=pytest.mark.slow),
    ],
)
def test_signals_that_a_run_is_stopped_by(whole, number, trials, tmp_path, outcomes):
    """It leaves as asked, or dies of it where it has not begun or has ended, and goes on from there."""
    for moment in moments(whole[2], trials, trials):
        status = exit_of(train, tmp_path / "run", die_at=moment, number=number)
        assert status in (0, 128 + number, -number, 1)  # 1 of a KeyboardInterrupt
        count(outcomes, status, resumed(tmp_path / "run", whole))


@pytest.mark.parametrize("trials", [1, pytest.param(25, marks=pytest.mark.slow)])
def test_a_run_that_is_halted(whole, trials, tmp_path, outcomes):
    """While it stands still another one is refused, as long as it holds the folder; then it goes on."""
    folder = tmp_path / "run"
    for moment in moments(whole[2], trials, trials):
        process = start(train, folder, die_at=moment, number=signal.SIGSTOP)
        with suppress(FileNotFoundError):  # it has ended
            while not halted(process.pid):
                process.join(0.01)
        try:
            train(folder)
        except InputError as error:
            assert "in use by process" in str(error)  # noqa: PT017 (else it had not begun, or had ended)
            outcomes["refused"] += 1
        while process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.join(0.01)
        count(outcomes, process.exitcode, resumed(folder, whole))


def halted(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize(
    ("processes", "trials"), [(3, 1), *(pytest.param(number, 10, marks=pytest.mark.slow) for number in (2, 3))]
)
def test_several_processes_on_one_folder(whole, processes, trials, tmp_path, outcomes):
    """One of them trains, and one of them is killed; the others are refused, or come when all is done."""
    for moment in moments(whole[2], trials, trials):
        running = [
            start(train, tmp_path / "run", die_at=sys.maxsize if number else moment) for number in range(processes)
        ]
        for process in running:
            process.join()
        outcomes["refused"] += sum(process.exitcode == 1 for process in running)
        count(outcomes, running[0].exitcode, resumed(tmp_path / "run", whole))
