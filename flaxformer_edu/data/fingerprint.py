"""A data set in a few numbers, by which a run notices that it is resumed with another one."""

import zlib
from typing import Any

import numpy as np
from jaxtyping import Shaped

from flaxformer_edu.data.arrays import Dataset

WHOLE = 1 << 30  # bytes of an array of which every one is read: a third of a second
SAMPLE = 256  # examples of a data set that is read from the disk


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """How many examples there are, and type, shape and CRC-32 of each array.

    An array above 1 GiB is covered by evenly spaced rows, of 1 GiB or a little less together; a data set without
    `arrays` in memory by 256 evenly spaced examples.
    """
    arrays = getattr(dataset, "arrays", None)
    if arrays is None:
        arrays = dataset.take(np.linspace(0, len(dataset) - 1, min(SAMPLE, len(dataset))).astype(np.int64))
    return {"examples": len(dataset), **{name: _fingerprint(array) for name, array in arrays.items()}}


def _fingerprint(array: Shaped[np.ndarray, "..."]) -> dict[str, Any]:
    rows = array[:: -(-array.nbytes // WHOLE) or 1]
    if rows.dtype.hasobject:
        content = memoryview(repr(rows.tolist()).encode())
    else:
        content = np.ascontiguousarray(rows).view(np.uint8).data  # bytes of any type, bfloat16 too, without a copy
    return {"dtype": str(array.dtype), "shape": array.shape, "crc32": f"{zlib.crc32(content):08x}"}
