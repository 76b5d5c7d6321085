"""Batches on their way to the device before they are asked for."""

from collections import deque
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from jax.sharding import Sharding

from flaxformer_edu.errors import InputError


def prefetch(
    batches: Iterable[dict[str, np.ndarray]], size: int, sharding: Sharding | None = None
) -> Iterator[dict[str, jax.Array]]:
    """The same batches on the device (or spread by `sharding`), the transfer of the next `size` already begun.

    No thread is needed: transfers and jitted steps are dispatched and go on while Python makes the next batch. From
    a given step on: `prefetch(map(batches, range(step, steps)), 2)`.
    """
    if size < 1:
        raise InputError(f"size is {size}, expected 1 or more batches")
    return _ahead(batches, size, sharding)


def _ahead(
    batches: Iterable[dict[str, np.ndarray]], size: int, sharding: Sharding | None
) -> Iterator[dict[str, jax.Array]]:
    waiting: deque[dict[str, jax.Array]] = deque()
    for batch in batches:
        waiting.append(jax.device_put(batch, sharding))
        if len(waiting) > size:
            yield waiting.popleft()
    yield from waiting
