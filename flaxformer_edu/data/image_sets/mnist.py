"""MNIST (Y. LeCun, C. Cortes and C. Burges), from the original idx files or from CS188's npz."""

import gzip
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8

from flaxformer_edu.data.arrays import ArrayDataset, Pixels
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
    """A file of unsigned bytes in the idx format: 0, 0, 8, the rank, the sizes as big-endian int32, the values."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path} is truncated or no gzip file ({error}); download it again") from error
    start = 4 + 4 * rank
    if content[:4] != bytes((0, 0, 8, rank)) or len(content) < start:
        raise InputError(f"{path} is no idx file of unsigned bytes in {rank} dimensions; download it again")
    shape = tuple(int(size) for size in np.frombuffer(content, ">i4", rank, offset=4))
    if len(content) - start != np.prod(shape, dtype=np.int64):
        raise InputError(f"{path} holds {len(content) - start} values, its header says {shape}; download it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _from_npz(path: Path, split: str) -> ArrayDataset:
    arrays = load_npz(path, [f"{split}_images", f"{split}_labels"])
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    if images.ndim != 2 or images.shape[1] != 784 or labels.shape != images.shape[:1]:
        raise InputError(
            f"{path}: {split}_images is {images.shape} and {split}_labels {labels.shape}, expected (n, 784) and (n,)"
        )
    pixels = np.rint(images * 255).astype(np.uint8)  # stored as uint8 / 255
    return image_dataset(f"mnist/{split}", pixels.reshape(-1, 28, 28, 1), labels)
