"""Damage to any file of a checkpoint or a saved model is named, and what is still sound is used instead."""

import io
import json
import logging
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from training.tiny import Source, Tiny, TinyConfig, assert_same, evaluate_fn, loss_fn, tiny, validation

from flaxformer_edu.errors import InputError
from flaxformer_edu.runs import Checkpoints, open_model, save_model
from flaxformer_edu.runs.checksums import DamagedError
from flaxformer_edu.training import LoopConfig, Optimizer, fit, split_model

CLASSES = [Tiny, TinyConfig]


def flip(path: Path, place: float = 0.5) -> None:
    """Change one bit of the file."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << (len(content) % 8)
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = {"flip": flip, "flip first": lambda path: flip(path, 0.0), "cut": cut, "empty": empty, "gone": Path.unlink}


def train(folder, *, source=None, console=None, **changed):
    settings = {"steps": 14, "evaluate_every": 5, "save_every": 4, "ema_decay": 0.9, **changed}
    options = {"evaluate_fn": evaluate_fn, "validation": validation, "console": console or Console(file=io.StringIO())}
    optimizer, loop = Optimizer(learning_rate=0.01), LoopConfig(**settings)
    return fit(tiny(), loss_fn, optimizer, source or Source(), loop, folder=folder, **options)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run's folder and what it ended with; the latest checkpoints are those of steps 12 and 14."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, train(folder)


@pytest.fixture
def finished(trained) -> Path:
    """The folder alone, which is to be copied."""
    return trained[0]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(folder, tiny(), notes={"words": ["a", "b"]})
    return folder


def test_the_run_keeps_the_one_before_the_latest(finished):
    assert [path.name for path in sorted((finished / "checkpoints").iterdir())] == ["12", "14"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_of_a_saved_model_is_refused(saved, tmp_path, damage, capfd):
    """Only its list of checksums can go unpunished, as older folders have none: that is said."""
    for path in files(saved):
        name = path.relative_to(saved)
        shutil.copytree(saved, tmp_path / "copy")
        DAMAGES[damage](tmp_path / "copy" / name)
        if damage == "gone" and name.name == "checksums":
            open_model(tmp_path / "copy", classes=CLASSES)
            assert "has no checksums" in capfd.readouterr().err
        else:
            with pytest.raises(InputError, match=r"damaged|not as it was|not valid JSON|holds no model"):
                open_model(tmp_path / "copy", classes=CLASSES)
        shutil.rmtree(tmp_path / "copy")


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_of_a_checkpoint_is_found(finished, tmp_path, damage):
    """Also where it is of a group that is not asked for, and changes its size."""
    like = restored_groups(finished, 14)
    shutil.copytree(finished, tmp_path / "copy")
    for path in files(tmp_path / "copy" / "checkpoints" / "14"):
        if damage == "gone" and path.name == "checksums":
            continue
        content = path.read_bytes()
        DAMAGES[damage](path)
        with Checkpoints(tmp_path / "copy", read_only=True) as reader, pytest.raises(DamagedError, match="14 is dam"):
            _ = reader.restore(like, 14), reader.restore_rows(14)
        path.write_bytes(content)
    assert_same(restored_groups(tmp_path / "copy", 14), like)


def restored_groups(folder: Path, step: int):
    from flaxformer_edu.training import new_state

    like = new_state(split_model(tiny())[1], Optimizer(learning_rate=0.01).build(14), ema=True).groups
    with Checkpoints(folder, read_only=True) as checkpoints:
        return checkpoints.restore(like, step)


def stray(checkpoints: Path) -> None:
    (checkpoints / "1000").mkdir()


def copied(checkpoints: Path) -> None:
    shutil.copytree(checkpoints / "14", checkpoints / "1000")


def without_average(checkpoints: Path) -> None:
    shutil.rmtree(checkpoints / "14" / "average")


def emptied(checkpoints: Path) -> None:
    shutil.rmtree(checkpoints / "14")
    (checkpoints / "14").mkdir()


def flipped(checkpoints: Path) -> None:
    flip(checkpoints / "14" / "average" / "head.bias" / "0")


@pytest.mark.parametrize("damage", [stray, copied, without_average, emptied, flipped])
def test_the_checkpoint_before_a_damaged_one_is_opened_and_that_is_said(finished, tmp_path, damage, capfd):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    damage(folder / "checkpoints")
    latest = max(int(path.name) for path in (folder / "checkpoints").iterdir())
    before = 14 if latest == 1000 else 12
    model, _ = open_model(folder, which="latest", classes=CLASSES)
    said = capfd.readouterr().err
    assert f"checkpoints/{latest} is damaged" in said
    assert f"checkpoint {before} is used instead" in said
    assert_same(split_model(model)[1], restored_groups(folder, before)["average"])
    assert (folder / "checkpoints" / str(latest)).is_dir()  # it belongs to the run, which may be going on


@pytest.mark.parametrize("damage", [copied, flipped])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(trained, tmp_path, damage):
    folder, text = tmp_path / "run", io.StringIO()
    shutil.copytree(trained[0], folder)
    damage(folder / "checkpoints")
    result = train(folder, console=Console(file=text, width=500))
    assert "is used instead" in text.getvalue()
    assert_same(result.state, trained[1].state)
    assert (folder / "metrics.jsonl").read_bytes() == (trained[0] / "metrics.jsonl").read_bytes()
    aside = "1000" if damage is copied else "14"
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {"12", "14", f"{aside}.damaged"}


def test_where_no_checkpoint_is_sound_all_are_named(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for step in (12, 14):
        flip(folder / "checkpoints" / str(step) / "params" / "head.bias" / "0")
    for _ in range(2):  # it is left as it was
        with pytest.raises(InputError, match=r"14 is damaged: params/head\.bias/0 .*12 is damaged.*No other"):
            train(folder)


def test_a_model_of_another_checkpoint_is_refused(saved, tmp_path):
    """As where the process died between writing the description and the weights."""
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    described = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**described, "notes": {"words": ["b", "a"]}}))
    with pytest.raises(InputError, match=r"model\.json is not as it was when .* was written: put the right one back"):
        open_model(folder, classes=CLASSES)


def without_checksums(folder: Path) -> None:
    """As before there were any."""
    for path in folder.glob("checkpoints/*/checksums"):
        path.unlink()


def test_a_folder_from_before_there_were_checksums_opens_with_a_line(finished, tmp_path, capfd):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    expected, _ = open_model(folder, classes=CLASSES)
    assert capfd.readouterr().err == ""
    without_checksums(folder)
    opened, _ = open_model(folder, classes=CLASSES)
    assert_same(split_model(opened)[1], split_model(expected)[1])
    assert capfd.readouterr().err.count("has no checksums") == 1
    text = io.StringIO()
    train(folder, console=Console(file=text, width=500))
    assert text.getvalue().count("has no checksums") == 1


@pytest.mark.parametrize("damaged", ["average", "params/_METADATA", "training/step/0", "training/step/.zarray"])
def test_without_checksums_what_cannot_be_read_is_damaged_too(finished, tmp_path, damaged):
    like = restored_groups(finished, 14)
    shutil.copytree(finished, tmp_path / "run")
    without_checksums(tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "14" / damaged
    if path.is_dir():
        shutil.rmtree(path)
    elif path.name == "0":
        path.write_bytes(np.int32(7).tobytes())
    else:
        path.write_bytes(b"")
    with Checkpoints(tmp_path / "run", read_only=True) as checkpoints, pytest.raises(DamagedError, match="14"):
        checkpoints.restore(like, 14)


def test_a_checkpoint_that_is_deleted_while_it_is_opened(tmp_path):
    """A run that goes on has written the next one: that is opened."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"params": {"a": jnp.ones(3)}})
    asked = []

    def restore(step):
        asked.append(step)
        if step == 1:
            with Checkpoints(tmp_path) as run:
                run.save(2, {"params": {"a": jnp.zeros(3)}})
        return reader.restore_params({"a": jnp.ones(3)}, step)

    with Checkpoints(tmp_path, read_only=True) as reader:
        step, params = reader.restore_first("latest", restore)
    assert (step, asked) == (2, [1, 2])
    assert_same(params, {"a": jnp.zeros(3)})


