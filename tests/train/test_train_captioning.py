"""The recipe `train.captioning` on a tiny budget, from features and from pixels; and the scores it prints."""

import builtins
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxformer_edu.data import CaptionDataset, write_caption_folder
from flaxformer_edu.decode import bleu, references, word_for_word, write_captions
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import ViTCaptioner
from flaxformer_edu.runs import open_model, read_rows
from train import captioning

pytestmark = pytest.mark.one_mode


def losses(folder):
    return [row["loss"] for row in read_rows(folder / "metrics.jsonl")[0] if "loss" in row]


@pytest.fixture
def small(monkeypatch):
    """The presets with one layer on each side: the course's of a quarter of the width; pixels also at half the size."""
    course, pixels = (captioning.PRESETS[name] for name in ("cs231n", "pixels"))

    def narrow(**sizes):
        return replace(course.model(**sizes), width=64, layers=1, hidden=128)

    def narrow_pixels(**sizes):
        config = pixels.model(**sizes)
        sides = {"width": 32, "layers": 1, "hidden": 64}
        return replace(config, **sides, features=32, vision=replace(config.vision, **sides))

    monkeypatch.setitem(captioning.PRESETS, "cs231n", replace(course, model=narrow))
    monkeypatch.setitem(captioning.PRESETS, "pixels", replace(pixels, model=narrow_pixels, image_size=32))


def test_learns_a_few_captions_by_heart(drawn, small, tmp_path, monkeypatch):
    widths = []

    def write(*inputs, beam=1):
        widths.append(beam)
        return write_captions(*inputs, beam=beam)

    monkeypatch.setattr(captioning, "write_captions", write)
    files = {"out": tmp_path / "run", "json": tmp_path / "figures"}
    budget = {"max_train": 4, "batch_size": 4, "epochs": 60, "learning_rate": 4e-3}
    config = captioning.Config(data=drawn, **budget, bleu=True, beam=3, **files)
    captioning.run(config)
    figures = json.loads((tmp_path / "figures").read_text())
    assert figures["train_word_for_word"] == figures["train_pictures"] == 4
    assert figures["val_pictures"] == 12
    assert 0 <= figures["val_bleu4"] <= 1
    assert 0 <= figures["val_bleu4_beam"] <= 1
    assert widths == [1, 1, 3], "the pictures trained on, the others greedily, and by beam search"
    assert figures["loss_of_last_epoch"] < 0.3
    captioning.run(config)  # resumed at its end
    again = json.loads((tmp_path / "figures").read_text())
    del again["examples_per_second"], again["seconds"]
    assert again.items() <= figures.items()


def test_learns_from_pixels(drawn, small, tmp_path):
    budget = {"batch_size": 12, "epochs": 8, "learning_rate": 3e-3}
    captioning.run(captioning.Config(data=drawn, preset="pixels", **budget, out=tmp_path))
    assert np.mean(losses(tmp_path)[-3:]) < 0.8 * losses(tmp_path)[0]
    model, notes = open_model(tmp_path)
    assert isinstance(model, ViTCaptioner)
    assert notes["idx_to_word"][:2] == ("<NULL>", "<START>")


def test_learns_from_ones_own_pictures(small, tmp_path):
    """From a folder and a JSON file to a model."""
    (tmp_path / "pictures").mkdir()
    captions = {}
    for number, colour in enumerate(("red", "green", "blue", "black") * 3):
        Image.new("RGB", (40, 30), colour).save(tmp_path / "pictures" / f"{number}.jpg")
        captions[f"{number}.jpg"] = [f"All is {colour}."]
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    write_caption_folder(tmp_path / "pictures", tmp_path / "captions.json", tmp_path / "set", val=0.25)
    budget = {"batch_size": 9, "epochs": 12, "learning_rate": 5e-3}
    captioning.run(captioning.Config(data=tmp_path / "set", preset="pixels", **budget, out=tmp_path / "run"))
    assert losses(tmp_path / "run")[-1] < 0.8 * losses(tmp_path / "run")[0]
    assert set(open_model(tmp_path / "run")[1]["idx_to_word"][4:]) == {"all", "is", "red", "green", "blue", "black"}


@pytest.mark.no_nnx
def test_without_its_pictures_nothing_is_trained(drawn, tmp_path):
    folder = Path(shutil.copytree(drawn, tmp_path / "set"))
    archive = folder / "pictures.zip"
    whole = archive.read_bytes()
    config = captioning.Config(data=folder, preset="pixels", out=tmp_path / "run")
    for damaged in (whole[:-100], whole[: len(whole) // 2], b""):
        archive.write_bytes(damaged)
        with pytest.raises(InputError, match=r"pictures\.zip is truncated"):
            captioning.run(config)
    archive.unlink()
    with pytest.raises(InputError, match=r"no picture .*train_00000\.png"):
        captioning.run(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.no_nnx
def test_references_are_gathered_by_picture():
    captions = np.array([[1, 4, 5, 2], [1, 5, 2, 0], [1, 4, 2, 0]])
    dataset = CaptionDataset(name="x", captions=captions, image_idxs=np.array([7, 3, 7]), tables={})
    words = ["<NULL>", "<START>", "<END>", "<UNK>", "a", "b"]
    assert references(dataset, words) == {7: ["a b", "a"], 3: ["b"]}
    assert word_for_word(["a", "a"], [["a b", "a"], ["b"]]) == 1


@pytest.mark.no_nnx
def test_bleu():
    people = [["a dog runs on the grass", "x"], ["two men sit on a bench", "y"]]
    assert bleu([theirs[0] for theirs in people], people) == pytest.approx(1)
    assert bleu(["x", "y"], [["a b c d e", "f"], ["g", "h"]]) == 0
    # Papineni et al. 2002: clipped precisions 5/6, 3/5, 2/4, 1/3 of n-grams, no brevity penalty
    expected = (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert bleu(["the cat sat on green mats"], [["the cat sat on the mats"]]) == pytest.approx(expected, abs=0.05)


@pytest.mark.no_nnx
def test_an_unknown_word_matches_nothing():
    assert bleu(["a b c <UNK> d"], [["a b c <UNK> d"]]) < 1


@pytest.mark.no_nnx
def test_sacrebleu_missing_is_said_before_training(drawn, monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **more):
        if name == "sacrebleu":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match="pip install sacrebleu"):
        captioning.run(captioning.Config(data=drawn, bleu=True))
