"""A bundled list of words in five languages, made from the package wordfreq, and words as arrays of letters.

The list is licensed under CC BY-SA 4.0; see `LICENSE.md` beside it. `build.py` makes it.
"""

import gzip
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from flaxformer_edu.data.arrays import ArrayDataset
from flaxformer_edu.data.words.lang_id import PADDING
from flaxformer_edu.errors import InputError

WORDS_FILE = Path(__file__).with_name("words.txt.gz")
ALPHABET = "abcdefghijklmnopqrstuvwxyzáäèéêëíïñóöúüąćęłńśźż"  # that of CS188's lang_id.npz, in its order
LANGUAGES = {"en": "English", "es": "Spanish", "fi": "Finnish", "nl": "Dutch", "pl": "Polish"}
SHARES = {"dev": 0.05, "test": 0.05}  # the rest is for training


def load_words() -> dict[str, ArrayDataset]:
    """Splits `train`, `dev` and `test` of the bundled list, in the form of `load_lang_id`.

    `words` int32 (example, length), letters as indexes padded by -1, and `labels`; `class_names` are the languages and
    `metadata` has `chars` and `language_codes`. No word is in two splits, or in two languages.
    """
    words: list[str] = []
    labels: list[int] = []
    for line in gzip.decompress(WORDS_FILE.read_bytes()).decode().splitlines():
        if line.startswith("# "):
            label = list(LANGUAGES).index(line.removeprefix("# "))
        else:
            words.append(line)
            labels.append(label)
    splits = np.array([split_of(word) for word in words])
    arrays = {"words": encode_words(words), "labels": np.array(labels, np.int32)}
    return {
        split: ArrayDataset(
            name=f"words/{split}",
            arrays={name: array[splits == split] for name, array in arrays.items()},
            class_names=tuple(LANGUAGES.values()),
            metadata={"chars": tuple(ALPHABET), "language_codes": tuple(LANGUAGES)},
        )
        for split in ("train", "dev", "test")
    }


def split_of(word: str) -> str:
    """Which split a word belongs to: a function of the word alone, so that longer lists never move one."""
    place = zlib.crc32(word.encode()) / 2**32
    for split, share in SHARES.items():
        if place < share:
            return split
        place -= share
    return "train"


def fold_word(word: str) -> str:
    """The word in small letters, an accent and its letter one character (Unicode's NFC)."""
    return unicodedata.normalize("NFC", word).lower()


def encode_words(
    words: Sequence[str], alphabet: Sequence[str] = ALPHABET, length: int | None = None
) -> Int[np.ndarray, "word length"]:
    """Letters as their places in the alphabet, int32, padded with -1 to the longest word, or to `length`.

    Capitals count as small letters. Raises InputError, which names the word, for an empty one and for other letters.
    """
    places = {letter: place for place, letter in enumerate(alphabet)}
    folded = [fold_word(word) for word in words]
    for word, letters in zip(words, folded, strict=True):
        strange = "".join(dict.fromkeys(letter for letter in letters if letter not in places))
        if strange:
            raise InputError(f"{word!r} has {strange!r}, which the alphabet {''.join(alphabet)} has not: leave it out")
        if not letters:
            raise InputError("a word is empty, expected at least one letter")
    encoded = np.full((len(words), length or max(map(len, folded), default=0)), PADDING, np.int32)
    for row, letters in zip(encoded, folded, strict=True):
        row[: len(letters)] = [places[letter] for letter in letters]
    return encoded
