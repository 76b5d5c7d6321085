"""Train a small Vision Transformer that reads MNIST's digits as 4 x 4 tiles, and compare four ways to say where.

For example:
$ python -m train.mnist_vit --positions rotary --data mnist --out runs/rotary
$ python -m train.mnist_vit --compare --data mnist --out runs/tiles --json figures.json
$ python -m train.mnist_vit --epochs 2 --data mnist
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from rich.console import Console
from rich.table import Table

from flaxformer_edu import plots
from flaxformer_edu.data import ArrayDataset, evaluation_batches, load_mnist, random_crop
from flaxformer_edu.files import write_json
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.runs import Row
from flaxformer_edu.training import Optimizer, TrainResult, classification
from train import recipe

TITLE = "MNIST's test digits, read as 4 x 4 tiles"
Positions = Literal["sinusoidal", "rotary", "multiplied", "learned"]


@dataclass(frozen=True, kw_only=True)
class Config(recipe.RecipeConfig):
    """The command line."""

    positions: Positions = "sinusoidal"
    """Added sinusoids, RoPE, sinusoids that multiply queries and keys (often taken for RoPE), or added vectors."""
    compare: bool = False
    """Instead, train with each of them, one after the other, each into a folder of its own in --out."""


@dataclass(frozen=True, kw_only=True)
class Preset(recipe.Preset):
    """How the model is trained: each digit shifted by up to `shift` pixels, the parameters averaged."""

    shift: int = 1


PRESET = Preset(
    optimizer=Optimizer(learning_rate=4e-3, schedule="cosine", weight_decay=0.05, decay="weights"),
    epochs=30,
    batch_size=128,
    warmup=0.05,
    evaluations=10,
    steps_per_call=10,
    ema_decay=0.999,
)


def train(config: Config) -> tuple[dict[str, Any], list[Row]]:
    """Train with one kind of positions: the figures, and the metrics of all steps."""
    preset = config.override(PRESET)
    digits, test = load_mnist(config.data).values()
    task = classification(prepare=test.pixels.normalise, augment=partial(random_crop, padding=preset.shift))
    model = VisionTransformer(
        ViTConfig.tiles(positions=config.positions),
        rngs=nnx.Rngs(config.seed),
        dtype=recipe.compute_dtype(preset.dtype),
    )
    started = time.monotonic()
    trained = recipe.train(
        config,
        preset,
        model,
        task,
        digits,
        test,
        best_metric="accuracy",
        notes={"class_names": test.class_names, **vars(test.pixels)},
    )
    seconds = time.monotonic() - started
    last = trained.rows[-1]
    figures = {"positions": config.positions, "accuracy": last["eval_accuracy"], "loss": last["eval_loss"]}
    figures |= {"confusions": draw(config, trained, test), "steps": preset.steps(digits), "seconds": seconds}
    return figures, trained.rows


def draw(config: Config, trained: TrainResult, test: ArrayDataset) -> dict[str, int]:
    """The most frequent confusions; and, into the folder, all of them and the worst mistakes as pictures."""
    images, labels = test.arrays["images"], test.arrays["labels"]
    probabilities = predict(trained.model, test)
    counts = plots.confusion_counts(labels, probabilities.argmax(axis=1), len(test.class_names))
    if config.out is not None:
        plots.save_figure(plots.confusion_matrix(counts, test.class_names), config.out / "confusion.png")
        if counts.sum() > counts.trace():
            sheet = plots.misclassified(images, labels, probabilities, test.class_names)
            plots.save_figure(sheet, config.out / "misclassified.png")
    return dict(plots.frequent_confusions(counts, test.class_names))


def predict(model: VisionTransformer, test: ArrayDataset) -> Float[np.ndarray, "example class"]:
    """Each class's probability, for every example."""
    structure, params = nnx.split(model)

    @jax.jit
    def probabilities(params: Any, images: Array) -> Array:
        return jax.nn.softmax(nnx.merge(structure, params)(test.pixels.normalise(images)).astype(np.float32))

    batches = [(probabilities(params, batch["images"]), batch["mask"]) for batch in evaluation_batches(test, 1000)]
    return np.concatenate([np.asarray(rows)[mask] for rows, mask in batches])


def compare(config: Config) -> list[dict[str, Any]]:
    """Train with each kind of positions: one table, and the curves of all in one picture."""
    results, curves = [], {}
    for positions in get_args(Positions):
        out = None if config.out is None else config.out / positions
        figures, curves[positions] = train(replace(config, positions=positions, compare=False, out=out))
        results.append(figures)
    table = Table("positions", "accuracy", "loss", "seconds", "most frequent confusions", title=TITLE)
    for row in results:
        numbers = f"{row['accuracy']:.4f}", f"{row['loss']:.4f}", f"{row['seconds']:.0f}"
        table.add_row(row["positions"], *numbers, listed(row["confusions"]))
    Console().print(table)
    if config.out is not None:
        plots.save_figure(plots.training_curves(curves), config.out / "curves.png")
    return results


def listed(confusions: dict[str, int]) -> str:
    """The confusions in a line."""
    return ", ".join(f"{name} ({count})" for name, count in confusions.items())


def run(config: Config) -> None:
    if config.compare:
        results = compare(config)
    else:
        results = train(config)[0]
        recipe.report(TITLE, {**results, "confusions": listed(results["confusions"])}, None)
    if config.json is not None:
        write_json(config.json, results)


if __name__ == "__main__":
    recipe.main(Config, run, __doc__ or "")
