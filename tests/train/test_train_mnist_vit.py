"""The recipe `train.mnist_vit` on a tiny budget: it learns, compares, leaves pictures and a folder that opens."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest

from flaxformer_edu.data import ArrayDataset, load_digits
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import ViTConfig
from flaxformer_edu.runs import open_model, read_rows
from train import mnist_vit

pytestmark = pytest.mark.one_mode


def enlarged(dataset: ArrayDataset, count: int) -> ArrayDataset:
    """scikit-learn's digits, 8 x 8, in the middle of MNIST's 28 x 28."""
    part = dataset.take(np.arange(count))
    images = np.pad(part["images"].repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2), (0, 0)))
    return ArrayDataset(name="digits", arrays={**part, "images": images}, class_names=dataset.class_names)


@pytest.fixture
def small(monkeypatch):
    """Few digits, two kinds of positions, and a narrow model."""
    loaded = load_digits()
    digits = {"train": enlarged(loaded["train"], 1280), "test": enlarged(loaded["test"], 300)}
    monkeypatch.setattr(mnist_vit, "load_mnist", lambda _: digits)
    monkeypatch.setattr(mnist_vit, "Positions", Literal["rotary", "learned"])
    tiles = ViTConfig.tiles
    narrow = SimpleNamespace(tiles=lambda positions: replace(tiles(positions=positions), width=16, hidden=16))
    monkeypatch.setattr(mnist_vit, "ViTConfig", narrow)


def test_all_kinds_are_compared(small, tmp_path, capsys):
    out, file = tmp_path / "all", tmp_path / "figures.json"
    mnist_vit.run(mnist_vit.Config(compare=True, epochs=2, out=out, json=file))
    rows = json.loads(file.read_text())
    assert [(row["positions"], row["steps"]) for row in rows] == [("rotary", 20), ("learned", 20)]
    assert rows[0]["loss"] != rows[1]["loss"]
    printed = capsys.readouterr().out
    assert all(f"{row['accuracy']:.4f}" in printed for row in rows)
    assert (out / "curves.png").stat().st_size > 1000
    losses = [row["loss"] for row in read_rows(out / "rotary" / "metrics.jsonl")[0] if "loss" in row]
    assert losses[-1] < 0.9 * losses[0]

    # Each kind has a folder of its own, which is that of a run by itself.
    mnist_vit.run(mnist_vit.Config(positions="rotary", epochs=2, out=out / "rotary", json=file))
    alone = json.loads(file.read_text())
    assert (alone["accuracy"], alone["confusions"]) == (rows[0]["accuracy"], rows[0]["confusions"])
    model, notes = open_model(out / "rotary", which="latest")
    assert notes["class_names"] == tuple("0123456789")
    test = mnist_vit.load_mnist(None)["test"]
    right = mnist_vit.predict(model, test).argmax(axis=1) == test.arrays["labels"]
    assert right.mean() == pytest.approx(alone["accuracy"])
    assert 0 < sum(alone["confusions"].values()) <= (~right).sum()
    for name in ("confusion", "misclassified", "curves"):
        assert (out / "rotary" / f"{name}.png").stat().st_size > 1000


def test_wrong_values(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        mnist_vit.run(mnist_vit.Config(data=tmp_path / "none"))
