"""What `flaxformer-edu caption`, `classify`, `explain` and `features` have in common: a checkpoint, pictures."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float, Shaped, UInt8

from flaxformer_edu import convert
from flaxformer_edu.convert.huggingface import CONFIG
from flaxformer_edu.data import PictureReader, thumbnail
from flaxformer_edu.data.preprocessing import Preprocessing
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import ViTConfig
from flaxformer_edu.runs import open_model
from flaxformer_edu.runs.folder import MODEL_FILE
from flaxformer_edu.waiting import shown_progress

Picture = UInt8[np.ndarray, "height width 3"]
Squares = Shaped[np.ndarray, "batch size size channel"]

PICTURES_PER_CALL = 32
THUMBNAIL = 512  # pixels of the longer side


def open_checkpoint(source: str | Path, kinds: tuple[type, ...], needed: Sequence[str], remedy: str) -> tuple[Any, Any]:
    """The model as the training left it, or that in a file or a folder of a library, or of a name; and its notes.

    Raises InputError where there is none, where it is not one of `kinds`, where its notes lack what is `needed`, or
    where its weights are no numbers.
    """
    folder = Path(source)
    if (folder / MODEL_FILE).is_file():
        model, notes = open_model(folder, which="latest")
    elif folder.is_dir() and not (folder / CONFIG).is_file():
        raise InputError(f"{folder} holds no model: hand in the folder that training wrote to (its --out)")
    elif "://" not in str(source) and not folder.exists():
        raise InputError(f"no checkpoint {folder}: hand in the folder that training wrote to (its --out), or a file")
    else:
        model, notes = convert.open(source)
    if not isinstance(model, kinds):
        raise InputError(f"{source} holds a {type(model).__name__}, {remedy}")
    check_notes(source, notes, needed)
    check_weights(source, model)
    return model, notes


def preprocessing_of(notes: dict[str, Any], config: ViTConfig) -> Preprocessing:
    """How pictures are preprocessed for a model. Raises InputError where its notes do not say it.

    Where they say it for another size than the model's, a line on standard error does.
    """
    kept = notes.get("preprocessing", {}).get("size", config.image_size)
    if kept != config.image_size:
        print(
            f"assumed: pictures of {config.image_size} pixels, as the model's positions are; its preprocessing makes "
            f"them {kept}, which `flaxformer-edu convert --image-size {kept}` prepares it for",
            file=sys.stderr,
        )
    return Preprocessing.in_notes(notes, size=config.image_size, channels=config.channels)


def check_notes(folder: str | Path, notes: dict[str, Any], needed: Sequence[str]) -> None:
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
    names: Sequence[str | Path], preprocessing: Preprocessing, *, folder: Path | None = None
) -> Iterator[tuple[Squares, list[Picture]]]:
    """The pictures as the model sees them, some at a time, and each small enough to keep for a figure.

    A photograph at its full size is let go before the next is read. Raises InputError, naming it, for one that is
    missing or no picture. A bar shows what takes longer than two seconds.
    """
    with PictureReader(folder) as reader:
        squares, small = [], []
        for name in shown_progress(names, "pictures"):
            picture = reader.read(str(name), preprocessing.colours)
            squares.append(preprocessing.square(picture))
            small.append(thumbnail(picture, THUMBNAIL))
            if len(squares) == PICTURES_PER_CALL:
                yield np.stack(squares), small
                squares, small = [], []
        if squares:
            yield np.stack(squares), small


def read_thumbnails(names: Sequence[str | Path], folder: Path | None = None) -> list[Picture]:
    """The pictures, each small enough to keep for a figure. Raises InputError as `picture_batches` does."""
    with PictureReader(folder) as reader:
        return [thumbnail(reader.read(str(name)), THUMBNAIL) for name in names]

