"""The metrics file: one line per step, the same after a resume, and a loss that is not finite found and named."""

import json

import jax.numpy as jnp
import pytest

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
