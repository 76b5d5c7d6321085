"""Train a convolutional network and a Vision Transformer on the same images, and draw which learns faster.

For example:
$ python -m train.cnn_vs_vit --out runs/cnn_vs_vit
$ python -m train.cnn_vs_vit --data cifar-10-batches-py --examples 5000 --epochs 20 --out runs/few_images
$ python -m train.cnn_vs_vit --dataset digits --out runs/digits
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from flax import nnx

from flaxformer_edu import plots
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import ConvNet, ConvNetConfig, VisionTransformer, ViTConfig
from flaxformer_edu.training import Optimizer, classification
from train import recipe
from train.image_sets import SOURCES

ADAMW = Optimizer(name="adamw", weight_decay=0.05, schedule="cosine", decay="weights")


BUDGET = recipe.Preset(optimizer=ADAMW, epochs=5, batch_size=64)  # what both networks are given alike


@dataclass(frozen=True, kw_only=True)
class Config(recipe.RecipeConfig):
    """The command line."""

    dataset: Literal["cifar10", "mnist", "digits"] = "cifar10"
    """CIFAR-10 and MNIST are downloaded once, or read from the --data folder (cifar-10-batches-py, or idx files)."""
    examples: int | None = None
    """Train on the first this many images. Default: all."""
    vit: Literal["patches", "stem"] = "patches"
    """What makes the ViT's patches: one linear map, or a convolutional stem (the preset tuned)."""
    augment: bool = True
    """Shift and, where that makes sense, mirror the images."""


def networks(config: Config, size: int, channels: int, classes: int) -> dict[str, tuple[Any, Any]]:
    """The classes and configurations of the two."""
    sizes = {"image_size": size, "channels": channels, "classes": classes}
    if size < 28:  # scikit-learn's digits
        return {
            "CNN": (ConvNet, ConvNetConfig(**sizes, width=16, blocks=(1, 1))),
            "ViT": (VisionTransformer, replace(ViTConfig.digits(**sizes), patch_size=2)),
        }
    vit = ViTConfig.tuned(**sizes)
    stem = "convolutions" if config.vit == "stem" else "linear"
    return {"CNN": (ConvNet, ConvNetConfig.small(**sizes)), "ViT": (VisionTransformer, replace(vit, stem=stem))}


def run(config: Config) -> None:
    source, budget = SOURCES[config.dataset], config.override(BUDGET)
    train, test = source.load(config.data).values()
    classes, (available, size, _, channels) = train.class_names or (), train["images"].shape
    if config.examples is not None:
        if not budget.batch_size <= config.examples <= available:
            raise InputError(f"examples is {config.examples}, expected {budget.batch_size} (a batch) to {available}")
        train = replace(train, arrays=train.take(np.arange(config.examples)))
    steps = budget.steps(train)
    epoch = steps // budget.epochs
    task = classification(prepare=train.pixels.normalise, augment=source.augment if config.augment else None)
    figures: dict[str, Any] = {}
    curves: dict[str, dict[str, list[float]]] = {}
    for name, (network, settings) in networks(config, size, channels, len(classes)).items():
        trained = recipe.train(
            replace(config, out=None if config.out is None else config.out / name.lower()),
            budget,
            network(settings, rngs=nnx.Rngs(config.seed), dtype=recipe.compute_dtype(budget.dtype)),
            task,
            train,
            test,
            optimizer=replace(budget.optimizer, warmup_steps=steps // 10),
            best_metric="accuracy",
            notes={"class_names": classes, **vars(train.pixels)},
        )
        evaluated = [row for row in trained.rows if "eval_accuracy" in row]
        rate = trained.examples_per_second or float("nan")
        figures |= {f"{name} accuracy": evaluated[-1]["eval_accuracy"], f"{name} images per second": rate}
        curves[name] = {
            "epoch": [row["step"] / epoch for row in evaluated],
            "seconds of training": [row["step"] * budget.batch_size / rate for row in evaluated],
            "test accuracy": [row["eval_accuracy"] for row in evaluated],
        }
    recipe.report(f"CNN and ViT, {config.dataset}, {len(train)} images, {budget.epochs} epochs", figures, config.json)
    if config.out is not None:
        draw(curves, config.out / "accuracy.png")


def draw(curves: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Accuracy against epoch and against time, one line per network."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, along in zip(figure.subplots(1, 2, sharey=True), ("epoch", "seconds of training"), strict=True):
        for marker, (name, curve) in zip("os", curves.items(), strict=True):
            axes.plot(curve[along], curve["test accuracy"], marker=marker, markersize=4, label=name)
        axes.set(xlabel=along, ylabel="test accuracy")
        axes.grid(alpha=0.3)
        axes.legend()
    plots.save_figure(figure, path, dpi=120)


if __name__ == "__main__":
    recipe.main(Config, run, __doc__ or "")
