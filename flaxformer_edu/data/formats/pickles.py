"""Pickles of plain containers and uint8 arrays, read without trusting them.

A pickle is a program: unpickling one can run anything. Here the only names it may look up are those with which NumPy
rebuilds an array, and each stands for a harmless class of ours that just keeps what it is given.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from flaxformer_edu.errors import InputError


class _Type:
    """Stands for `numpy.ndarray` and for `numpy.dtype("u1")`."""

    def __init__(self, name: object = "", *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands for the empty array that NumPy's pickles fill by their state: version, shape, dtype, order, bytes."""

    def __init__(self, *_: object) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran_order, content = state
        if dtype.name not in ("u1", b"u1") or not isinstance(content, bytes):
            raise pickle.UnpicklingError("only arrays of uint8 are read")
        self.array = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran_order else "C")


def _encode(text: str, encoding: str) -> bytes:
    """Stands for `_codecs.encode`, by which Python 3 writes bytes in old pickles."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"unexpected encoding {encoding!r}")
    return text.encode("latin1")


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Type,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle._Unpickler):  # the one in Python: that in C asks for the memory that a pickle names
    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which is refused") from None


def load_arrays(path: Path) -> dict[Any, Any]:
    """The pickled dict in a file, with its arrays. Strings of Python 2 stay bytes.

    Raises `InputError` where the file is missing, damaged, holds anything else, or asks for code to run.
    """
    try:
        content = _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        return {key: value.array if isinstance(value, _Array) else value for key, value in content.items()}
    except FileNotFoundError as error:
        raise InputError(f"no file {path}; the folder is incomplete, unpack it again") from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise InputError(f"{path} is damaged or no pickled batch ({error}); unpack it again") from error
