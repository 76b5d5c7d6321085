"""NumPy's npz files, read without pickles, and only as far as their headers promise what the file can hold."""

import math
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from flaxformer_edu.data.formats.checks import check_size
from flaxformer_edu.errors import InputError

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def load_npz(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays named `keys`.

    Raises `InputError` where the file or a key is missing, the file is damaged, or it promises more than it can hold.
    """
    if not path.is_file():
        raise InputError(f"no file {path}; it comes with the CS188 project that uses it")
    try:
        with zipfile.ZipFile(path) as archive:
            there = [name.removesuffix(".npy") for name in archive.namelist()]
            missing = [key for key in keys if key not in there]
            if missing:
                raise InputError(f"{path} has no array {', '.join(missing)} (it has {', '.join(there)}); replace it")
            return {key: _read_member(path, archive, key) for key in keys}
    except InputError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        raise InputError(f"{path} is truncated or no npz file ({error}); replace it") from error


def _read_member(path: Path, archive: zipfile.ZipFile, key: str) -> np.ndarray:
    info = archive.getinfo(f"{key}.npy")
    with archive.open(info) as member:
        shape, _, dtype = _HEADERS[npy.read_magic(member)](member)
        promised, said = math.prod(shape) * dtype.itemsize, info.file_size - member.tell()
    if dtype.hasobject or dtype.itemsize == 0 or min(shape, default=0) < 0:
        raise InputError(f"{path}: {key} is {dtype}{shape}, which is not read; replace it")
    check_size(f"{path}: {key}", max(promised, said), min(info.compress_size, path.stat().st_size))
    if promised != said:
        raise InputError(f"{path}: {key} holds {said:,} bytes, its header says {promised:,}; replace it")
    with archive.open(info) as member:
        array = npy.read_array(member, allow_pickle=False)
    if dtype.kind == "U":
        letters = np.ascontiguousarray(array).view(np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if letters.max(initial=0) > sys.maxunicode:  # of which Python makes no string
            raise InputError(f"{path}: {key} holds letters that there are not; the file is damaged, replace it")
    return array
