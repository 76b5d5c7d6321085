"""One door for all formats: which reader a file needs, what all readers have in common."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from flaxformer_edu.convert.readers.archive import Archive
from flaxformer_edu.convert.readers.google_npz import read_npz
from flaxformer_edu.convert.readers.safetensors_files import read_safetensors
from flaxformer_edu.convert.readers.torch_zip import read_torch
from flaxformer_edu.errors import InputError

IN_A_FOLDER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel and torch.compile put these before all names
LARGEST_INDEX = 16 << 20  # bytes; that of a model with 1,000 shards has 10 MB


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint by name, as read-only arrays mapped from the file; bfloat16 is that of ml_dtypes.

    `path` is a PyTorch zip file, a .safetensors or .npz file, the index (.index.json) of one in several shards, or a
    folder with one of these under Hugging Face's name. Nothing is copied unless the file is compressed, so the file
    must stay unchanged while its arrays are in use. Views and shared storages stay views. What
    `DistributedDataParallel` and `torch.compile` put before all names is taken off; of a training checkpoint only the
    weights are given (`find_weights` says which those are).

    The checksums that zip files keep are compared once: a damaged .pth or .npz file never gives wrong numbers.
    .safetensors files have none. Their header must describe the file byte by byte, but a flipped bit in a number, or in
    a name, goes unnoticed: compare the file's own checksum if its publisher gives one.

    Raises `InputError` where the file is missing, damaged, of another format, asks to run code, or holds anything but
    tensors of real or complex numbers, integers or booleans.
    """
    path = Path(path)
    try:
        file = _file(path)
        weights = _read_sharded(file) if file.name.endswith(".index.json") else _read_one(file)
    except InputError:
        raise
    except Exception as error:  # there is no end to the ways in which a damaged file can fail
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {error!s:.300}); get the file again"
        ) from error
    if not weights:
        raise InputError(f"{path} holds no tensors")
    return _without_wrappers(weights)


def _file(path: Path) -> Path:
    """The file itself, or the one in a folder that holds the weights."""
    if not path.exists():
        raise InputError(f"no file {path}")
    if not path.is_dir():
        return path
    found = [path / name for name in IN_A_FOLDER if (path / name).is_file()]
    if not found:
        raise InputError(f"the folder {path} holds none of {', '.join(IN_A_FOLDER)}; give the file itself")
    return found[0]


def _read_one(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a single file."""
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    with Archive(path) as archive:
        return read_npz(archive) if archive.names[0].endswith(".npy") else read_torch(archive)


def _read_sharded(index: Path) -> dict[str, np.ndarray]:
    """The tensors of all shards that an index names; each shard must hold exactly what the index says."""
    if index.stat().st_size > LARGEST_INDEX:
        raise InputError(f"{index} has more than {LARGEST_INDEX} bytes, which no index needs")
    shards: dict[str, set[str]] = {}
    for name, shard in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items():
        shards.setdefault(shard, set()).add(name)
    absent = [shard for shard in shards if Path(shard).name != shard or not (index.parent / shard).is_file()]
    if absent:
        raise InputError(f"{index} names {_some(absent)}, and there are no such files beside it")
    weights: dict[str, np.ndarray] = {}
    for shard, names in shards.items():
        tensors = _read_one(index.parent / shard)
        if tensors.keys() != names:
            wrong = sorted(tensors.keys() ^ names)
            raise InputError(f"{index} and {shard} disagree about {_some(wrong)}; get both files again")
        weights |= tensors
    return weights


def _some(names: list[str]) -> str:
    return ", ".join(f"{name!r:.80}" for name in names[:3])


def _without_wrappers(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    while any(_all_begin(weights, prefix) for prefix in WRAPPERS):
        weights = {name.partition(".")[2]: array for name, array in weights.items()}
    return weights


def _all_begin(names: Iterable[str], prefix: str) -> bool:
    return all(name.startswith(prefix) for name in names)
