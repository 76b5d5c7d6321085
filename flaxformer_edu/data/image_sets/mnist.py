"""MNIST (Y. LeCun, C. Cortes and C. Burges), from the original idx files or from CS188's npz."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8

from flaxformer_edu.data.arrays import ArrayDataset, Pixels
from flaxformer_edu.data.formats.checks import check_size, whole_numbers
from flaxformer_edu.data.formats.npz import load_npz
from flaxformer_edu.download import RemoteFile
from flaxformer_edu.errors import InputError

_MIRROR = "https://storage.googleapis.com/cvdf-datasets/mnist/"
MNIST_FILES = tuple(
    RemoteFile(url=f"{_MIRROR}{name}-ubyte.gz", size=size, sha256=sha256)
    for name, size, sha256 in (
        ("train-images-idx3", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        ("train-labels-idx1", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        ("t10k-images-idx3", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        ("t10k-labels-idx1", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    )
)
MNIST_PIXELS = Pixels(mean=(0.1307,), std=(0.3081,))
_PREFIXES = {"train": "train", "test": "t10k"}


def read_path(path: str | Path) -> dict[str, ArrayDataset]:
    """Both splits of a folder with the four idx files, or of CS188's `mnist.npz`: what `load_mnist` returns."""
    path = Path(path)
    if path.is_file():
        return {split: _from_npz(path, split) for split in _PREFIXES}
    if not path.is_dir():
        raise InputError(f"no folder {path}; put the four MNIST files there (train-images-idx3-ubyte.gz and so on)")
    return {split: _from_idx(path, split) for split in _PREFIXES}


def image_dataset(
    name: str, images: UInt8[np.ndarray, "example 28 28 1"], labels: Integer[np.ndarray, "example"]
) -> ArrayDataset:
    """MNIST images and labels under their usual names."""
    arrays = {"images": images, "labels": labels.astype(np.int32)}
    return ArrayDataset(name=name, arrays=arrays, class_names=tuple("0123456789"), pixels=MNIST_PIXELS)


def _from_idx(folder: Path, split: str) -> ArrayDataset:
    prefix = _PREFIXES[split]
    images = read_idx(_find(folder, f"{prefix}-images", "idx3-ubyte"), rank=3)
    labels = read_idx(_find(folder, f"{prefix}-labels", "idx1-ubyte"), rank=1)
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise InputError(
            f"{folder}: images of {split} are {images.shape} and labels {labels.shape}, expected (n, 28, 28) and (n,); "
            "the files do not belong together, download MNIST again"
        )
    return image_dataset(f"mnist/{split}", images[..., None], labels)


def _find(folder: Path, stem: str, kind: str) -> Path:
    names = [f"{stem}{separator}{kind}{ending}" for separator in "-." for ending in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"no file {folder / names[1]} (nor unpacked); the folder is incomplete, download MNIST again")


def read_idx(path: Path, rank: int) -> UInt8[np.ndarray, "..."]:
    """A file of unsigned bytes in the idx format: 0, 0, 8, the rank, the sizes as big-endian int32, the values.

    No more is read, and unpacked, than the header promises. Raises `InputError` where the file holds anything else.
    """
    start = 4 + 4 * rank
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(start)
            known = header[:4] == bytes((0, 0, 8, rank)) and len(header) == start
            shape = struct.unpack(f">{rank}i", header[4:]) if known else (-1,)
            if min(shape) < 0:
                raise InputError(f"{path} is no idx file of unsigned bytes in {rank} dimensions; download it again")
            promised = math.prod(shape)
            check_size(path, promised, path.stat().st_size)
            content = file.read(promised + 1)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is truncated or no gzip file ({error}); download it again") from error
    if len(content) != promised:
        holds = f"more than {promised}" if len(content) > promised else len(content)
        raise InputError(f"{path} holds {holds} values, its header says {shape}; download it again")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _from_npz(path: Path, split: str) -> ArrayDataset:
    arrays = load_npz(path, [f"{split}_images", f"{split}_labels"])
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    if images.ndim != 2 or images.shape[1] != 784 or labels.shape != images.shape[:1]:
        raise InputError(
            f"{path}: {split}_images is {images.shape} and {split}_labels {labels.shape}, expected (n, 784) and (n,)"
        )
    labels = whole_numbers(f"{path}: {split}_labels", labels, 0, 9)
    pixels = _bytes(f"{path}: {split}_images", images)
    return image_dataset(f"mnist/{split}", pixels.reshape(-1, 28, 28, 1), labels)


def _bytes(where: str, pixels: np.ndarray) -> UInt8[np.ndarray, "..."]:
    """Whole numbers from 0 to 255 as they are; those that were divided by 255, as in CS188's file, multiplied by it."""
    if pixels.dtype.kind in "iu":
        return whole_numbers(where, pixels, 0, 255).astype(np.uint8)
    if pixels.dtype.kind != "f" or (pixels.size and not (pixels.min() >= 0 and pixels.max() <= 1)):  # nor is a NaN
        extremes = f" from {pixels.min()} to {pixels.max()}" if pixels.dtype.kind == "f" else ""
        raise InputError(f"{where} holds {pixels.dtype}{extremes}, expected floats from 0 to 1, or integers to 255")
    return np.rint(pixels * 255).astype(np.uint8)
