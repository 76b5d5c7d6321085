"""All of training on one page: it learns, `fit` computes the same numbers, and README shows what it says."""

import io
import re
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from rich.console import Console

from flaxformer_edu.data import Batches, load_digits
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.training import LoopConfig, Optimizer, classification, data_mesh, fit, split_model
from train import tiny

ROOT = Path(__file__).parents[2]


def test_fit_computes_the_same_bit_for_bit():
    """The losses of twelve steps, and all parameters after them."""
    steps = 12
    model, losses = tiny.train(steps)
    digits = load_digits()["train"]
    fitted = fit(
        VisionTransformer(ViTConfig.digits(), rngs=nnx.Rngs(tiny.SEED)),
        classification(prepare=digits.pixels.normalise).loss_fn,
        Optimizer(name="adamw", learning_rate=1e-3, weight_decay=0.1, schedule="cosine"),
        Batches(digits, tiny.BATCH_SIZE, seed=tiny.SEED),
        LoopConfig(steps=steps, seed=tiny.SEED),
        mesh=data_mesh(tiny.BATCH_SIZE, jax.devices()[:1]),
        console=Console(file=io.StringIO()),
    )
    assert [row["loss"] for row in fitted.rows] == losses
    ours, theirs = split_model(fitted.model)[1], split_model(model)[1]
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert losses[-1] < losses[0]


def test_it_learns_to_read(capsys):
    tiny.main()
    accuracy = re.search(r"accuracy on held-out digits: (\S+)", capsys.readouterr().out)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.95


def test_readme_shows_the_page():
    """The README's block is in the file, line by line."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    shown = next(block for block in blocks if "def train(" in block)
    assert shown in (ROOT / "train" / "tiny.py").read_text()
    assert len(shown.splitlines()) >= 20
