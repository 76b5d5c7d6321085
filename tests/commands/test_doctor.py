"""`flaxformer-edu doctor`, as users run it: in a process of its own, with the guard and without it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flaxformer_edu.canaries import CANARIES, Verdict
from flaxformer_edu.commands.doctor import REPORT_IT, cures
from flaxformer_edu.compiler import JAXLIB, VARIABLE, YNNPACK, faults

pytestmark = pytest.mark.no_nnx

SECTIONS = ["versions", "extras", "machine", "devices", "settings", "caches", "canaries", "speed", "cures"]


def doctor(json_file: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE} | variables
    command = [sys.executable, "-m", "flaxformer_edu.cli", "doctor", "--json", str(json_file)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)


def test_all_is_well_with_the_guard(tmp_path: Path) -> None:
    done = doctor(tmp_path / "page.json", FLAXFORMER_EDU_CACHE=str(tmp_path))
    page = json.loads((tmp_path / "page.json").read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cure" not in done.stdout
    assert list(page) == SECTIONS
    assert {name: verdict["outcome"] for name, verdict in page["canaries"].items()} == {
        canary.name: "ok" for canary in CANARIES
    }
    assert page["versions"]["jaxlib"] == JAXLIB
    assert page["caches"]["data"].startswith(str(tmp_path))
    assert "GFLOP/s" in page["speed"]["product"]
    assert page["cures"] == []
    for section in SECTIONS[:-1]:
        assert section in done.stdout.splitlines()
        assert all(f"  {name}" in done.stdout for name in page[section])


@pytest.mark.skipif(not faults(), reason=f"no fault of jaxlib {JAXLIB} is known")
def test_without_the_guard_it_fails_and_names_the_cure(tmp_path: Path) -> None:
    done = doctor(tmp_path / "page.json", XLA_FLAGS=f"--{YNNPACK.switch}={YNNPACK.shipped}")
    page = json.loads((tmp_path / "page.json").read_text())
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == YNNPACK.remedy
    assert page["canaries"]["a sum propagated back"]["outcome"] == "wrong"
    assert page["cures"] == [YNNPACK.remedy]


def test_where_the_known_cure_does_not_help_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Verdict(canary="a sum propagated back", report="measured here", outcome="wrong", detail="by 1")
    monkeypatch.setenv(VARIABLE, YNNPACK.flag)
    assert cures([wrong]) == [REPORT_IT]
    monkeypatch.setenv(VARIABLE, "")
    assert cures([wrong]) == [YNNPACK.remedy]
