"""Records on disk as a data set, for data larger than memory: `Batches` makes batches of them as of arrays."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer

from flaxformer_edu.errors import InputError


@runtime_checkable
class Records(Protocol):
    """Random access to dicts of arrays, as the data sources of tensorflow-datasets and plain lists give it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


class RecordDataset:
    """Records that are read when they are asked for.

    `remedy` says in the `InputError` for damaged records what to do.
    """

    def __init__(self, name: str, records: Records, remedy: str = "write them again") -> None:
        self.name = name
        self._records = records
        self._remedy = remedy

    def __len__(self) -> int:
        return len(self._records)

    def take(self, indexes: Integer[np.ndarray, "batch"]) -> dict[str, np.ndarray]:
        """The records at `indexes`, read together where the source can, and stacked."""
        wanted = indexes.tolist()
        together = getattr(self._records, "__getitems__", None)
        try:
            records = together(wanted) if together else [self._records[index] for index in wanted]
        except RuntimeError as error:  # what array_record raises
            raise InputError(f"the records of {self.name} are damaged; {self._remedy} ({error})") from error
        return {key: np.stack([record[key] for record in records]) for key in records[0]}
