"""All of training on one page: it learns, the package computes the same numbers, and README shows what it says."""

import io
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.training import LoopConfig, Optimizer, data_mesh, fit, split_model
from train import tiny

ROOT = Path(__file__).parents[2]


class Source:
    """The page's batches, as `fit` takes them."""

    batch_size, steps_per_epoch = tiny.BATCH_SIZE, tiny.STEPS_PER_EPOCH

    def __call__(self, step):
        return tiny.batch_of(step)


def test_fit_computes_the_same_bit_for_bit():
    """The losses of twelve steps, and all parameters after them."""
    steps = 12
    model, losses = tiny.train(steps)
    fitted = fit(
        tiny.ViT(nnx.Rngs(tiny.SEED)),
        lambda model, batch, rngs: (tiny.loss_of(model, batch, rngs), {}),
        Optimizer(name="adamw", learning_rate=1e-3, weight_decay=0.1, schedule="cosine"),
        Source(),
        LoopConfig(steps=steps, seed=tiny.SEED),
        mesh=data_mesh(tiny.BATCH_SIZE, jax.devices()[:1]),
        console=Console(file=io.StringIO()),
    )
    assert [row["loss"] for row in fitted.rows] == losses
    ours, theirs = split_model(fitted.model)[1], split_model(model)[1]
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert losses[-1] < losses[0]


@pytest.mark.usefixtures("float64")
def test_the_model_is_the_packages():
    """With the same parameters, the package's `VisionTransformer` gives the same logits."""
    page = jax.tree.map(lambda x: np.asarray(x, np.float64), tiny.ViT(nnx.Rngs(1)))
    config = ViTConfig.digits(norm_epsilon=1e-6, positions="learned")
    ours = VisionTransformer(config, rngs=nnx.Rngs(2), param_dtype=np.float64)
    pairs = [(ours.patch_embedding.projection, page.patches), (ours.encoder.norm, page.norm), (ours.head, page.head)]
    for mine, theirs in zip(ours.encoder.blocks, page.blocks, strict=True):
        pairs += [(mine.norm1, theirs.norm1), (mine.norm2, theirs.norm2)]
        pairs += [(getattr(mine.attention, name), getattr(theirs, name)) for name in ("query", "key", "value", "out")]
        pairs += [(getattr(mine.mlp, name), getattr(theirs, name)) for name in ("up", "down")]
    for mine, theirs in pairs:
        shapes, values = nnx.to_pure_dict(nnx.state(mine)), nnx.to_pure_dict(nnx.state(theirs))
        nnx.update(mine, {name: values[name].reshape(shape.shape) for name, shape in shapes.items()})
    nnx.update(ours.positions, {"embedding": page.positions[...]})
    images = tiny.IMAGES[:5].astype(np.float64)
    np.testing.assert_allclose(ours(images), page(images), rtol=0, atol=1e-12)


@pytest.mark.one_mode
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
