import os
from collections.abc import Iterator

import jax
import pytest

SHIPPED = {"xla_cpu_use_fusion_emitters": True} if jax.__version_info__ < (0, 11) else {}
"""For `jax.jit`: the generator of code that users have, where the suite's own XLA_FLAGS name the quicker one."""


@pytest.fixture(scope="module", autouse=True)
def as_users_run() -> Iterator[None]:
    """Compile with all optimisations, as users do and the rest of the suite does not; so do processes started here."""
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if flag.split("=")[0].removeprefix("--") not in SHIPPED]
    jax.config.update("jax_disable_most_optimizations", False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", " ".join(flags))
        yield
    jax.config.update("jax_disable_most_optimizations", True)
