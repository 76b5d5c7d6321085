"""Files for the readers' tests: checkpoints made by hand, byte by byte where PyTorch would not make them."""

import io
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


def zip_bytes(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file with these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def checkpoint(program: bytes, storages: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file as torch.save makes it, of a pickle and the storages' bytes."""
    members = {f"archive/data/{key}": content for key, content in (storages or {}).items()}
    return zip_bytes({"archive/data.pkl": program, **members}, method)


def saved(content: Any) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def plain(value: Any) -> bytes:
    """The pickle instructions that make a value."""
    return pickle.dumps(value, 2)[2:-1]


def storage_program(size: int) -> bytes:
    """The pickle instructions that make the storage `0` of that many float32 numbers."""
    return b"(" + plain("storage") + b"ctorch\nFloatStorage\n" + plain("0") + plain("cpu") + plain(size) + b"tQ"


def tensor_program(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, size: int = 4) -> bytes:
    """The pickle of {"w": a tensor}, a part of the storage `0`, made as is."""
    arguments = b"(" + storage_program(size) + plain(offset) + plain(shape) + plain(strides) + plain(False) + b")t"
    return b"\x80\x02}" + plain("w") + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


def npy(header: str, content: bytes = b"") -> bytes:
    """A .npy file with this text for a header."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


def bits(array: np.ndarray | torch.Tensor) -> bytes:
    """An array's elements, bit by bit."""
    if isinstance(array, torch.Tensor):
        compact = array.detach().clone(memory_format=torch.contiguous_format).reshape(-1)
        return compact.view(torch.uint8).numpy().tobytes()
    return array.tobytes()


def weights() -> OrderedDict[str, torch.Tensor]:
    """A small state dict with several types, a view and a shared storage."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(4, 6, generator=generator)
    return OrderedDict(
        {
            "embedding.weight": table,
            "head.weight": table,
            "head.transposed": table.T[1:5, ::2],
            "norm.weight": torch.randn(5, generator=generator).bfloat16(),
            "norm.count": torch.tensor(7),
            "mask": torch.tensor([True, False, True]),
        }
    )


@dataclass(frozen=True)
class Member:
    """A zip member whose headers say what they like."""

    name: str
    content: bytes
    size: int | None = None  # what the headers say it has unpacked
    checksum: int | None = None
    method: int = zipfile.ZIP_STORED
    flags: int = 0
    own_name: str | None = None  # in the header in front of it
    offset: int | None = None  # where the table says it begins; then it is not written again
    length: int | None = None  # what the table says it has packed


def forged_zip(*members: Member) -> bytes:
    """A zip file of these members, written as is."""
    body, table = b"", b""
    for member in members:
        length = len(member.content) if member.length is None else member.length
        size = length if member.size is None else member.size
        checksum = zlib.crc32(member.content) if member.checksum is None else member.checksum
        name, own_name = member.name.encode(), (member.own_name or member.name).encode()
        start = len(body) if member.offset is None else member.offset
        common = (20, member.flags, member.method, 0, 0, checksum, length, size)
        if member.offset is None:
            body += struct.pack("<4s5H3L2H", b"PK\3\4", *common, len(own_name), 0) + own_name + member.content
        table += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *common, len(name), 0, 0, 0, 0, 0, start) + name
    count = len(members)
    return body + table + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(table), len(body), 0)
