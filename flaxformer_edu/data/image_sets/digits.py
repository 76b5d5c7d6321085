"""The 1,797 handwritten digits that come with scikit-learn: real data without a download."""

import numpy as np
from jaxtyping import Integer

from flaxformer_edu.data.arrays import ArrayDataset, Pixels
from flaxformer_edu.errors import InputError

DIGITS_PIXELS = Pixels(mean=(0.305,), std=(0.376,))


def load_digits(held_out: float = 0.2, seed: int = 0) -> dict[str, ArrayDataset]:
    """Splits `train` and `test`: `images` uint8 (example, 8, 8, 1) from 0 to 255, and `labels` int32.

    A share `held_out` of each digit goes to the test split, chosen once and for all by `seed`.
    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998 (its test part).
    """
    from sklearn import datasets

    pixels, digits = datasets.load_digits(return_X_y=True)
    images = np.rint(np.asarray(pixels) * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)  # from 17 grey levels
    labels = np.asarray(digits, dtype=np.int32)
    train, test = stratified_split(labels, held_out, seed)
    return {
        split: ArrayDataset(
            name=f"digits/{split}",
            arrays={"images": images[chosen], "labels": labels[chosen]},
            class_names=tuple("0123456789"),
            pixels=DIGITS_PIXELS,
        )
        for split, chosen in (("train", train), ("test", test))
    }


def stratified_split(
    labels: Integer[np.ndarray, "examples"], held_out: float, seed: int
) -> tuple[Integer[np.ndarray, "kept"], Integer[np.ndarray, "held"]]:
    """Indexes of two parts with the same share of each class: the kept ones and a random part `held_out` of each."""
    if not 0 < held_out < 1:
        raise InputError(f"held_out is {held_out}, expected a share between 0 and 1")
    order = np.random.default_rng(seed).permutation(len(labels))
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        held[members[: round(held_out * len(members))]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
