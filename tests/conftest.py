"""Shared fixtures: a compile cache that outlives the run, float64 on request, and the folder of real data."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jax
import jaxtyping
import pytest
from flax import nnx

from flaxformer_edu.compiler import QUICK_TO_COMPILE  # before a backend opens, as the package sets XLA's switches

# A shell starts background jobs with Ctrl-C ignored, and so would start those of the tests that press it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# In front, so that flags from outside win; tests/compiler tries the compiler out as it is shipped.
os.environ["XLA_FLAGS"] = f"{QUICK_TO_COMPILE} {os.environ.get('XLA_FLAGS', '')}"

# For the processes that tests start, too.
CACHE = {
    "jax_compilation_cache_dir": str(Path(__file__).parent.parent / ".cache" / "jax"),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": 0,
}
for name, value in CACHE.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_default_matmul_precision", "highest")

# The same examples in every run, and no clock: two runs of the suite say the same.
hypothesis.settings.register_profile("suite", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("suite")


# Files whose tests take long go first, so that at the end no process is left alone with one.
LONG = ("compiler", "train", "training", "faults", "compare")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(room) if (room := item.path.parent.name) in LONG else len(LONG))


@pytest.fixture(autouse=True)
def _no_nnx(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test marked `no_nnx`, which the second mode's run leaves out, fails where it builds an nnx variable."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError(f"{request.node.nodeid} is marked no_nnx but builds an nnx variable: take its mark off")

    if request.node.get_closest_marker("no_nnx"):
        monkeypatch.setattr(nnx.Variable, "__init__", refuse)


@pytest.fixture
def float64() -> Iterator[None]:
    """Run the test with 64-bit types."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without jaxtyping's checks, as users run the package: our own errors must come through."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that FLAXFORMER_EDU_DATA names; the test skips where there is none."""
    folder = os.environ.get("FLAXFORMER_EDU_DATA")
    if not folder:
        pytest.skip("set FLAXFORMER_EDU_DATA to the folder of real data to run this test")
    return Path(folder)
