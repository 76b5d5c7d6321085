"""CutMix: an image with a part of another one in it is a bit of both (Yun et al. 2019)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key, Shaped

from flaxformer_edu.data.augment import normalise
from flaxformer_edu.training.losses import accuracy, cross_entropy
from flaxformer_edu.training.step import Batch, Metrics
from flaxformer_edu.training.tasks import Augment, Task, classification


def cutmix(
    key: Key[Array, ""], images: Shaped[Array, "batch height _width channel"]
) -> tuple[Shaped[Array, "batch height _width channel"], Float[Array, "batch"]]:
    """Paste a box of each image's predecessor in the batch into it, and the share of the image that is left.

    The predecessor of the first is the last. The box's area is drawn evenly from 0 to that of the image, its centre
    from all places (what lies beyond the edge is cut off); every second image, by chance, stays whole.
    """
    batch, height, width, _ = images.shape
    chosen, area, place = jax.random.split(key, 3)
    size = jnp.array([height, width])
    mixed = jax.random.bernoulli(chosen, shape=(batch, 1))
    half = jnp.where(mixed, jnp.sqrt(jax.random.uniform(area, (batch, 1))), 0) * size / 2
    centre = jax.random.uniform(place, (batch, 2)) * size
    first, last = jnp.round(centre - half), jnp.round(centre + half)
    rows = (first[:, :1] <= jnp.arange(height)) & (jnp.arange(height) < last[:, :1])
    columns = (first[:, 1:] <= jnp.arange(width)) & (jnp.arange(width) < last[:, 1:])
    inside = rows[:, :, None] & columns[:, None, :]
    return jnp.where(inside[..., None], jnp.roll(images, 1, axis=0), images), 1 - inside.mean(axis=(1, 2))


def mixed_classification(
    mean: Sequence[float], std: Sequence[float], *, augment: Augment | None = None, label_smoothing: float = 0.0
) -> Task:
    """`classification`, with CutMix after the augmentation: both labels count, each by its share of the image."""

    def loss_fn(model: Any, batch: Batch, rngs: nnx.Rngs) -> tuple[Array, Metrics]:
        images = batch["images"] if augment is None else augment(rngs.augment(), batch["images"])
        images, share = cutmix(rngs.mix(), images)
        logits, labels = model(normalise(images, mean, std), rngs=rngs), batch["labels"]
        own = cross_entropy(logits, labels, label_smoothing=label_smoothing)
        others = cross_entropy(logits, jnp.roll(labels, 1), label_smoothing=label_smoothing)
        loss = share * own + (1 - share) * others
        return loss.mean(), {"accuracy": accuracy(logits, labels).mean()}

    return Task(loss_fn, classification(mean, std).evaluate_fn)
