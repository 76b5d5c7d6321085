"""A data set in a few numbers, by which a run notices that it is resumed with another one."""

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from flaxformer_edu.data.arrays import Dataset

WHOLE = 1 << 30  # bytes of an array of which every one is read: a third of a second
SOME = 1 << 26  # bytes of batches that are looked at, the first batch at least
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


def fingerprint_batches(batches: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The same of batches, the first 64 MiB of them: how many these are, and type and CRC-32 of their arrays."""
    count, size, types, sums = 0, 0, dict[str, str](), dict[str, int]()
    for batch in batches:
        count += 1
        for name, values in batch.items():
            array = np.asarray(values)
            size, types[name] = size + array.nbytes, str(array.dtype)
            sums[name] = zlib.crc32(_content(array), sums.get(name, 0))
        if size >= SOME:
            break
    return {"batches": count, **{name: {"dtype": types[name], "crc32": f"{sums[name]:08x}"} for name in types}}


def _fingerprint(array: Shaped[np.ndarray, "..."]) -> dict[str, Any]:
    content = _content(array[:: -(-array.nbytes // WHOLE) or 1])
    return {"dtype": str(array.dtype), "shape": array.shape, "crc32": f"{zlib.crc32(content):08x}"}


def _content(array: Shaped[np.ndarray, "..."]) -> memoryview:
    if array.dtype.hasobject:
        return memoryview(repr(array.tolist()).encode())
    return np.ascontiguousarray(array).view(np.uint8).data  # bytes of any type, bfloat16 too, without a copy
