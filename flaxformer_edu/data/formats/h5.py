"""HDF5 files of plain arrays: written with checksums over numbers and headers, and read without trusting them."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from flaxformer_edu.data.formats.checks import check_size
from flaxformer_edu.errors import InputError

_REMEDY = "download or unpack it again"


def write_h5(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """A file of the arrays: in HDF5's version 1.10 headers have checksums, and the numbers get fletcher32's."""
    import h5py

    with h5py.File(path, "w", libver="v110") as file:
        for key, array in arrays.items():
            file.create_dataset(key, data=array, compression="gzip", compression_opts=1, fletcher32=True)


def read_h5(path: Path, keys: list[str]) -> dict[str, np.ndarray]:
    """The data sets `keys` of an HDF5 file, whole.

    Raises `InputError`, naming the file and the key, where one is missing or damaged, was never written, holds no
    numbers or those of another file, or promises more than the file can hold.
    """
    import h5py

    if not path.is_file():
        raise InputError(f"no file {path}; the folder is incomplete, unpack or download it again")
    try:
        with h5py.File(path, "r") as file:
            for key in keys:
                if key in file and not isinstance(file.get(key, getlink=True), h5py.HardLink):
                    raise InputError(f"{path}: '{key}' is a link to another place, which is not followed; replace it")
                if not isinstance(file.get(key), h5py.Dataset):
                    raise InputError(f"{path} has no data set '{key}' (it has {', '.join(file) or 'none'}); replace it")
            return {key: _read_whole(path, file[key]) for key in keys}
    except InputError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        raise InputError(f"{path} is truncated or no HDF5 file; {_REMEDY} ({error})") from error


def _read_whole(path: Path, dataset: Any) -> np.ndarray:
    where = f"{path}: {str(dataset.name).lstrip('/')}"
    if dataset.dtype.kind not in "iuf" or dataset.shape is None or dataset.external or dataset.is_virtual:
        raise InputError(f"{where} is no array of numbers that is in this file itself; replace it")
    promised = math.prod(map(int, dataset.shape)) * dataset.dtype.itemsize
    check_size(where, promised, min(dataset.id.get_storage_size(), path.stat().st_size))
    if dataset.chunks is not None:
        chunks = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        missing = chunks - dataset.id.get_num_chunks()
    else:
        missing = int(promised > dataset.id.get_storage_size())
    if missing:
        raise InputError(f"{where} was never written whole ({missing} chunks are missing); {_REMEDY}")
    return np.asarray(dataset)
