"""Numbers and targets that cannot be are refused before the work begins."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.counts import checked
from flaxformer_edu.commands import compare, verify
from flaxformer_edu.errors import InputError
from train.course import Config

pytestmark = pytest.mark.no_nnx


@dataclass(frozen=True, kw_only=True)
class Settings:
    rounds: int = 1
    batch_sizes: tuple[int, ...] = (2, 3)
    share: float = 0.0
    quick: bool = False


@pytest.mark.parametrize(
    ("given", "said"),
    [({"rounds": 0}, "rounds is 0"), ({"batch_sizes": (2, -1)}, "batch-sizes is 2 -1"), ({"batch_sizes": ()}, "empty")],
)
def test_what_benchmarks_cannot_count_to(given, said):
    assert checked(Settings()) == Settings()
    with pytest.raises(InputError, match=f"{said}, expected 1 or more"):
        checked(Settings(**given))


def test_a_share_of_wrong_labels():
    Config(model="perceptron", noise=0.5).check()
    with pytest.raises(InputError, match=r"--noise is 2\.0, expected 0 to 1"):
        Config(model="perceptron", noise=2.0).check()


def test_targets_of_reports(tmp_path: Path):
    with pytest.raises(InputError, match="is a folder: choose the name of a file"):
        verify.run("both", tmp_path)
    for target in ("record", "json", "html"):
        given = {"ours": None, "theirs": tmp_path / "none", "torch_model": None, "inputs": (), target: tmp_path}
        with pytest.raises(InputError, match="is a folder: choose the name of a file"):
            compare.compare(**given)
