"""The canaries pass with the switches that we use, fail without them, and their deaths are survived."""

from dataclasses import replace

import pytest

from flaxformer_edu.canaries import CANARIES, run, run_here, run_in_child
from flaxformer_edu.compiler import JAXLIB, VARIABLE, YNNPACK, faults

SUM_PROPAGATED_BACK = CANARIES[0]
AS_SHIPPED = f"--{YNNPACK.switch}={YNNPACK.shipped}"

pytestmark = pytest.mark.no_nnx

wrong_release = pytest.mark.skipif(not faults(), reason=f"no fault of jaxlib {JAXLIB} is known")


def test_all_pass_with_the_switches_that_we_use() -> None:
    verdicts = list(run())
    assert [verdict.canary for verdict in verdicts] == [canary.name for canary in CANARIES]
    assert [verdict for verdict in verdicts if not verdict.ok] == []


@wrong_release
def test_a_sum_propagated_back_is_wrong_without_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, AS_SHIPPED)
    verdict = run_in_child(SUM_PROPAGATED_BACK)
    assert verdict.outcome == "wrong", verdict


@wrong_release
def test_a_switch_can_be_tried_out_in_this_process() -> None:
    broken = {YNNPACK.switch: "LIBRARY_FUSION_TYPE_REDUCE"}  # one kind's name is what jax.jit takes beside ""
    assert run_here(SUM_PROPAGATED_BACK, broken).outcome == "wrong"
    assert run_here(SUM_PROPAGATED_BACK, YNNPACK.options).outcome == "ok"


@pytest.mark.skipif(JAXLIB != "0.10.2", reason="the other releases that we run on get these right")
@pytest.mark.parametrize("canary", CANARIES[1:], ids=lambda canary: canary.name)
def test_the_published_faults_are_there_without_the_guard(canary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, AS_SHIPPED)
    verdict = run_in_child(canary)
    assert verdict.outcome in (("died", "hung") if canary.kills else ("wrong",)), verdict


def test_a_child_that_hangs_is_ended() -> None:
    verdict = run_in_child(SUM_PROPAGATED_BACK, seconds=0.01)  # in which no Python imports jax
    assert (verdict.outcome, verdict.detail) == ("hung", "no answer in 0.01 s")


def test_a_child_that_fails_is_quoted() -> None:
    verdict = run_in_child(replace(SUM_PROPAGATED_BACK, name="no such canary"))
    assert (verdict.outcome, verdict.detail) == ("died", "StopIteration")
