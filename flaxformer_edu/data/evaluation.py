"""Batches to evaluate on: every example once."""

from collections.abc import Iterator

import numpy as np

from flaxformer_edu.data.arrays import Dataset
from flaxformer_edu.errors import InputError


def evaluation_batches(dataset: Dataset, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Every example exactly once, in order, in batches of one shape.

    The last batch is filled up with repeats of the first example; the boolean array `mask` of shape `(batch,)` is
    False there, so that a sum weighted by it, divided by the number of examples, is an exact mean.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, expected 1 or more")
    for start in range(0, len(dataset), batch_size):
        indexes = np.arange(start, start + batch_size)
        mask = indexes < len(dataset)
        yield {**dataset.take(np.where(mask, indexes, 0)), "mask": mask}
