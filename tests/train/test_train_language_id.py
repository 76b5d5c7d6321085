"""The recipe `train.language_id` on a tiny budget: both networks learn; and their weights can be used."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from flaxformer_edu.commands import identify
from flaxformer_edu.convert import read
from flaxformer_edu.data import ArrayDataset, load_words
from flaxformer_edu.runs import read_rows
from tests.twins.course_twins import LanguageIDModel
from train import language_id

pytestmark = pytest.mark.one_mode


@pytest.fixture
def few(monkeypatch):
    """A fifteenth of the words, and networks of an eighth of the width."""

    def part(words):
        return replace(words, arrays={name: array[::15] for name, array in words.arrays.items()})

    words = {split: part(words) for split, words in load_words().items()}
    monkeypatch.setattr(language_id, "load_words", lambda: words)
    for name, preset in language_id.PRESETS.items():

        def small(preset=preset, **names):
            full = preset.model(**names)
            return replace(full, width=full.width // 8)

        optimizer = replace(preset.optimizer, warmup_steps=0)
        monkeypatch.setitem(language_id.PRESETS, name, replace(preset, model=small, optimizer=optimizer))


@pytest.mark.parametrize("preset", ["project", "gated"])
def test_the_loss_falls_and_the_folder_identifies(preset, few, tmp_path, capsys):
    folder = tmp_path / "run"
    config = language_id.Config(preset=preset, epochs=4, learning_rate=5e-3, out=folder, json=tmp_path / "figures")
    language_id.run(config)
    losses = [row["loss"] for row in read_rows(folder / "metrics.jsonl")[0] if "loss" in row]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    figures = json.loads((tmp_path / "figures").read_text())
    assert figures["test_accuracy"] > 0.4  # a guess is right in 0.2 of all cases
    assert "Test words of each language (row)" in capsys.readouterr().out
    identify.identify(("hyvää",), model=folder, json=True)
    assert json.loads(capsys.readouterr().out)[0]["probabilities"].keys() == {*identify_languages()}


def identify_languages():
    return load_words()["train"].class_names


def test_saved_weights_fit_the_twin(few, tmp_path):
    language_id.run(language_id.Config(preset="project", epochs=1, save=tmp_path / "weights.safetensors"))
    weights = read(tmp_path / "weights.safetensors")
    LanguageIDModel(hidden_size=32).load_state_dict({name: torch.tensor(array) for name, array in weights.items()})


def test_confusion_counts_rows_as_the_truth():
    words = ArrayDataset(name="x", arrays={"words": np.array([0, 1, 1, 2]), "labels": np.array([0, 0, 1, 2])})
    counts = language_id.confusion(lambda words: np.eye(3)[words], words)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
