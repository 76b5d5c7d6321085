"""Data sets held in memory, whole uint8 or integer arrays; and batches of them, a pure function of (seed, step)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Shaped

from flaxformer_edu.errors import InputError


@runtime_checkable
class Dataset(Protocol):
    """What batches are made from: a length, and the examples at given indexes, stacked."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    def __len__(self) -> int: ...

    def take(self, indexes: Integer[np.ndarray, "batch"]) -> dict[str, np.ndarray]:
        """The examples at `indexes`, every array with the leading axis `batch`."""
        ...


@dataclass(frozen=True)
class Pixels:
    """A data set's mean and standard deviation per channel (or for all), of pixels from 0 to 1.

    By default such pixels are left as they are.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def normalise(
        self, images: Shaped[Array | np.ndarray, "batch height width channel"]
    ) -> Float[Array, "batch height width channel"]:
        """The images, of pixels from 0 to 255, with mean 0 and standard deviation 1."""
        return normalise(images, self.mean, self.std)


def normalise(
    images: Shaped[Array | np.ndarray, "batch height width channel"], mean: Sequence[float], std: Sequence[float]
) -> Float[Array, "batch height width channel"]:
    """`(images / 255 - mean) / std` in float32, of pixels from 0 to 255, one mean and std per channel (or for all)."""
    return (jnp.asarray(images, jnp.float32) / 255 - jnp.asarray(mean)) / jnp.asarray(std)


@dataclass(frozen=True, kw_only=True)
class ArrayDataset:
    """Examples as arrays with one leading axis, such as `images` (uint8) and `labels` (integers).

    `class_names[label]` is a class in words, where there are classes; `pixels` is what images are normalised by;
    `metadata` is what else belongs to the set.
    Raises `InputError` where the arrays disagree about the number of examples or a label has no name.
    """

    name: str
    arrays: dict[str, np.ndarray]
    class_names: tuple[str, ...] = ()
    pixels: Pixels = field(default_factory=Pixels)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {key: len(array) for key, array in self.arrays.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"{self.name}: every array needs the same number of examples, these have {lengths}")
        labels = self.arrays.get("labels")
        if self.class_names and labels is not None and labels.size:
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= len(self.class_names):
                raise InputError(
                    f"{self.name}: labels run from {low} to {high}, expected 0 to {len(self.class_names) - 1}; "
                    "the file is damaged or belongs to another data set"
                )

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def take(self, indexes: Integer[np.ndarray, "batch"]) -> dict[str, np.ndarray]:
        """The examples at `indexes`, as freshly allocated arrays."""
        return {key: array[indexes] for key, array in self.arrays.items()}


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
