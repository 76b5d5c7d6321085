"""The recipe `train.vit` on a tiny budget: it learns, resumes exactly, and says what is wrong."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from flaxformer_edu.data import ArrayDataset, cutmix, load_digits
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import ViTConfig
from flaxformer_edu.runs import open_model, read_rows
from train import vit

TINY = {"dataset": "digits", "epochs": 2, "batch_size": 128}


def test_the_loss_falls_and_the_folder_opens(tmp_path):
    assert vit.run(vit.Config(**TINY, out=tmp_path / "run", json=tmp_path / "figures.json")) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["steps"] == 22
    assert figures["accuracy"] > 0.5
    losses = [row["loss"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")[0] if "loss" in row]
    assert losses[-1] < 0.7 * losses[0]
    model, notes = open_model(tmp_path / "run")
    assert model.config.image_size == 8
    assert notes["class_names"] == tuple("0123456789")
    assert vit.run(vit.Config(**TINY, out=tmp_path / "run", json=tmp_path / "again.json")) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert (again["accuracy"], again["loss"]) == (figures["accuracy"], figures["loss"])
    with pytest.raises(InputError, match=r"holds a different run .*settings.seed: 0 in the folder, 1 now"):
        vit.run(vit.Config(**TINY, seed=1, out=tmp_path / "run"))


def test_one_batch_is_memorised(tmp_path):
    assert vit.run(vit.Config(dataset="digits", overfit_one_batch=True, json=tmp_path / "figures.json")) == 0
    assert json.loads((tmp_path / "figures.json").read_text())["accuracy"] == 1
    assert vit.run(vit.Config(dataset="digits", overfit_one_batch=True, epochs=1)) == 1


@pytest.mark.parametrize("preset", ["tuned", "compact"])
def test_presets_for_photographs_learn(preset, tmp_path, monkeypatch):
    """A smaller version of each, on digits enlarged to photographs' three channels."""
    digits = load_digits()
    colour = {split: coloured(digits[split], count) for split, count in (("train", 160), ("test", 64))}
    source = vit.replace(vit.SOURCES["cifar10"], load=lambda _: colour)
    monkeypatch.setitem(vit.SOURCES, "cifar10", source)
    full = vit.PRESETS[preset]

    def small(**sizes):
        return vit.replace(full.model(**sizes), width=32, layers=1, hidden=32)

    monkeypatch.setitem(vit.PRESETS, preset, vit.replace(full, model=small))
    config = vit.Config(preset=preset, epochs=12, batch_size=32, learning_rate=3e-3, dtype="float32", out=tmp_path)
    assert vit.run(config) == 0
    losses = [row["loss"] for row in read_rows(tmp_path / "metrics.jsonl")[0] if "loss" in row]
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])


def coloured(dataset: ArrayDataset, count: int) -> ArrayDataset:
    part = dataset.take(np.arange(count))
    images = part["images"].repeat(2, axis=1).repeat(2, axis=2).repeat(3, axis=3)
    return ArrayDataset(name="coloured", arrays={**part, "images": images}, class_names=dataset.class_names)


@pytest.mark.no_nnx
def test_cutmix_pastes_a_box_and_counts_its_pixels():
    images = np.broadcast_to(np.arange(400, dtype=np.float32)[:, None, None, None], (400, 6, 10, 2))
    mixed, share = cutmix(jax.random.key(0), jnp.asarray(images))
    own = np.asarray(mixed) == images
    assert ((np.asarray(mixed) == np.roll(images, 1, axis=0)) | own).all()
    np.testing.assert_allclose(share, own.mean((1, 2, 3)), atol=1e-6)
    boxes = ~own[..., 0]
    np.testing.assert_array_equal(boxes, boxes.any(2, keepdims=True) & boxes.any(1, keepdims=True))
    assert 0.45 < (np.asarray(share) == 1).mean() < 0.65
    assert np.asarray(share).min() < 0.4


@pytest.mark.no_nnx
def test_runs_begun_before_an_option_existed_are_resumed():
    """What such a folder does not hold must be None unless it is asked for."""
    held = {"seed", "dataset", "overfit_one_batch"}
    for name in ("digits", "cifar10"):
        assert {key for key, value in vit.Config(dataset=name).settings.items() if value is not None} == held


@pytest.mark.no_nnx
@pytest.mark.parametrize("option", ["image_size", "val"])
def test_options_of_own_pictures_are_refused_elsewhere(option):
    with pytest.raises(InputError, match=f"--{option.replace('_', '-')} is for your own pictures .*, not digits"):
        vit.Config(dataset="digits", **{option: 1}).check()


@pytest.mark.no_nnx
def test_wrong_values():
    with pytest.raises(InputError, match="epochs is 0"):
        vit.run(vit.Config(dataset="digits", epochs=0))
    with pytest.raises(InputError, match="image_size 8 is not divisible by patch_size 3"):
        vit.run(vit.Config(dataset="digits", patch_size=3))
    with pytest.raises(InputError, match="image_size 8 is not divisible by patch_size 0: choose a patch size above 0"):
        ViTConfig.digits(patch_size=0)


@pytest.mark.no_nnx
def test_the_command_line(tmp_path):
    def command(*arguments):
        return subprocess.run([sys.executable, "-m", "train.vit", *arguments], capture_output=True, text=True)

    assert "$ python -m train.vit --preset tuned" in command("--help").stdout
    failed = command("--data", str(tmp_path / "none"))
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1
    assert failed.stderr.startswith(f"error: no folder {tmp_path / 'none'}")


@pytest.mark.one_mode
def test_own_pictures_are_learned(tmp_path):
    random = np.random.default_rng(0)
    for name, level in (("bright", 200), ("dark", 40)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(40):
            picture = Image.fromarray(random.integers(level - 30, level + 30, (9, 11 + number % 5), dtype=np.uint8))
            picture.save(tmp_path / "set" / name / f"{number}.png")
    config = vit.Config(
        data=tmp_path / "set", image_size=8, patch_size=4, preset="digits", epochs=4, batch_size=16, evaluate_every=16,
        out=tmp_path / "run", json=tmp_path / "figures.json",
    )  # fmt: skip
    assert vit.run(config) == 0
    assert json.loads((tmp_path / "figures.json").read_text())["accuracy"] > 0.9
    model, notes = open_model(tmp_path / "run")
    assert (model.config.image_size, notes["class_names"]) == (8, ("bright", "dark"))
    assert notes["preprocessing"]["mean"] == notes["mean"]
    assert 0.3 < notes["mean"][0] < 0.6
