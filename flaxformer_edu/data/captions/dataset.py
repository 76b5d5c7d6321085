"""Captioned pictures as a data set: a caption is an example, and what is known of its picture is looked up."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Array, Integer

from flaxformer_edu.errors import InputError

SPECIAL_WORDS = ("<NULL>", "<START>", "<END>", "<UNK>")


@dataclass(frozen=True, kw_only=True)
class CaptionDataset:
    """`captions` (example, length) of word ids, the picture of each, and tables with one row per picture.

    A table is, for example, `features` (picture, width) or `images` (picture, height, width, 3): it is kept once per
    picture and not once per caption, which for COCO is the difference between 170 MB and 820 MB.
    """

    name: str
    captions: Integer[np.ndarray, "examples length"]
    image_idxs: Integer[np.ndarray, "examples"]
    tables: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that is in memory."""
        return {"captions": self.captions, "image_idxs": self.image_idxs, **self.tables}

    def take(self, indexes: Integer[np.ndarray, "batch"]) -> dict[str, np.ndarray]:
        """`captions`, `image_idxs` and a row of every table, for each example in `indexes`."""
        pictures = self.image_idxs[indexes]
        rows = {key: table[pictures] for key, table in self.tables.items()}
        return {"captions": self.captions[indexes], "image_idxs": pictures, **rows}


def caption_dataset(data: dict[str, Any], split: Literal["train", "val"], **tables: np.ndarray) -> CaptionDataset:
    """One split of what `load_coco` returns; its `features` unless other tables are given, one row per picture each."""
    pictures = len(data.get(f"{split}_features", data.get(f"{split}_urls", ())))
    if not tables and f"{split}_features" not in data:
        raise InputError(f"split {split} was read without features: hand in a table, such as images=...")
    for key, table in tables.items():
        if len(table) != pictures:
            raise InputError(f"table {key} has {len(table)} rows, but split {split} has {pictures} pictures")
    return CaptionDataset(
        name=f"captions/{split}",
        captions=data[f"{split}_captions"],
        image_idxs=data[f"{split}_image_idxs"],
        tables=tables or {"features": data[f"{split}_features"]},
    )


def decode_captions(captions: Integer[np.ndarray | Array, "*batch length"], idx_to_word: list[str]) -> str | list[str]:
    """Word ids as text: `<NULL>` is skipped, and a caption ends after its `<END>`, as in CS231n.

    One caption (length,) gives a string, several (batch, length) a list of strings. Raises `InputError` for an id
    that is not in the vocabulary.
    """
    captions = np.asarray(captions)
    texts = [" ".join(_words(caption, idx_to_word)) for caption in np.atleast_2d(captions)]
    return texts[0] if captions.ndim == 1 else texts


def _words(caption: Integer[np.ndarray, "length"], idx_to_word: list[str]) -> Iterator[str]:
    for index in caption:
        if not 0 <= index < len(idx_to_word):
            raise InputError(f"word id {index} is not in the vocabulary of {len(idx_to_word)} words")
        word = idx_to_word[index]
        if word != "<NULL>":
            yield word
        if word == "<END>":
            return
