"""Safetensors files: the library checks the header, and the tensors are mapped where it says they lie."""

import mmap
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from flaxformer_edu.convert.readers.dtypes import DTYPES, SAFETENSORS
from flaxformer_edu.errors import InputError


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of one file, mapped. The format keeps no checksums: see `read`.

    The library makes sure that the tensors follow each other without gaps and end where the file ends, and gives their
    names in this order, so that their places follow from their sizes.
    Raises `InputError` where the header does not fit the file, or a tensor has a type such as float8.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            headers = {name: file.get_slice(name) for name in file.offset_keys()}
            shapes = {name: tuple(header.get_shape()) for name, header in headers.items()}
            types = {name: header.get_dtype() for name, header in headers.items()}
    except SafetensorError as error:
        raise InputError(f"{path} is damaged or no safetensors file ({error}); get the file again") from error
    unknown = sorted(set(types.values()) - SAFETENSORS.keys())
    if unknown:
        raise InputError(f"{path} has tensors of type {', '.join(unknown)}; save them as F32, F16 or BF16 instead")
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    dtypes = {name: DTYPES[SAFETENSORS[type_name]] for name, type_name in types.items()}
    start = 8 + int.from_bytes(content[:8], "little")  # the header's length comes first
    weights = {}
    for name, shape in shapes.items():
        weights[name] = np.ndarray(shape, dtypes[name], content, start)
        start += weights[name].nbytes
    return weights


def read_metadata(path: Path) -> dict[str, str]:
    """The words that stand beside the tensors in the file's header. Raises `InputError` where the file is damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise InputError(f"{path} is damaged or no safetensors file ({error}); get the file again") from error
