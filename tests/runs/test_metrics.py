"""The metrics file: one line per step, the same after a resume, and a loss that is not finite found and named."""

import json

import jax.numpy as jnp
import pytest

from flaxformer_edu.errors import InputError
from flaxformer_edu.runs import IN_FLIGHT, read_rows
from flaxformer_edu.runs.metrics import MetricsLog
from flaxformer_edu.training import DivergedError

pytestmark = pytest.mark.no_nnx


def write(path, steps, *, start=0):
    with MetricsLog(path, step=start) as log:
        for step in range(start + 1, steps + 1):
            log.add(step, {"accuracy": jnp.asarray(step / 7), "loss": jnp.asarray(1 / step)})
            if step % 3 == 0:
                log.fetch()
                log.write({"step": step, "eval_loss": step / 3})
        log.fetch()
    return path.read_bytes()


def test_rows_and_their_file(tmp_path):
    write(tmp_path / "metrics.jsonl", 3)
    rows, size = read_rows(tmp_path / "metrics.jsonl")
    assert [list(row) for row in rows] == [["step", "loss", "accuracy"]] * 3 + [["step", "eval_loss"]]
    assert rows[2]["loss"] == float(jnp.float32(1 / 3))
    assert size == (tmp_path / "metrics.jsonl").stat().st_size


@pytest.mark.parametrize("resumed", range(10))
@pytest.mark.parametrize("torn", [b"", b'{"step": 10, "lo'])
def test_a_resumed_file_equals_an_uninterrupted_one(tmp_path, resumed, torn):
    """The first process wrote up to step 9 and died within a line; the last checkpoint was that of step `resumed`."""
    expected = write(tmp_path / "whole.jsonl", 12)
    path = tmp_path / "metrics.jsonl"
    write(path, 9)
    path.write_bytes(path.read_bytes() + torn)
    assert write(path, 12, start=resumed) == expected


def test_the_rows_of_earlier_processes_are_remembered(tmp_path):
    write(tmp_path / "metrics.jsonl", 9)
    with MetricsLog(tmp_path / "metrics.jsonl", step=4) as log:
        assert [row["step"] for row in log.rows] == [1, 2, 3, 3, 4]


def test_the_latest_calls_are_left_running():
    log = MetricsLog()
    for step in range(1, 8):
        log.add(step, {"loss": jnp.asarray(1.0)})
    log.fetch(keep=IN_FLIGHT)
    assert [row["step"] for row in log.rows] == list(range(1, 8 - IN_FLIGHT))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_named(tmp_path, bad):
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.add(3, {"loss": jnp.array([1.0, 2.0, 3.0])})
        log.add(6, {"loss": jnp.array([4.0, bad, 5.0])})
        with pytest.raises(DivergedError, match=f"the loss is {bad} at step 5"):
            log.fetch()
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")[0]] == [1, 2, 3, 4]


def test_other_values_that_are_not_finite_are_null(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.write({"step": 1, "eval_perplexity": float("inf")})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "eval_perplexity": None}


def damage_line(path, number, change):
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1 : number] = change(lines[number - 1])
    path.write_bytes(b"".join(lines))


CHANGES = {
    "digit": lambda line: [line[:-3] + bytes([line[-3] ^ 1]) + line[-2:]],
    "name": lambda line: [line.replace(b"step", b"stfp")],
    "deleted": lambda line: [],
    "twice": lambda line: [line, line],
    "joined": lambda line: [line[:-1]],
    "split": lambda line: [line[:9], b"\n", line[9:]],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("number", [1, 6, 12])
def test_a_changed_row_is_named(tmp_path, change, number):
    """Of the 12 rows up to step 9, the last of which ends a checkpoint."""
    path = tmp_path / "metrics.jsonl"
    write(path, 9)
    with MetricsLog(path, step=9) as log:
        checksums = log.checksums
    assert len(checksums) == 12
    damage_line(path, number, CHANGES[change])
    named = number + 1 if change == "twice" else number
    if named <= 12:
        with pytest.raises(InputError, match=rf"metrics\.jsonl, line {named}, is"):
            MetricsLog(path, step=9, checksums=checksums)
    else:  # beyond the checkpoint: rows that are written again
        with MetricsLog(path, step=9, checksums=checksums) as log:
            assert log.checksums == checksums


@pytest.mark.parametrize(("number", "change"), [(1, "name"), (2, "deleted"), (7, "joined")])
def test_a_damaged_file_of_earlier_versions(tmp_path, number, change):
    """Its checkpoints have no checksums of the rows."""
    path = tmp_path / "metrics.jsonl"
    write(path, 9)
    damage_line(path, number, CHANGES[change])
    with pytest.raises(InputError, match=rf"metrics\.jsonl, line {number}, is"):
        MetricsLog(path, step=9)


def test_without_its_file_a_log_begins_anew(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl", step=9, checksums=[1, 2]) as log:
        log.write({"step": 10, "loss": 0.5})
    assert (log.rows, len(log.checksums)) == ([{"step": 10, "loss": 0.5}], 1)


def test_lines_that_are_no_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for line in (b"[]\n", b"3\n", b'{"loss": 1}\n', b'{"step": "a"}\n', b'{"step": \n', b"\xff\n"):
        path.write_bytes(b'{"step": 1}\n' + line)
        with pytest.raises(InputError, match=r"metrics\.jsonl, line 2, is no row"):
            read_rows(path)
