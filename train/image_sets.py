"""The sets of images that recipes classify, and how the images of each may be changed at random."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax

from flaxformer_edu.data import ArrayDataset, load_cifar10, load_digits, load_mnist, random_crop, random_flip


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set, and whether an image and its mirror image are alike."""

    load: Callable[[Path | None], dict[str, ArrayDataset]]
    preset: str
    mirror: bool = False

    def augment(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """Shift each image by up to an eighth of its size, and mirror it if that makes sense."""
        images = random_crop(key, images, padding=images.shape[1] // 8)
        return random_flip(jax.random.fold_in(key, 1), images) if self.mirror else images


SOURCES = {
    "cifar10": Source(load=load_cifar10, preset="cs231n", mirror=True),
    "mnist": Source(load=load_mnist, preset="mnist"),
    "digits": Source(load=lambda _: load_digits(), preset="digits"),
}
