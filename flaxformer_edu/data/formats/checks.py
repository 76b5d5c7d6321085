"""What a file promises and what it holds, checked before either is believed."""

from typing import Any

import numpy as np
from jaxtyping import Int32

from flaxformer_edu.errors import InputError

FREE_BYTES = 1 << 28  # read whatever the file stores for them
LARGEST_RATIO = 16  # of bytes promised to bytes stored, beyond those: MNIST compresses to a fifth of its size


def check_size(where: object, promised: int, stored: int) -> None:
    """Raise InputError where `promised` bytes of memory are far more than `stored` bytes of a file can stand for."""
    if promised > FREE_BYTES + LARGEST_RATIO * stored:
        raise InputError(
            f"{where} promises {promised / 1e9:,.1f} GB, but {stored:,} bytes are stored for it; it is damaged or made "
            "to fill the memory: replace it"
        )


def whole_numbers(where: str, values: Any, low: int, high: int) -> Int32[np.ndarray, "..."]:
    """The values as int32. Raises InputError unless they are whole numbers from `low` to `high`."""
    values = np.asarray(values)
    if values.dtype.kind not in "iuf" or not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise InputError(f"{where} holds {values.dtype} that are not all whole numbers; the file is damaged")
    if values.size and (values.min() < low or values.max() > high):
        raise InputError(
            f"{where} holds numbers from {values.min():.17g} to {values.max():.17g}, expected {low} to {high}; "
            "the file is damaged or belongs to another data set"
        )
    return values.astype(np.int32)
