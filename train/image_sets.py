"""The sets of images that recipes classify, one's own among them, and how their images may be changed at random."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax

from flaxformer_edu.data import (
    PICTURE_FORMS,
    ArrayDataset,
    Preprocessing,
    has_pictures,
    load_cifar10,
    load_digits,
    load_mnist,
    load_pictures,
    measure_pixels,
    random_crop,
    random_flip,
)
from flaxformer_edu.errors import InputError
from train import recipe


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


def _no_folder(_: Path | None) -> dict[str, ArrayDataset]:
    raise InputError(f"--dataset folder needs --data, {PICTURE_FORMS}")


SOURCES = {
    "cifar10": Source(load=load_cifar10, preset="cs231n", mirror=True),
    "mnist": Source(load=load_mnist, preset="mnist"),
    "digits": Source(load=lambda _: load_digits(), preset="digits"),
    "folder": Source(load=_no_folder, preset="tuned", mirror=True),
}


@dataclass(frozen=True, kw_only=True)
class ImageConfig(recipe.RecipeConfig):
    """The options of a recipe that classifies images."""

    dataset: Literal["cifar10", "mnist", "digits", "folder"] | None = None
    """Default: folder, your own pictures, if --data is a folder with a subfolder for each class (or with train and val,
    which have them), or a .csv with the columns file and label; otherwise cifar10. CIFAR-10 and MNIST are downloaded
    once, or read from the --data folder (cifar-10-batches-py, or idx files)."""
    val: float | None = None
    """Of your own pictures, the share of each class that is not trained on, if there is no folder val. Default: 0.2."""
    own_options: ClassVar = ("val",)  # that only one's own pictures have

    @property
    def named(self) -> str:
        """The name of the data set."""
        own = self.data is not None and has_pictures(self.data)
        return self.dataset or ("folder" if own else "cifar10")

    @property
    def settings(self) -> dict[str, Any]:
        """As of every recipe, with the data set that is meant."""
        return {**super().settings, "dataset": self.named}

    def check(self) -> None:
        """As of every recipe, and of options that would have no effect."""
        super().check()
        for name in self.own_options:
            if getattr(self, name) is not None and self.named != "folder":
                option = "--" + name.replace("_", "-")
                raise InputError(f"{option} is for your own pictures (--data FOLDER), not {self.named}: leave it out")

    def load(self, preprocessing: Preprocessing, *, measure: bool = False) -> tuple[ArrayDataset, ArrayDataset]:
        """What is trained on, and what is evaluated; one's own pictures as the preprocessing makes them.

        With `measure`, the statistics of one's own pixels are their own, not the preprocessing's.
        """
        if self.named == "folder" and self.data is not None:
            parts = load_pictures(self.data, preprocessing, val=0.2 if self.val is None else self.val, seed=self.seed)
        else:
            parts = SOURCES[self.named].load(self.data)
        train, held_out = parts.values()
        if measure and self.named == "folder":
            train = replace(train, pixels=measure_pixels(train["images"]))
        return train, held_out
