"""What all recipes have in common: options that the command line gives."""

from dataclasses import replace

import numpy as np
import pytest
from flax import nnx

from flaxformer_edu.data import ArrayDataset
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import MLP, MLPConfig
from flaxformer_edu.runs import read_rows
from flaxformer_edu.training import Optimizer, classification
from train import language_id, recipe


def train(folder, **options):
    """Twelve steps of a small network."""
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (48, 28, 28, 1), dtype=np.uint8), random.integers(0, 10, 48)
    few = ArrayDataset(name="few", arrays={"images": images, "labels": labels.astype(np.int32)})
    preset = recipe.Preset(optimizer=Optimizer(warmup_steps=200), epochs=2, batch_size=8)
    task = classification(prepare=few.pixels.normalise)
    model = MLP(MLPConfig.digits(), rngs=nnx.Rngs(0))
    return recipe.train(recipe.RecipeConfig(out=folder, **options), preset, model, task, few, few)


def test_evaluations_checkpoints_and_a_short_warmup(tmp_path, capsys):
    train(tmp_path, evaluate_every=5, save_every=11)
    rows, _ = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if "eval_loss" in row] == [5, 10, 12]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} >= {"11", "12"}
    assert "the run has 12 steps: its warm-up takes 1 of them, not 200" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["evaluate_every", "save_every"])
def test_counts_below_one_are_refused(tmp_path, option):
    with pytest.raises(InputError, match=f"{option} is 0, expected 1 or more"):
        train(tmp_path, **{option: 0})


def test_a_warmup_that_fits_stays(capsys):
    optimizer = language_id.PRESETS["gated"].optimizer
    assert recipe.with_short_warmup(optimizer, 400) == optimizer
    assert capsys.readouterr().err == ""
    assert recipe.with_short_warmup(optimizer, 399) == replace(optimizer, warmup_steps=39)
