"""Fine-tune a pretrained Vision Transformer to classify other images.

For example:
$ python -m train.finetune --from torchvision://vit_b_16 --out runs/fine_tuned
$ python -m train.finetune --from runs/cifar10 --dataset digits --decay 0.7
$ python -m train.finetune --from vit_b_16.pth --dataset mnist --image-size 32 --decay 0    # the classifier alone
$ python -m train.finetune --from hf://google/vit-base-patch16-224-in21k --data my_pictures --decay 0 --out runs/mine
$ flaxformer-edu classify --checkpoint runs/mine new.jpg
"""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped
from tyro.conf import arg

from flaxformer_edu import convert
from flaxformer_edu.data import Pixels, Preprocessing
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import VisionTransformer
from flaxformer_edu.training import LayerWise, Optimizer, classification, with_new_head
from train import recipe
from train.image_sets import SOURCES, ImageConfig

ADAMW = Optimizer(name="adamw", learning_rate=3e-4, weight_decay=0.05, schedule="cosine")
PRESET = recipe.Preset(optimizer=ADAMW, epochs=3, batch_size=64)  # whatever the model


@dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """The command line."""

    source: Annotated[str, arg(name="from", metavar="FILE_OR_FOLDER")]
    """Weights: the folder of a run or of transformers, a .pth, .safetensors or .npz file, or a name (torchvision://)."""
    preset: str | None = None
    """The configuration of a bare file's weights. Default: the one that fits."""
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


def preprocessing_of(notes: Mapping[str, Any], size: int, channels: int) -> Preprocessing:
    """How one's own pictures become what the pretrained model saw; where nothing says it, from -1 to 1."""
    if "preprocessing" in notes or "mean" in notes:
        return Preprocessing.in_notes(notes, size=size, channels=channels)
    print("assumed: pixels normalised by mean 0.5, std 0.5, as nothing says how the model's were", file=sys.stderr)
    return Preprocessing(size=size, channels=channels, mean=(0.5,), std=(0.5,))


def run(config: Config) -> None:
    start, notes = convert.open(config.source, preset=config.preset)
    if not isinstance(start, VisionTransformer):
        raise InputError(f"{config.source} holds a {type(start).__name__}, expected a VisionTransformer")
    preset = config.override(PRESET)
    size, channels = config.image_size or start.config.image_size, start.config.channels
    preprocessing = preprocessing_of(notes, size, channels)
    train, test = config.load(preprocessing)
    class_names = train.class_names or ()
    if channels % train["images"].shape[-1]:
        raise InputError(f"{config.source} sees {channels} channels, the images of {config.named} have more")
    convention = convert.convention_of(notes.get("layout"))
    resized_start = convert.resize_positions(start, size, convention=convention)
    model = with_new_head(resized_start, len(class_names), dtype=recipe.compute_dtype(preset.dtype))
    # Pixels are normalised as the pretrained model's were, if its folder or its library says how.
    pixels = Pixels(**{name: notes.get(name, value) for name, value in vars(train.pixels).items()})

    def prepare(images: Shaped[Array, "batch height _width channel"]) -> Float[Array, "batch size size channels"]:
        if config.named == "folder":
            return jnp.asarray(preprocessing.normalise(images))
        return pixels.normalise(fitted(images, size, channels))

    steps = preset.steps(train)
    adamw = replace(preset.optimizer, warmup_steps=steps // 10)
    started = time.monotonic()
    trained = recipe.train(
        config,
        preset,
        model,
        classification(prepare=prepare, augment=SOURCES[config.named].augment if config.augment else None),
        train,
        test,
        optimizer=LayerWise(optimizer=adamw, layers=model.config.layers, decay=config.decay),
        best_metric="accuracy",
        notes={"class_names": class_names, **(preprocessing.notes() if config.named == "folder" else vars(pixels))},
    )
    last = trained.rows[-1]
    figures = {"steps": steps, "accuracy": last["eval_accuracy"], "loss": last["eval_loss"]}
    figures |= {"examples_per_second": trained.examples_per_second, "seconds": time.monotonic() - started}
    recipe.report(f"Fine-tuned on {config.named}, {len(test)} images evaluated", figures, config.json)


if __name__ == "__main__":
    recipe.main(Config, run, __doc__ or "")
