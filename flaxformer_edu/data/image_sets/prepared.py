"""CIFAR-10 and MNIST as tensorflow-datasets prepares them: downloaded and converted once, then read from the cache."""

from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from flaxformer_edu.data.arrays import ArrayDataset
from flaxformer_edu.data.image_sets import PREPARED_VERSION, cifar10, mnist
from flaxformer_edu.data.records import RecordDataset
from flaxformer_edu.download import download
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import cache_folder
from flaxformer_edu.locks import locked, wait

SPLITS: tuple[Literal["train"], Literal["test"]] = ("train", "test")
Name = Literal["cifar10", "mnist"]
_NAMED = {"cifar10": cifar10.image_dataset, "mnist": mnist.image_dataset}


def data_folder() -> Path:
    """The `data_dir` of tensorflow-datasets within the cache."""
    return cache_folder() / "tensorflow_datasets"


def manual_folder() -> Path:
    """Where the original files are downloaded to, or put by hand on a machine without a network."""
    return data_folder() / "downloads" / "manual"


def prepared_folder(name: Name) -> Path:
    """Where the records are."""
    return data_folder() / f"flaxformer_{name}" / PREPARED_VERSION


def prepare(name: Name) -> Any:
    """The tensorflow-datasets builder, its records written.

    The files are downloaded first, and not by tensorflow-datasets: without a network it tries for minutes. Raises
    `InputError` where that fails or a file has the wrong checksum.
    """
    import tensorflow_datasets as tfds

    from flaxformer_edu.data.image_sets.builders import FlaxformerCifar10, FlaxformerMnist

    classes = {"cifar10": FlaxformerCifar10, "mnist": FlaxformerMnist}
    made_by = partial(classes[name], data_dir=data_folder(), file_format="array_record")
    if not prepared_folder(name).exists():
        with locked(data_folder() / f".{name}.lock", wait):
            if not prepared_folder(name).exists():  # nor has another process made it meanwhile
                for file in classes[name].FILES:
                    download(file, manual_folder())
                tfds.disable_progress_bar()
                with Console(stderr=True).status(f"preparing {name}, once"), redirect_stdout(StringIO()):
                    made_by().download_and_prepare()
    return made_by()


def prepared_records(name: Name, split: Literal["train", "test"]) -> RecordDataset:
    """The records on disk, read when they are asked for: `images` uint8 and `labels`."""
    remedy = f"delete {prepared_folder(name)} and run again"
    try:
        source = prepare(name).as_data_source(split=split)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"the records of {name} are incomplete; {remedy} ({error})") from error
    return RecordDataset(f"{name}/{split}", source, remedy)


def load_prepared(name: Name) -> dict[str, ArrayDataset]:
    """All the records in memory: splits `train` and `test` with uint8 `images` and int32 `labels` (some seconds)."""
    splits = {}
    for split in SPLITS:
        records = prepared_records(name, split)
        arrays = records.take(np.arange(len(records)))
        splits[split] = _NAMED[name](records.name, arrays["images"], arrays["labels"])
    return splits
