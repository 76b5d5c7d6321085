"""NumPy's .npz files, as Google publishes its Vision Transformers: zip files of one array per member, no pickles."""

import io
import math

import numpy as np

from flaxformer_edu.convert.readers.archive import Archive
from flaxformer_edu.convert.readers.dtypes import DTYPES
from flaxformer_edu.errors import InputError

LONGEST_HEADER = 1 << 16  # bytes


def read_npz(archive: Archive) -> dict[str, np.ndarray]:
    """The arrays by name, such as `Transformer/encoderblock_0/LayerNorm_0/scale`, mapped.

    `numpy.load` would trust an array's header and allocate what it says; here it must fit the member exactly.
    Raises `InputError` where it does not, or an array holds objects, text or records.
    """
    strange = [name for name in archive.names if not name.endswith(".npy")]
    if strange:
        raise InputError(f"{archive.path} has a member {strange[0]!r:.100}, which is no .npy array; it is no .npz file")
    return {name.removesuffix(".npy"): _array(archive, name) for name in archive.names}


def _array(archive: Archive, name: str) -> np.ndarray:
    """One array, by the header in front of it."""
    content = archive.read(name)
    header = io.BytesIO(content[:LONGEST_HEADER])
    versions = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, fortran_order, dtype = versions[np.lib.format.read_magic(header)](header)
    if dtype.str == "|V2":  # NumPy forgets the name of bfloat16; google-research/big_vision reads it back like this
        dtype = DTYPES["bfloat16"]
    if dtype not in DTYPES.values():
        raise InputError(f"{archive.path} holds no numbers in {name!r:.100} but {dtype!s:.100}; save it without")
    if header.tell() + math.prod(shape) * dtype.itemsize != len(content):
        raise InputError(f"{archive.path}: the array {name!r:.100} of shape {shape} has another size; get it again")
    return np.ndarray(shape, dtype, content, header.tell(), order="F" if fortran_order else "C")
