"""A sheet of examples: pictures with their labels or captions, or words with their languages."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from flaxformer_edu.data.arrays import ArrayDataset
from flaxformer_edu.data.captions.dataset import decode_captions
from flaxformer_edu.data.images import PictureReader
from flaxformer_edu.data.words.lang_id import decode_word
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import written_file

_COLUMNS = 6
_TEXT_WIDTH = 24  # letters per line under a tile


@dataclass(frozen=True)
class Tile:
    """One example: a picture, or a word to be written large; and the text above it."""

    content: UInt8[np.ndarray, "height width channel"] | str
    text: str


def dataset_tiles(dataset: ArrayDataset, count: int, random: np.random.Generator) -> list[Tile]:
    """Examples with their class names: `images`, or `words` spelled by the data set's `chars`."""
    batch = dataset.take(random.permutation(len(dataset))[:count])
    if "images" in batch:
        contents = list(batch["images"])
    else:
        contents = [decode_word(word, dataset.metadata["chars"]) for word in batch["words"]]
    return [Tile(content, dataset.class_names[label]) for content, label in zip(contents, batch["labels"], strict=True)]


def caption_tiles(
    data: dict[str, Any],
    folder: Path,
    split: str,
    count: int,
    random: np.random.Generator,
    on_missing: Callable[[str], object],
) -> list[Tile]:
    """Pictures with one of their captions each; those that cannot be read are left out, with a message."""
    tiles = []
    captions, pictures = data[f"{split}_captions"], data[f"{split}_image_idxs"]
    with PictureReader(folder) as reader:
        for index in random.permutation(len(captions))[:count]:
            text = decode_captions(captions[index], data["idx_to_word"])
            try:
                image = reader.read(str(data[f"{split}_urls"][pictures[index]]))
                tiles.append(Tile(image, str(text).removeprefix("<START> ").removesuffix(" <END>")))
            except InputError as error:
                on_missing(f"skipped: {error}")
    return tiles


def draw_sheet(path: Path, tiles: Sequence[Tile], title: str) -> None:
    """Draw the tiles in rows of six and write them to an image file, of the kind its name ends in."""
    from matplotlib.figure import Figure

    if not tiles:
        raise InputError(f"no example could be read, so there is nothing to draw in {path}")
    rows = -(-len(tiles) // _COLUMNS)
    figure = Figure(figsize=(2 * _COLUMNS, 2.3 * rows + 0.5), layout="constrained")
    figure.suptitle(title)
    axes = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
    for axis in axes:
        axis.axis("off")
    for axis, tile in zip(axes, tiles, strict=False):
        if isinstance(tile.content, str):
            axis.text(0.5, 0.5, tile.content, ha="center", va="center", fontsize=18)
        else:
            axis.imshow(tile.content, cmap="gray", vmin=0, vmax=255)
        axis.set_title("\n".join(textwrap.wrap(tile.text, _TEXT_WIDTH)), fontsize=8)
    if path.suffix.lower().lstrip(".") not in figure.canvas.get_supported_filetypes():
        raise InputError(f"{path} does not end in a kind of picture that can be written; call it {path.stem}.png")
    with written_file(path) as draft:
        figure.savefig(draft, dpi=120)
