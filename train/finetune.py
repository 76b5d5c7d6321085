"""Fine-tune a pretrained Vision Transformer to classify other images.

For example:
$ python -m train.finetune --from torchvision://vit_b_16 --out runs/fine_tuned
$ python -m train.finetune --from runs/cifar10 --dataset digits --decay 0.7
$ python -m train.finetune --from vit_b_16.pth --dataset mnist --image-size 32 --decay 0    # the classifier alone
"""

import time
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped
from tyro.conf import arg

from flaxformer_edu import convert
from flaxformer_edu.data import Batches, evaluation_batches
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import VisionTransformer
from flaxformer_edu.training import LoopConfig, Optimiser, fit, recipe
from flaxformer_edu.training.fine_tuning import LayerWise, with_new_head
from flaxformer_edu.training.tasks import Task, classification
from train.vit import SOURCES


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How the training goes, whatever the model."""

    optimiser: Optimiser = Optimiser(name="adamw", learning_rate=3e-4, weight_decay=0.05, schedule="cosine")  # noqa: RUF009
    epochs: int = 3
    batch_size: int = 64
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Config(recipe.RecipeConfig):
    """The command line."""

    source: Annotated[str, arg(name="from", metavar="FILE_OR_FOLDER")]
    """Weights: the folder of a run or of transformers, a .pth, .safetensors or .npz file, or a name (torchvision://)."""
    preset: str | None = None
    """The configuration of a bare file's weights. Default: the one that fits."""
    dataset: Literal["cifar10", "mnist", "digits"] = "cifar10"
    """CIFAR-10 and MNIST are downloaded once, or read from the --data folder (cifar-10-batches-py, or idx files)."""
    image_size: int | None = None
    """Enlarge or shrink images to so many pixels a side, and the model's positions with them. Default: the model's."""
    decay: float = 0.75
    """Each layer learns so much slower than the one above it: 1 all alike, 0 the classifier alone."""
    augment: bool = True
    """Shift and, where that makes sense, mirror the images."""


def resized(task: Task, size: int, channels: int) -> Task:
    """The same task on images that are first resized on the device, and repeated where the model wants colours."""

    def batch_of(batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "images": fitted(batch["images"], size, channels)}

    return Task(
        lambda model, batch, rngs: task.loss_fn(model, batch_of(batch), rngs),
        lambda model, batch: task.evaluate_fn(model, batch_of(batch)),
    )


def fitted(
    images: Shaped[Array, "batch height _width channel"], size: int, channels: int
) -> Shaped[Array, "batch size size channels"]:
    """Images of another size, and, of grey ones, one copy a channel."""
    wanted = (len(images), size, size, images.shape[-1])
    if images.shape != wanted:
        images = jax.image.resize(images.astype(jnp.float32), wanted, "bilinear")
    return jnp.repeat(images, channels // images.shape[-1], axis=-1)


def run(config: Config) -> None:
    data = SOURCES[config.dataset]
    train, test = data.load(config.data).values()
    class_names = train.class_names or ()
    start, notes = convert.open(config.source, preset=config.preset)
    if not isinstance(start, VisionTransformer):
        raise InputError(f"{config.source} holds a {type(start).__name__}, expected a VisionTransformer")
    preset = config.override(Preset())
    size, channels = config.image_size or start.config.image_size, start.config.channels
    if channels % train["images"].shape[-1]:
        raise InputError(f"{config.source} sees {channels} channels, the images of {config.dataset} have more")
    resized_start = convert.resize_positions(start, size)
    model = with_new_head(resized_start, len(class_names), dtype=recipe.compute_dtype(preset.dtype))
    pixels = {"mean": data.mean, "std": data.std}
    pixels |= {name: notes[name] for name in pixels if name in notes}
    task = classification(**pixels, augment=data.augment if config.augment else None)
    batches = Batches(train, preset.batch_size, seed=config.seed)
    steps = preset.epochs * batches.steps_per_epoch
    started = time.monotonic()
    trained = fit(
        model,
        resized(task, size, channels).loss_fn,
        LayerWise(
            optimiser=replace(preset.optimiser, warmup_steps=steps // 10),
            layers=model.config.layers,
            decay=config.decay,
        ),
        batches,
        LoopConfig(
            steps=steps, seed=config.seed, evaluate_every=batches.steps_per_epoch,
            best_metric="accuracy", best_is="highest",
        ),
        evaluate_fn=resized(task, size, channels).evaluate_fn,
        validation=lambda: evaluation_batches(test, 250),
        folder=config.out,
        tensorboard=config.tensorboard,
        settings=config.settings,
        notes={"class_names": class_names, **pixels},
    )  # fmt: skip
    last = trained.rows[-1]
    figures = {"steps": steps, "accuracy": last["eval_accuracy"], "loss": last["eval_loss"]}
    figures |= {"examples_per_second": trained.examples_per_second, "seconds": time.monotonic() - started}
    recipe.report(f"Fine-tuned on {config.dataset}, {len(test)} images evaluated", figures, config.json)


if __name__ == "__main__":
    recipe.main(Config, run, __doc__ or "")
