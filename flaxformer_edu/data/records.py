"""Records on disk as a data set, and batches of them, for data larger than memory."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer

from flaxformer_edu.data.arrays import Dataset
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


class RecordBatches:
    """The interface of `Batches` for more examples than an order in memory is wanted for (needs the extra `grain`).

    Grain computes which index comes at which place of an epoch's random order, without listing it. Since any step
    can be asked for, the step is the whole position of a run, and nothing else needs to be saved.
    """

    def __init__(self, dataset: Dataset, batch_size: int, seed: int) -> None:
        """Raises `InputError` where the records do not fill one batch, or grain is not installed."""
        try:
            import grain
        except ImportError as error:
            raise InputError("reading records from disk needs grain: pip install 'flaxformer-edu[grain]'") from error

        if not 1 <= batch_size <= len(dataset):
            raise InputError(
                f"batch_size is {batch_size}, but {dataset.name} has {len(dataset)} examples; "
                f"choose a batch size from 1 to {len(dataset)}"
            )
        indexes = grain.MapDataset.range(len(dataset)).shuffle(seed=seed)
        self._indexes = indexes.batch(batch_size, drop_remainder=True).repeat()  # shuffled afresh at each repetition
        self.dataset = dataset
        self.batch_size = batch_size
        self.steps_per_epoch = len(dataset) // batch_size

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """The batch of step 0, 1, 2, ..., counted over all epochs."""
        if step < 0:
            raise InputError(f"step is {step}, expected 0 or more")
        return self.dataset.take(np.asarray(self._indexes[step]))
