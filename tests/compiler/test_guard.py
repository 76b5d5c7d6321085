"""What `import flaxformer_edu` does to XLA_FLAGS, each time in a fresh process."""

import os
import subprocess
import sys

import pytest

from flaxformer_edu.compiler import JAXLIB, VARIABLE, YNNPACK, CompilerWarning, faults, flags

REPORT = "import os, flaxformer_edu; print(os.environ.get('XLA_FLAGS'))"
OPEN = "import jax; jax.devices()"

pytestmark = pytest.mark.no_nnx

wrong_release = pytest.mark.skipif(not faults(), reason=f"no fault of jaxlib {JAXLIB} is known")


def python(*lines: str, xla_flags: str | None = None) -> subprocess.CompletedProcess[str]:
    """A fresh Python, which has in XLA_FLAGS what is given and nothing of this process's."""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if xla_flags is not None:
        environment[VARIABLE] = xla_flags
    command = [sys.executable, "-W", "error", "-c", "\n".join(lines)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


@wrong_release
def test_import_sets_the_switch() -> None:
    assert python(REPORT).stdout.split() == [YNNPACK.flag]


@wrong_release
def test_import_keeps_the_other_flags() -> None:
    assert python(REPORT, xla_flags="--xla_dump_to=here").stdout.split() == ["--xla_dump_to=here", YNNPACK.flag]


@pytest.mark.parametrize("value", ["-reduce", "+reduce"])
def test_import_never_overrides_the_user(value: str) -> None:
    users = f"--{YNNPACK.switch}={value}"
    done = python(OPEN, REPORT, xla_flags=users)  # and says nothing, though a backend is open
    assert done.stdout.split() == [users], done.stderr


def test_import_opens_no_backend() -> None:
    asked = "from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())"
    done = python("import flaxformer_edu", asked)
    assert done.stdout.strip() == "False", done.stderr


@wrong_release
def test_import_after_a_backend_opened_warns_with_the_cure() -> None:
    done = python(OPEN, "import flaxformer_edu")
    assert done.returncode == 1
    assert CompilerWarning.__name__ in done.stderr
    assert YNNPACK.remedy in done.stderr.splitlines()


@wrong_release
def test_flags_in_a_file_are_read_and_left_alone(tmp_path) -> None:
    file = tmp_path / "flags"
    file.write_text(f"{YNNPACK.flag}\n")
    assert python(REPORT, xla_flags=str(file)).stdout.strip() == str(file)
    file.write_text("--xla_dump_to=here\n")
    assert f"Add {YNNPACK.flag} to the file" in python(REPORT, xla_flags=str(file)).stderr


@pytest.mark.parametrize(
    ("jaxlib", "wrong"),
    [("0.10.0", False), ("0.10.1", False), ("0.10.2", True), ("0.11.2", True), ("0.11.3.dev20261101", True)],
)
def test_releases_that_are_known_to_be_wrong(jaxlib: str, wrong: bool) -> None:
    assert bool(faults(jaxlib)) is wrong


def test_the_suite_runs_guarded() -> None:
    assert all(fault.switch in flags() for fault in faults())
