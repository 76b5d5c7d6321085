from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def as_users_run() -> Iterator[None]:
    """Compile with all optimisations, as users do and the rest of the suite does not."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
