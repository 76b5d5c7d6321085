"""Train a Vision Transformer to classify CIFAR-10, MNIST or scikit-learn's digits.

For example:
$ python -m train.vit --preset tuned --out runs/cifar10
$ python -m train.vit --preset cs231n --data cifar-10-batches-py --json figures.json
$ python -m train.vit --preset cs231n --overfit-one-batch
$ python -m train.vit --dataset digits
$ python -m train.vit --preset compact --out runs/compact    # for a GPU or a TPU
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from flax import nnx

from flaxformer_edu.data import ArrayDataset, Batches, evaluation_batches, load_cifar10, load_digits, load_mnist
from flaxformer_edu.data.augment import CIFAR10_MEAN, CIFAR10_STD, MNIST_MEAN, MNIST_STD, random_crop, random_flip
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.training import LoopConfig, Optimiser, fit, recipe
from flaxformer_edu.training.mixing import mixed_classification
from flaxformer_edu.training.tasks import Task, classification


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model, and how it is trained; `warmup` is a share of all steps."""

    model: Callable[..., ViTConfig]
    optimiser: Optimiser
    epochs: int
    batch_size: int
    warmup: float = 0.0
    augment: bool = False
    task: Callable[..., Task] = classification
    label_smoothing: float = 0.0
    ema_decay: float | None = None
    dtype: str = "float32"


OVERFIT = Optimiser(name="adam", learning_rate=1e-3, weight_decay=1e-3)  # constant, and the decay is L2
adamw = partial(Optimiser, name="adamw", learning_rate=1e-3, schedule="cosine", decay="weights")
digits = Preset(
    model=ViTConfig.digits, optimiser=adamw(weight_decay=0.1), epochs=30, batch_size=32, warmup=0.05, ema_decay=0.98
)
PRESETS = {
    "cs231n": Preset(model=ViTConfig.cs231n, optimiser=adamw(weight_decay=0.05), epochs=2, batch_size=64, warmup=0.1),
    "tuned": Preset(
        model=ViTConfig.tuned, optimiser=adamw(weight_decay=0.05), epochs=2, batch_size=64, warmup=0.15, augment=True
    ),
    "compact": Preset(
        model=ViTConfig.compact, optimiser=adamw(weight_decay=0.06), epochs=100, batch_size=256, warmup=0.05,
        augment=True, task=mixed_classification, label_smoothing=0.1, ema_decay=0.9995, dtype="bfloat16",
    ),
    "scratch": Preset(
        model=ViTConfig.scratch, optimiser=adamw(learning_rate=2e-3, weight_decay=0.05), epochs=20, batch_size=128,
        warmup=0.05, augment=True,
    ),
    "scratch_large": Preset(
        model=ViTConfig.scratch_large, optimiser=adamw(weight_decay=0.05), epochs=100, batch_size=256, warmup=0.05,
        augment=True, label_smoothing=0.1, dtype="bfloat16",
    ),
    "digits": digits,
    "mnist": replace(digits, epochs=3, batch_size=128),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set, what its pixels are normalised by, and whether an image and its mirror image are alike."""

    load: Callable[[Path | None], dict[str, ArrayDataset]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    preset: str
    mirror: bool = False

    def augment(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """Shift each image by up to an eighth of its size, and mirror it if that makes sense."""
        images = random_crop(key, images, padding=images.shape[1] // 8)
        return random_flip(jax.random.fold_in(key, 1), images) if self.mirror else images


SOURCES = {
    "cifar10": Source(load=load_cifar10, mean=CIFAR10_MEAN, std=CIFAR10_STD, preset="cs231n", mirror=True),
    "mnist": Source(load=load_mnist, mean=MNIST_MEAN, std=MNIST_STD, preset="mnist"),
    "digits": Source(load=lambda _: load_digits(), mean=(0.305,), std=(0.376,), preset="digits"),
}


@dataclass(frozen=True, kw_only=True)
class Config(recipe.RecipeConfig):
    """The command line."""

    dataset: Literal["cifar10", "mnist", "digits"] = "cifar10"
    """CIFAR-10 and MNIST are downloaded once, or read from the --data folder (cifar-10-batches-py, or idx files)."""
    preset: Literal["cs231n", "tuned", "compact", "scratch", "scratch_large", "digits", "mnist"] | None = None
    """Model and training; compact and scratch_large want an accelerator. Default: cs231n, or the data set's own."""
    patch_size: int | None = None
    """Pixels a side of a patch. Default: the preset's."""
    overfit_one_batch: bool = False
    """Instead, learn 64 images by heart in 100 steps, with Adam (1e-3) and no dropout; fails below accuracy 1."""


def run(config: Config) -> int:
    source = SOURCES[config.dataset]
    preset = PRESETS[config.preset or source.preset]
    train, test = source.load(config.data).values()
    class_names, (_, size, _, channels) = train.class_names, train["images"].shape
    model = preset.model(image_size=size, channels=channels)
    model = replace(model, patch_size=config.patch_size or model.patch_size)
    if config.overfit_one_batch:
        train = test = ArrayDataset(name="one batch", arrays=train.take(np.arange(64)))
        model = replace(model, dropout=0.0)
        preset = Preset(model=preset.model, optimiser=OVERFIT, epochs=100, batch_size=64, dtype=preset.dtype)

    preset = config.override(preset)
    batches = Batches(train, preset.batch_size, seed=config.seed)
    steps = preset.epochs * batches.steps_per_epoch
    task = preset.task(
        source.mean,
        source.std,
        augment=source.augment if preset.augment else None,
        label_smoothing=preset.label_smoothing,
    )
    loop = LoopConfig(
        steps=steps, seed=config.seed, evaluate_every=max(batches.steps_per_epoch, steps // 10),
        ema_decay=preset.ema_decay, best_metric="accuracy", best_is="highest",
    )  # fmt: skip
    started = time.monotonic()
    trained = fit(
        VisionTransformer(model, rngs=nnx.Rngs(config.seed), dtype=recipe.compute_dtype(preset.dtype)),
        task.loss_fn,
        replace(preset.optimiser, warmup_steps=round(preset.warmup * steps)),
        batches,
        loop,
        evaluate_fn=task.evaluate_fn,
        validation=lambda: evaluation_batches(test, 1000 if len(test) > 1000 else 64),
        folder=config.out,
        tensorboard=config.tensorboard,
        settings=config.settings,
        notes={"class_names": class_names, "mean": source.mean, "std": source.std},
    )
    accuracy = trained.rows[-1]["eval_accuracy"]
    figures = {"steps": steps, "accuracy": accuracy, "loss": trained.rows[-1]["eval_loss"]}
    figures |= {"examples_per_second": trained.examples_per_second, "seconds": time.monotonic() - started}
    recipe.report(f"Vision Transformer, {config.dataset}, {len(test)} images evaluated", figures, config.json)
    return 1 if config.overfit_one_batch and accuracy < 1 else 0


if __name__ == "__main__":
    recipe.main(Config, run, __doc__ or "")
