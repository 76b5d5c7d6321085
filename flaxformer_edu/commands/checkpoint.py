"""What `flaxformer-edu caption`, `classify` and `explain` have in common: a checkpoint, pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float, UInt8

from flaxformer_edu.data import PictureReader, resize_image, thumbnail
from flaxformer_edu.errors import InputError
from flaxformer_edu.runs import open_model

Picture = UInt8[np.ndarray, "height width 3"]
Squares = UInt8[np.ndarray, "batch size size channel"]

PICTURES_PER_CALL = 32
THUMBNAIL = 512  # pixels of the longer side


def open_checkpoint(folder: Path, kinds: tuple[type, ...], needed: Sequence[str], remedy: str) -> tuple[Any, Any]:
    """The model as the training left it, and its notes.

    Raises InputError where there is none, where it is not one of `kinds`, where its notes lack what is `needed`, or
    where its weights are no numbers.
    """
    if not folder.is_dir():
        raise InputError(f"no checkpoint {folder}: hand in the folder that training wrote to (its --out)")
    model, notes = open_model(folder, which="latest")
    if not isinstance(model, kinds):
        raise InputError(f"{folder} holds a {type(model).__name__}, {remedy}")
    check_notes(folder, notes, needed)
    check_weights(folder, model)
    return model, notes


def check_notes(folder: Path, notes: dict[str, Any], needed: Sequence[str]) -> None:
    """Raise InputError where the notes lack what is `needed`."""
    if missing := [name for name in needed if name not in notes]:
        raise InputError(f"{folder} was saved without {', '.join(missing)} in its notes: save it again with them")


def check_weights(folder: str | Path, model: nnx.Module) -> None:
    """Raise InputError, naming the first parameter, where weights are NaN or infinite."""
    for path, leaf in jax.tree.leaves_with_path(nnx.to_pure_dict(nnx.state(model, nnx.Param))):
        if not np.isfinite(np.asarray(leaf)).all():
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise InputError(f"{folder}: parameter {name} holds NaN or infinite numbers: train the model again")


def check_probabilities(probabilities: Float[np.ndarray, "example class"], names: Sequence[object]) -> None:
    """Raise InputError, naming the first example, where the model answers with no numbers."""
    if not (finite := np.isfinite(probabilities).all(axis=1)).all():
        raise InputError(f"the model's probabilities for {names[int(finite.argmin())]} are no numbers: train it again")


def picture_batches(
    names: Sequence[str | Path], size: int, channels: int, *, folder: Path | None = None
) -> Iterator[tuple[Squares, list[Picture]]]:
    """The pictures as the model sees them, some at a time, and each small enough to keep for a figure.

    A photograph at its full size is let go before the next is read. Raises InputError, naming it, for one that is
    missing or no picture.
    """
    with PictureReader(folder) as reader:
        for start in range(0, len(names), PICTURES_PER_CALL):
            squares, small = [], []
            for name in names[start : start + PICTURES_PER_CALL]:
                picture = reader.read(str(name))
                squares.append(model_square(picture, size, channels))
                small.append(thumbnail(picture, THUMBNAIL))
            yield np.stack(squares), small


def read_thumbnails(names: Sequence[str | Path], folder: Path | None = None) -> list[Picture]:
    """The pictures, each small enough to keep for a figure. Raises InputError as `picture_batches` does."""
    with PictureReader(folder) as reader:
        return [thumbnail(reader.read(str(name)), THUMBNAIL) for name in names]


def model_square(picture: Picture, size: int, channels: int) -> UInt8[np.ndarray, "size size channel"]:
    """The middle square of a picture, as the model saw its training pictures; in grey where it has one channel."""
    square = resize_image(picture, size)
    return np.rint(square @ (0.299, 0.587, 0.114)).astype(np.uint8)[..., None] if channels == 1 else square
