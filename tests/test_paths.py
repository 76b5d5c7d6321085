"""Wherever a path is taken, a string is."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxformer_edu import compare, convert, data, plots
from flaxformer_edu.models import MLP, MLPConfig, VisionTransformer, ViTConfig
from flaxformer_edu.notebook import quiet_console
from flaxformer_edu.runs import open_model, read_rows, save_model
from flaxformer_edu.training import LoopConfig, Optimizer, fit

mlp = partial(MLP, MLPConfig(widths=(2, 2)))
inputs = jnp.ones((3, 2))


def saved_model(path: str) -> None:
    save_model(path, mlp(rngs=nnx.Rngs(0)))
    open_model(path)
    convert.open(path)


def weights(path: str) -> None:
    convert.write(f"{path}.safetensors", convert.to_torch(mlp(rngs=nnx.Rngs(0)), layout="cs188"))
    assert len(convert.read(f"{path}.safetensors")) == 2


def transformers_folder(path: str) -> None:
    config = ViTConfig.b16(image_size=4, patch_size=2, width=4, layers=1, heads=1, hidden=4, classes=2)
    convert.save_huggingface(path, VisionTransformer(config, rngs=nnx.Rngs(0)))
    convert.open_huggingface(path)


def run(path: str) -> None:
    def loss_fn(model, batch, rngs):
        return jnp.mean(model(batch["x"]) ** 2), {}

    batches = data.Batches(data.ArrayDataset(name="ones", arrays={"x": np.ones((3, 2), np.float32)}), 3, seed=0)
    model, console = mlp(rngs=nnx.Rngs(0)), quiet_console()
    fit(model, loss_fn, Optimizer(), batches, LoopConfig(steps=1), folder=path, console=console)
    assert len(read_rows(f"{path}/metrics.jsonl")[0]) == 1


def comparison(path: str) -> None:
    compare.record(f"{path}.npz", mlp(rngs=nnx.Rngs(0)), inputs)
    report = compare.models(mlp(rngs=nnx.Rngs(0)), f"{path}.npz")
    assert report.agrees
    report.to_json(f"{path}.json")
    report.to_html(f"{path}.html")
    compare.TrainingReport(ours=(1.0,), theirs=(1.0,), tolerance=1e-3).to_json(f"{path}_training.json")


def captions(path: str) -> None:
    data.write_pictures(path, train=2, val=1)
    pictures = data.load_coco(path)
    data.read_images(path, pictures["val_urls"], 8)
    data.PictureReader(path)


def pairs(path: str) -> None:
    Path(path).write_text("eins\tone\nzwei\ttwo\n", encoding="utf-8")
    assert sum(map(len, data.read_pairs(path).values())) == 2


def figure(path: str) -> None:
    plots.training_curves({"": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]}).savefig(f"{path}.svg")


@pytest.mark.parametrize("use", [saved_model, weights, transformers_folder, run, comparison, captions, pairs, figure])
def test_what_is_written_and_read_again(use: Callable[[str], None], tmp_path: Path):
    use(str(tmp_path / "file"))


@pytest.mark.parametrize(
    "load", [data.load_cifar10, data.load_mnist, data.load_lang_id, data.load_coco, data.read_pairs]
)
def test_a_missing_file_is_named(load: Callable[[str], object], tmp_path: Path):
    missing = str(tmp_path / "nothing")
    with pytest.raises(ValueError, match="nothing"):
        load(missing)
