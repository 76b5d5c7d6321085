"""Batches as a pure function of (seed, step), so that resuming a run needs nothing but the step."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Integer

from flaxformer_edu.data.arrays import Dataset
from flaxformer_edu.errors import InputError


class Batches:
    """Training batches of a data set, shuffled afresh every epoch: `batches(step)` is a dict of arrays.

    The same (seed, step) gives the same batch on every call, machine and NumPy version. An epoch has
    `steps_per_epoch` whole batches; the few examples left over differ from epoch to epoch.
    """

    def __init__(self, dataset: Dataset, batch_size: int, seed: int) -> None:
        """Raises `InputError` where the data set does not fill one batch, or the seed is negative."""
        if not 1 <= batch_size <= len(dataset):
            raise InputError(
                f"batch_size is {batch_size}, but {dataset.name} has {len(dataset)} examples; "
                f"choose a batch size from 1 to {len(dataset)}"
            )
        if seed < 0:
            raise InputError(f"seed is {seed}, expected 0 or more")
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.steps_per_epoch = len(dataset) // batch_size
        self._order = (-1, np.empty(0, dtype=np.int64))  # the epoch last asked for and its permutation

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """The batch of step 0, 1, 2, ..., counted over all epochs."""
        if step < 0:
            raise InputError(f"step is {step}, expected 0 or more")
        epoch, place = divmod(step, self.steps_per_epoch)
        cached, order = self._order
        if cached != epoch:
            order = permutation(len(self.dataset), self.seed, epoch)
            self._order = (epoch, order)
        return self.dataset.take(order[place * self.batch_size : (place + 1) * self.batch_size])


def permutation(length: int, seed: int, epoch: int) -> Integer[np.ndarray, "length"]:
    """The order of the examples in one epoch, from the generator's raw bits: those NumPy promises never to change."""
    bits = np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(length)
    return np.argsort(bits, kind="stable")


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
