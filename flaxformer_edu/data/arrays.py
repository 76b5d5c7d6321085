"""Data sets held in memory: whole uint8 or integer arrays, from which a batch is one gather."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer

from flaxformer_edu.data.augment import Pixels
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
