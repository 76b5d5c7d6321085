"""CS188's words in five languages, for language identification."""

from pathlib import Path

import numpy as np

from flaxformer_edu.data.arrays import ArrayDataset
from flaxformer_edu.data.formats.checks import whole_numbers
from flaxformer_edu.data.formats.npz import load_npz
from flaxformer_edu.errors import InputError

PADDING = -1
_SPLITS = ("train", "dev", "test")


def load_lang_id(path: str | Path) -> dict[str, ArrayDataset]:
    """Splits `train`, `dev` and `test`: `words` int32 (example, 10), letters as indexes padded by -1, and `labels`.

    `class_names` are the languages. `metadata` has `chars`, the letters (47 of them), `language_codes`, and
    `buckets` (bucket, 2): the examples `start` to `end` of a bucket all have words of one length.
    `path` is `lang_id.npz` or its folder. Raises `InputError` where it is missing, damaged or contradicts itself.
    """
    path = Path(path)
    path = path / "lang_id.npz" if path.is_dir() else path
    keys = [f"{split}_{what}" for split in _SPLITS for what in ("x", "y", "buckets")]
    arrays = load_npz(path, ["chars", "language_codes", "language_names", *keys])
    return {split: _split(path, arrays, split) for split in _SPLITS}


def _split(path: Path, arrays: dict[str, np.ndarray], split: str) -> ArrayDataset:
    words, labels, buckets = (arrays[f"{split}_{what}"] for what in ("x", "y", "buckets"))
    chars, codes, names = (_strings(path, arrays, what) for what in ("chars", "language_codes", "language_names"))
    if words.ndim != 2 or labels.shape != words.shape[:1] or not words.size:
        raise InputError(f"{path}: {split}_x is {words.shape} and {split}_y {labels.shape}, expected (n, length), (n,)")
    words = whole_numbers(f"{path}: {split}_x", words, PADDING, len(chars) - 1)
    if {*map(len, chars)} != {1}:
        raise InputError(f"{path}: chars are {chars}, expected one letter each; replace it")
    letters = words != PADDING
    if not letters[:, 0].all() or (letters[:, 1:] > letters[:, :-1]).any():
        raise InputError(f"{path}: {split}_x holds words that begin with {PADDING} or go on behind one; replace it")
    return ArrayDataset(
        name=f"lang_id/{split}",
        arrays={"words": words, "labels": whole_numbers(f"{path}: {split}_y", labels, 0, len(names) - 1)},
        class_names=names,
        metadata={
            "chars": chars,
            "language_codes": codes,
            "buckets": whole_numbers(f"{path}: {split}_buckets", buckets, 0, len(words)),
        },
    )


def _strings(path: Path, arrays: dict[str, np.ndarray], name: str) -> tuple[str, ...]:
    values = arrays[name]
    if values.dtype.kind != "U" or values.ndim != 1 or len(np.unique(values)) != values.size:
        raise InputError(f"{path}: {name} is {values.dtype}{values.shape}, expected different strings; replace it")
    return tuple(map(str, values))


def decode_word(letters: np.ndarray, chars: tuple[str, ...]) -> str:
    """A row of `words` as text."""
    return "".join(chars[letter] for letter in letters if letter != PADDING)
