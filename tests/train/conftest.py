"""A small captioning folder that no test changes."""

from pathlib import Path

import pytest

from flaxformer_edu.data import write_pictures


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("drawn") / "set", seed=1, train=60, val=12)