def test_what_killed_processes_left_is_deleted_at_the_next_start(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for name in ("4", "15.orbax-checkpoint-tmp", "15.orbax-checkpoint-tmp-whole"):
        shutil.copytree(folder / "checkpoints" / "12", folder / "checkpoints" / name)
    train(folder)
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"12", "14"}


def test_a_changed_row_of_metrics_is_named_when_the_run_is_resumed(finished, tmp_path):
    folder, text = tmp_path / "run", io.StringIO()
    shutil.copytree(finished, folder)
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_bytes(b"".join(lines[:3] + lines[4:]))
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 4, is not as it was written: .* or delete the file"):
        train(folder)
    (folder / "metrics.jsonl").unlink()
    train(folder, console=Console(file=text, width=500))
    assert "metrics.jsonl is not there: the metrics up to step 14 are lost" in text.getvalue()


def test_tracebacks_that_orbax_logs_are_not_printed(tmp_path, caplog):
    """On a full disk each of its threads logs one, before the exception is raised that says so."""
    log = logging.getLogger("absl")
    with Checkpoints(tmp_path):
        try:
            raise OSError("No space left on device")
        except OSError:
            log.exception("a thread failed")
        log.warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]


def test_a_run_that_has_lost_its_run_json_is_taken_up_again(trained, tmp_path, capfd):
    source, result = trained
    folder = Path(shutil.copytree(source, tmp_path / "copy"))
    (folder / "run.json").unlink()
    with pytest.raises(InputError, match="holds a run, whose model open_model opens"):
        save_model(folder, tiny())
    assert_same(train(folder).state, result.state)
    assert "has lost its run.json: its settings and its data are taken to be those of now" in capfd.readouterr().err
    assert (folder / "run.json").read_bytes() == (source / "run.json").read_bytes()
