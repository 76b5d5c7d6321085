"""tensorflow-datasets builders for CIFAR-10 and MNIST that need no TensorFlow.

The stock builders decode images with TensorFlow; these keep plain uint8 tensors. Examples are named as in a batch,
`{"images": uint8, "labels": int32}`, and stay in their original order. This module is imported only on request.
"""

import tarfile
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.utils import Size

from flaxformer_edu.data.image_sets import PREPARED_VERSION
from flaxformer_edu.data.image_sets.cifar10 import CIFAR10_BINARY, CIFAR10_CLASSES
from flaxformer_edu.data.image_sets.mnist import MNIST_FILES, read_idx
from flaxformer_edu.download import RemoteFile
from flaxformer_edu.errors import InputError

Example = dict[str, np.ndarray]


class ImageBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What the two have in common. The files may lie in the `manual` folder, otherwise they are downloaded."""

    VERSION = tfds.core.Version(PREPARED_VERSION)
    SHAPE: tuple[int, int, int]
    HOMEPAGE: str
    FILES: tuple[RemoteFile, ...]

    @property
    def url_infos(self) -> dict[str, UrlInfo]:
        """The published sizes and checksums: tensorflow-datasets accepts no other files."""
        return {file.url: UrlInfo(Size(file.size or 0), str(file.sha256), file.name) for file in self.FILES}

    def _info(self) -> tfds.core.DatasetInfo:
        images = tfds.features.Tensor(shape=self.SHAPE, dtype=np.uint8)
        labels = tfds.features.Tensor(shape=(), dtype=np.int32)
        features = tfds.features.FeaturesDict({"images": images, "labels": labels})
        return tfds.core.DatasetInfo(builder=self, features=features, homepage=self.HOMEPAGE, disable_shuffling=True)

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, Example]]:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"images": image, "labels": label.astype(np.int32)}


class FlaxformerCifar10(ImageBuilder):
    """CIFAR-10 from its binary archive: one byte of label, then 3 planes of 32 x 32 pixels, image after image."""

    SHAPE = (32, 32, 3)
    HOMEPAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
    FILES = (CIFAR10_BINARY,)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Example]]]:
        archive = dl_manager.download(self.FILES[0].url)
        names = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
        return {split: self._generate_examples(*read_binary(archive, files)) for split, files in names.items()}


def read_binary(path: PathLike, files: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) and labels (n,), uint8, of some members of `cifar-10-binary.tar.gz`."""
    with tarfile.open(path) as archive:
        members = [archive.extractfile(f"cifar-10-batches-bin/{file}") for file in files]
        content = b"".join(member.read() for member in members if member)
    rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    if rows[:, 0].max() >= len(CIFAR10_CLASSES):
        raise InputError(f"{path} holds labels above 9; delete it and fetch it again")
    return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0]


class FlaxformerMnist(ImageBuilder):
    """MNIST from the four original gzipped idx files."""

    SHAPE = (28, 28, 1)
    HOMEPAGE = "https://yann.lecun.com/exdb/mnist/"
    FILES = MNIST_FILES

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Example]]]:
        paths = [dl_manager.download(file.url) for file in self.FILES]
        arrays = [read_idx(Path(path), rank) for path, rank in zip(paths, (3, 1, 3, 1), strict=True)]
        train_images, train_labels, test_images, test_labels = arrays
        return {
            "train": self._generate_examples(train_images[..., None], train_labels),
            "test": self._generate_examples(test_images[..., None], test_labels),
        }
