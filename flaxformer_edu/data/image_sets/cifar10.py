"""CIFAR-10 (A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009)."""

from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8

from flaxformer_edu.data.arrays import ArrayDataset, Pixels
from flaxformer_edu.data.formats.checks import whole_numbers
from flaxformer_edu.data.formats.pickles import load_arrays
from flaxformer_edu.download import RemoteFile
from flaxformer_edu.errors import InputError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_BINARY = RemoteFile(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    size=170_052_171,
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
CIFAR10_PIXELS = Pixels(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
_FILES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}


def read_folder(folder: str | Path) -> dict[str, ArrayDataset]:
    """Both splits of an unpacked `cifar-10-batches-py`, or of the folder around it: what `load_cifar10` returns."""
    folder = Path(folder)
    inner = folder / "cifar-10-batches-py"
    folder = inner if inner.is_dir() else folder
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; unpack cifar-10-python.tar.gz there")
    return {split: _load_split(folder, split, files) for split, files in _FILES.items()}


def _load_split(folder: Path, split: str, files: list[str]) -> ArrayDataset:
    parts = [read_batch(folder / file) for file in files]
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    return image_dataset(f"cifar10/{split}", images, labels)


def image_dataset(
    name: str, images: UInt8[np.ndarray, "example 32 32 3"], labels: Integer[np.ndarray, "example"]
) -> ArrayDataset:
    """CIFAR-10 images and labels under their usual names."""
    arrays = {"images": images, "labels": labels.astype(np.int32)}
    return ArrayDataset(name=name, arrays=arrays, class_names=CIFAR10_CLASSES, pixels=CIFAR10_PIXELS)


def read_batch(path: Path) -> tuple[UInt8[np.ndarray, "example 32 32 3"], Integer[np.ndarray, "example"]]:
    """Images and labels of one of the pickled batches, read without running anything in it."""
    batch = load_arrays(path)
    try:
        data, labels = batch[b"data"], whole_numbers(f"{path}: labels", batch[b"labels"], 0, len(CIFAR10_CLASSES) - 1)
        planes = data.reshape(len(labels), 3, 32, 32)  # each image is stored as three planes
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no CIFAR-10 batch (data (n, 3072) and labels (n,)); replace it") from error
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels
