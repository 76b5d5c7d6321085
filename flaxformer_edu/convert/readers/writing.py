"""Weights as a file for PyTorch (or transformers), written without it."""

import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from flaxformer_edu.convert.readers.archive import LOCAL_HEADER
from flaxformer_edu.convert.readers.dtypes import DTYPES, SAFETENSORS, TORCH_STORAGES
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import written_file

ALIGNMENT = 64  # bytes, as in torch.save
ZIP64_FIELD = 20  # bytes in a member's header for sizes above 4 GiB
STORAGES = {name: storage for storage, name in TORCH_STORAGES.items()}


def write(
    path: str | os.PathLike[str], weights: Mapping[str, Any], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays by name to a .safetensors file, a .pth (.pt, .bin) file that `torch.load` reads, or an .npz file.

    `read` gives the same names, shapes, types and bits back. Views and shared arrays are written in full. The file
    appears under its name when it is complete, so it may replace the one that the arrays are mapped from. `metadata`
    are words kept in the header of a .safetensors file; the others have no place for them, and leave them out.
    Raises `InputError` for another ending, a missing folder, or an array whose type the format does not have.
    """
    path = Path(path)
    if path.suffix not in FORMATS or not path.parent.is_dir():
        raise InputError(f"cannot write {path}: its folder must exist and its name end in {', '.join(FORMATS)}")
    save, types = FORMATS[path.suffix]
    arrays = {name: np.asarray(array, order="C") for name, array in weights.items()}
    strange = [f"{name} ({array.dtype})" for name, array in arrays.items() if not _fits(name, array, types)]
    if strange:
        raise InputError(f"{path} cannot hold {', '.join(strange[:5])}: cast them to one of {', '.join(sorted(types))}")
    with written_file(path) as draft:
        save(draft, arrays, metadata or {})


def _fits(name: Any, array: np.ndarray, types: set[str]) -> bool:
    return isinstance(name, str) and array.dtype.name in types and array.dtype == DTYPES[array.dtype.name]


def _write_safetensors(path: Path, arrays: dict[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    try:
        save_file(arrays, path, metadata={**metadata, "format": "pt"})  # transformers refuses a file without it
    except SafetensorError as error:  # what an OSError is to the library
        raise OSError(error) from error


def _write_npz(path: Path, arrays: dict[str, np.ndarray], _: Mapping[str, str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _write_torch(path: Path, arrays: dict[str, np.ndarray], _: Mapping[str, str]) -> None:
    """The format of torch/serialization.py: a pickled dictionary of tensors, and the bytes of each as a member."""
    contents = {f"archive/data/{key}": array.reshape(-1).view(np.uint8) for key, array in enumerate(arrays.values())}
    members = {"archive/data.pkl": _pickle(arrays), "archive/byteorder": b"little", **contents, "archive/version": b"3"}
    with path.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            member = zipfile.ZipInfo(name)
            member.extra = _padding(file.tell() + LOCAL_HEADER.size + len(name) + ZIP64_FIELD)
            with archive.open(member, "w", force_zip64=True) as target:
                target.write(content)


def _padding(position: int) -> bytes:
    """A zip header's extra field, as torch.save makes it, after which the content begins at a multiple of ALIGNMENT."""
    length = -(position + 4) % ALIGNMENT
    return b"FB" + length.to_bytes(2, "little") + bytes(length)


def _pickle(arrays: dict[str, np.ndarray]) -> bytes:
    """The dictionary of tensors: PyTorch's functions by name, called with each tensor's storage and shape."""
    program = [pickle.PROTO + b"\2", pickle.EMPTY_DICT, pickle.MARK]
    for key, (name, array) in enumerate(arrays.items()):
        strides = tuple(stride // array.itemsize for stride in array.strides)
        storage = _tuple(
            _plain("storage"), _name("torch", STORAGES[array.dtype.name]), *map(_plain, (str(key), "cpu", array.size))
        )
        hooks = _name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
        tensor = _tuple(storage + pickle.BINPERSID, *map(_plain, (0, array.shape, strides, False)), hooks)
        program += [_plain(name), _name("torch._utils", "_rebuild_tensor_v2"), tensor, pickle.REDUCE]
    return b"".join([*program, pickle.SETITEMS, pickle.STOP])


def _name(module: str, name: str) -> bytes:
    """The instructions that look a name up; nothing else could, where PyTorch is not installed."""
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _plain(value: str | int | tuple[int, ...] | bool) -> bytes:
    """The instructions that make a plain value: a pickle of it without its first and last instruction."""
    return pickle.dumps(value, protocol=2)[2:-1]


def _tuple(*values: bytes) -> bytes:
    """The instructions that make a tuple of what these make."""
    return pickle.MARK + b"".join(values) + pickle.TUPLE


# By a name's ending, what writes such a file, and the types that it can hold.
FORMATS: dict[str, tuple[Callable[[Path, dict[str, np.ndarray], Mapping[str, str]], None], set[str]]] = {
    ".safetensors": (_write_safetensors, set(SAFETENSORS.values())),
    **dict.fromkeys((".pth", ".pt", ".bin"), (_write_torch, set(STORAGES))),
    ".npz": (_write_npz, set(DTYPES) - {"bfloat16"}),
}
