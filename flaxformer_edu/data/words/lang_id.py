"""CS188's words in five languages, for language identification."""

from pathlib import Path

import numpy as np

from flaxformer_edu.data.arrays import ArrayDataset
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
    words, labels, chars = arrays[f"{split}_x"], arrays[f"{split}_y"], arrays["chars"]
    if words.ndim != 2 or labels.shape != words.shape[:1] or not words.size:
        raise InputError(f"{path}: {split}_x is {words.shape} and {split}_y {labels.shape}, expected (n, length), (n,)")
    if words.min() < PADDING or words.max() >= len(chars):
        raise InputError(
            f"{path}: {split}_x holds letters from {words.min()} to {words.max()}, but there are {len(chars)} chars"
        )
    return ArrayDataset(
        name=f"lang_id/{split}",
        arrays={"words": words.astype(np.int32), "labels": labels.astype(np.int32)},
        class_names=tuple(str(name) for name in arrays["language_names"]),
        metadata={
            "chars": tuple(str(char) for char in chars),
            "language_codes": tuple(str(code) for code in arrays["language_codes"]),
            "buckets": arrays[f"{split}_buckets"],
        },
    )


def decode_word(letters: np.ndarray, chars: tuple[str, ...]) -> str:
    """A row of `words` as text."""
    return "".join(chars[letter] for letter in letters if letter != PADDING)
