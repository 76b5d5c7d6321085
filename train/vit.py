"""Train a Vision Transformer to classify CIFAR-10, MNIST, scikit-learn's digits, or your own pictures.

For example:
$ python -m train.vit --preset tuned --out runs/cifar10
$ python -m train.vit --preset cs231n --data cifar-10-batches-py --json figures.json
$ python -m train.vit --preset cs231n --overfit-one-batch
$ python -m train.vit --dataset digits
$ python -m train.vit --data my_pictures --image-size 64 --out runs/mine    # with a subfolder for each class
$ python -m train.vit --preset compact --out runs/compact    # for a GPU or a TPU
"""

import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from flax import nnx
from jaxtyping import Array

from flaxformer_edu.data import Pixels, Preprocessing
from flaxformer_edu.models import VisionTransformer
from flaxformer_edu.training import Task, accuracy, classification, cross_entropy
from train import recipe
from train.image_sets import SOURCES, ImageConfig, Source
from train.vit_presets import OVERFIT, PRESETS, Preset


@dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """The command line."""

    image_size: int | None = None
    """Of your own pictures: the model sees the middle square of each, this many pixels per side. Default: 32."""
    own_options = ("val", "image_size")
    preset: Literal["cs231n", "tuned", "compact", "scratch", "scratch_large", "digits", "mnist"] | None = None
    """Model and training; compact and scratch_large want an accelerator. Default: cs231n, or the data set's own."""
    patch_size: int | None = None
    """Pixels per side of a patch. Default: the preset's."""
    overfit_one_batch: bool = False
    """Instead, memorise 64 images in 100 steps, with Adam (1e-3) and no dropout; fails below accuracy 1."""


def task_of(preset: Preset, source: Source, pixels: Pixels) -> Task:
    """What is minimised, and what is measured: what `flaxformer_edu.training.classification` writes for any inputs."""

    def loss_fn(model: Any, batch: dict[str, Array], rngs: nnx.Rngs) -> tuple[Array, dict[str, Array]]:
        images = source.augment(rngs.augment(), batch["images"]) if preset.augment else batch["images"]
        logits = model(pixels.normalise(images), rngs=rngs)
        loss = cross_entropy(logits, batch["labels"], label_smoothing=preset.label_smoothing).mean()
        return loss, {"accuracy": accuracy(logits, batch["labels"]).mean()}

    augment = source.augment if preset.augment else None
    options = {"augment": augment, "mixed": preset.mixed, "label_smoothing": preset.label_smoothing}
    task = classification(prepare=pixels.normalise, **options)
    return task if preset.mixed else Task(loss_fn, task.evaluate_fn)  # in CutMix two labels count


def run(config: Config) -> int:
    source = SOURCES[config.named]
    preset = PRESETS[config.preset or source.preset]
    preprocessing = Preprocessing(size=config.image_size or 32)
    train, test = config.load(preprocessing, measure=True)
    notes = {"class_names": train.class_names, **vars(train.pixels)}
    if config.named == "folder":
        notes |= replace(preprocessing, **vars(train.pixels)).notes()
    _, size, _, channels = train["images"].shape
    model = preset.model(image_size=size, channels=channels)
    if config.patch_size is not None:
        model = replace(model, patch_size=config.patch_size)
    if config.overfit_one_batch:
        train = test = replace(train, name="one batch", arrays=train.take(np.arange(64)), class_names=())
        model = replace(model, dropout=0.0)
        preset = Preset(model=preset.model, optimizer=OVERFIT, epochs=100, batch_size=64, dtype=preset.dtype)

    preset = config.override(preset)
    started = time.monotonic()
    trained = recipe.train(
        config,
        preset,
        VisionTransformer(model, rngs=nnx.Rngs(config.seed), dtype=recipe.compute_dtype(preset.dtype)),
        task_of(preset, source, train.pixels),
        train,
        test,
        best_metric="accuracy",
        notes=notes,
    )
    last = trained.rows[-1]
    figures = {"steps": preset.steps(train), "accuracy": last["eval_accuracy"], "loss": last["eval_loss"]}
    figures |= {"examples_per_second": trained.examples_per_second, "seconds": time.monotonic() - started}
    recipe.report(f"Vision Transformer, {config.named}, {len(test)} images evaluated", figures, config.json)
    return 1 if config.overfit_one_batch and last["eval_accuracy"] < 1 else 0


if __name__ == "__main__":
    recipe.main(Config, run, __doc__ or "")
