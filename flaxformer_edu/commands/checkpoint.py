"""What `flaxformer-edu caption`, `classify` and `explain` have in common: a checkpoint, pictures, figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from flaxformer_edu.data import PictureReader, normalise, resize_image
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import written_file
from flaxformer_edu.runs import open_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = UInt8[np.ndarray, "height width 3"]


def open_checkpoint(folder: Path, kinds: tuple[type, ...], needed: Sequence[str], remedy: str) -> tuple[Any, Any]:
    """The model as the training left it, and its notes.

    Raises InputError where there is none, where it is not one of `kinds`, or where its notes lack what is `needed`.
    """
    if not folder.is_dir():
        raise InputError(f"no checkpoint {folder}: hand in the folder that training wrote to (its --out)")
    model, notes = open_model(folder, which="latest")
    if not isinstance(model, kinds):
        raise InputError(f"{folder} holds a {type(model).__name__}, {remedy}")
    check_notes(folder, notes, needed)
    return model, notes


def check_notes(folder: Path, notes: dict[str, Any], needed: Sequence[str]) -> None:
    """Raise InputError where the notes lack what is `needed`."""
    if missing := [name for name in needed if name not in notes]:
        raise InputError(f"{folder} was saved without {', '.join(missing)} in its notes: save it again with them")


def read_pictures(names: Sequence[str | Path], folder: Path = Path()) -> list[Picture]:
    """The pictures in RGB. Raises InputError, naming it, for one that is missing or no picture."""
    with PictureReader(folder) as reader:
        return [reader.read(str(name)) for name in names]


def model_images(
    pictures: Sequence[Picture], size: int, channels: int, notes: dict[str, Any]
) -> Float[np.ndarray, "batch size size channel"]:
    """The middle square of each picture, as the model saw its training pictures; in grey where it has one channel."""
    return np.asarray(normalise(model_squares(pictures, size, channels), notes["mean"], notes["std"]))


def model_squares(
    pictures: Sequence[Picture], size: int, channels: int
) -> UInt8[np.ndarray, "batch size size channel"]:
    """The same before they are normalised."""
    squares = np.stack([resize_image(picture, size) for picture in pictures])
    return np.rint(squares @ (0.299, 0.587, 0.114)).astype(np.uint8)[..., None] if channels == 1 else squares


def save_figure(figure: "Figure", path: Path) -> None:
    """Write the figure, of the kind that the path ends in, whole or not at all."""
    check_figure_name(path)
    with written_file(path) as draft:
        figure.savefig(draft)


def check_figure_name(path: Path) -> None:
    """Raise InputError unless the path ends in a kind of picture that can be written."""
    if path.suffix.lower() not in (".png", ".pdf", ".svg", ".jpg", ".jpeg"):
        raise InputError(f"{path} does not end in a kind of picture that can be written: call it {path.stem}.png")
