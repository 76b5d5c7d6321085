"""Fine-tune a pretrained Vision Transformer to classify other images.

For example:
$ python -m train.finetune --from torchvision://vit_b_16 --out runs/fine_tuned
$ python -m train.finetune --from runs/cifar10 --dataset digits --decay 0.7
$ python -m train.finetune --from vit_b_16.pth --dataset mnist --image-size 32 --decay 0    # the classifier alone
"""

import time
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped
from tyro.conf import arg

from flaxformer_edu import convert
from flaxformer_edu.data import Pixels
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import VisionTransformer
from flaxformer_edu.training import LayerWise, Optimizer, classification, with_new_head
from train import recipe
from train.image_sets import SOURCES

ADAMW = Optimizer(name="adamw", learning_rate=3e-4, weight_decay=0.05, schedule="cosine")
PRESET = recipe.Preset(optimizer=ADAMW, epochs=3, batch_size=64)  # whatever the model


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
    """Resize images to this many pixels per side, and the model's positions with them. Default: the model's."""
    decay: float = 0.75
    """Each layer's learning rate relative to that of the one above it: 1 all alike, 0 the classifier alone."""
    augment: bool = True
    """Shift and, where that makes sense, mirror the images."""


def fitted(
    images: Shaped[Array, "batch height _width channel"], size: int, channels: int
) -> Shaped[Array, "batch size size channels"]:
    """Images of another size, and, of grey ones, one copy per channel."""
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
    preset = config.override(PRESET)
    size, channels = config.image_size or start.config.image_size, start.config.channels
    if channels % train["images"].shape[-1]:
        raise InputError(f"{config.source} sees {channels} channels, the images of {config.dataset} have more")
    resized_start = convert.resize_positions(start, size)
    model = with_new_head(resized_start, len(class_names), dtype=recipe.compute_dtype(preset.dtype))
    # Pixels are normalised as the pretrained model's were, if its folder or its library says how.
    pixels = Pixels(**{name: notes.get(name, value) for name, value in vars(train.pixels).items()})

    def prepare(images: Shaped[Array, "batch height _width channel"]) -> Float[Array, "batch size size channels"]:
        return pixels.normalise(fitted(images, size, channels))

    steps = preset.steps(train)
    adamw = replace(preset.optimizer, warmup_steps=steps // 10)
    started = time.monotonic()
    trained = recipe.train(
        config,
        preset,
        model,
        classification(prepare=prepare, augment=data.augment if config.augment else None),
        train,
        test,
        optimizer=LayerWise(optimizer=adamw, layers=model.config.layers, decay=config.decay),
        best_metric="accuracy",
        notes={"class_names": class_names, **vars(pixels)},
    )
    last = trained.rows[-1]
    figures = {"steps": steps, "accuracy": last["eval_accuracy"], "loss": last["eval_loss"]}
    figures |= {"examples_per_second": trained.examples_per_second, "seconds": time.monotonic() - started}
    recipe.report(f"Fine-tuned on {config.dataset}, {len(test)} images evaluated", figures, config.json)


if __name__ == "__main__":
    recipe.main(Config, run, __doc__ or "")
