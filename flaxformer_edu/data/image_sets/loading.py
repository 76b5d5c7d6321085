"""CIFAR-10 and MNIST, from your own files or from the cache."""

from pathlib import Path

from flaxformer_edu.data.arrays import ArrayDataset
from flaxformer_edu.data.image_sets import cifar10, mnist
from flaxformer_edu.data.image_sets.prepared import load_prepared


def load_cifar10(folder: str | Path | None = None) -> dict[str, ArrayDataset]:
    """Splits `train` (50,000) and `test` (10,000): `images` uint8 (example, 32, 32, 3) and `labels` int32.

    `folder` is an unpacked `cifar-10-batches-py`, or the one around it. Without it the set is downloaded once by a
    tensorflow-datasets builder and kept in the cache; order and content are the same.
    Raises `InputError`, naming the file, where one is missing or damaged.
    """
    return load_prepared("cifar10") if folder is None else cifar10.read_folder(folder)


def load_mnist(path: str | Path | None = None) -> dict[str, ArrayDataset]:
    """Splits `train` (60,000) and `test` (10,000): `images` uint8 (example, 28, 28, 1) and `labels` int32.

    `path` is a folder with the four idx files, gzipped or not, or CS188's `mnist.npz`. Without it the set is
    downloaded once by a tensorflow-datasets builder and kept in the cache.
    Raises `InputError`, naming the file, where one is missing or damaged.
    """
    return load_prepared("mnist") if path is None else mnist.read_path(path)
