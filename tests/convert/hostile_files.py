"""Hostile files that ask for memory, time or places they should not have: by what they do, a name and the bytes."""

import dataclasses
import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from convert.readers_helpers import (
    Member,
    checkpoint,
    forged_zip,
    npy,
    plain,
    saved,
    storage_program,
    tensor_program,
    weights,
    zip_bytes,
)

ZEROS = bytes(100 << 20)
GOOD = saved(weights())
ENCRYPTED, BZIP2 = 1, 12


def program(instructions: bytes) -> bytes:
    return checkpoint(b"\x80\x02" + instructions + b".", {"0": bytes(16)})


def function(name: str) -> bytes:
    return f"ctorch._utils\n{name}\n".encode()


def tensor(*place: Any, **size: int) -> bytes:
    return checkpoint(tensor_program(*place, **size), {"0": bytes(16)})


def zip_of(*members: Member) -> bytes:
    """A checkpoint that is in order but for these further members."""
    return forged_zip(
        Member("archive/data.pkl", tensor_program((4,), (1,))), Member("archive/data/0", bytes(16)), *members
    )


def inside_another() -> bytes:
    """An archive whose last member is a part of the one before it."""
    inner = Member("archive/data/2", b"x")
    within = forged_zip(inner)[: 30 + len(inner.name) + len(inner.content)]
    outer = Member("archive/data/1", within)
    return zip_of(outer, dataclasses.replace(inner, offset=zip_of(outer).index(within)))


def deflated(content: bytes) -> bytes:
    return zlib.compress(content, wbits=-15)


def repeated_views() -> bytes:
    table = torch.zeros(1 << 18)
    return saved({str(number): table.view(1 << 9, 1 << 9) for number in range(100)})


def tensors_in(header: dict[str, Any] | str, content: bytes = bytes(16)) -> bytes:
    """A safetensors file with this header."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + content


def entry(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def index(shard: str) -> bytes:
    return json.dumps({"weight_map": {"a": shard}}).encode()


def pickled_array() -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, a=np.array([print], dtype=object))
    return file.getvalue()


def header(text: str) -> bytes:
    return zip_bytes({"a.npy": npy(text)})


LAUGHS = b")" + b"q\x09h\x09\x86" * 64  # a tuple of two tuples of two tuples: 2 ** 64 leaves
DEEP = b")" + b"\x85" * 50_000
WIDE = b"(" + b"K\x01" * 100_000 + b"tq\x09"

PICKLES: dict[str, Callable[[], bytes]] = {
    "a huge memo index": lambda: program(b"}r\xff\xff\xff\x7f"),
    "bytes of a terabyte": lambda: program(b"\x8e" + struct.pack("<Q", 1 << 40)),
    "a byte array of a terabyte": lambda: program(b"\x96" + struct.pack("<Q", 1 << 40)),
    "text of two gigabytes": lambda: program(b"X\xff\xff\xff\x7f"),
    "a frame of an exabyte": lambda: program(b"\x95" + struct.pack("<Q", 1 << 60) + b"}"),
    "a number of a gigabyte": lambda: program(b"\x8b\xff\xff\xff\x3f"),
    "a thousand million laughs": lambda: program(LAUGHS),
    "laughs as a key": lambda: program(b"}" + LAUGHS + b"Ns"),
    "depth": lambda: program(DEEP),
    "depth as a key": lambda: program(b"}" + DEEP + b"Ns"),
    "laughing dictionaries": lambda: program(b"}" + (b"q\x09}(" + plain("a") + b"h\x09" + plain("b") + b"h\x09u") * 64),
    "itself": lambda: program(b"}q\x09" + plain("model") + b"h\x09s"),
    "too many instructions": lambda: program(b"]" * (8 << 20)),
    "too long a pickle": lambda: checkpoint(b"\x80\x02X" + struct.pack("<I", 20 << 20) + bytes(20 << 20) + b"."),
    "a hundred thousand arguments": lambda: program(WIDE + b"cargparse\nNamespace\nh\x09R" * 9_000),
    "a hundred thousand axes": lambda: program(
        WIDE + (function("_rebuild_tensor_v2") + b"(" + storage_program(4) + b"K\x00h\x09h\x09\x89)tR") * 900
    ),
    "attributes of a function": lambda: program(function("_rebuild_tensor_v2") + b"}" + plain("__code__") + b"Nsb"),
    "slots of a function": lambda: program(function("_rebuild_tensor_v2") + b"N}" + plain("__doc__") + b"Ns\x86b"),
    "the state of a type": lambda: program(
        b"ctorch\nFloatStorage\n" + plain((3, "<", None, None, None, -1, -1, 0)) + b"b"
    ),
    "entries of a function": lambda: program(function("_rebuild_parameter") + b"NNs"),
    "a list that is none": lambda: program(b"}Na"),
    "a call of text": lambda: program(plain("os.system") + b")R"),
    "a call of a type": lambda: program(b"ctorch\nFloatStorage\n)R"),
    "a call of a tensor": lambda: program(tensor_program((4,), (1,))[2:-1] + b")R"),
    "an extension": lambda: program(b"\x82\x01"),
    "values never made": lambda: program(b"R"),
    "marks never made": lambda: program(b"u"),
    "a storage of no kind": lambda: program(plain(("storage", "os.system", "0", "cpu", 4)) + b"Q"),
    "a storage elsewhere": lambda: program(plain("/etc/passwd") + b"Q"),
    "a key with escape codes": lambda: program(b"}" + plain("\x1b[2J" * 9_000) + b"Ns"),
}

TENSORS: dict[str, Callable[[], bytes]] = {
    "one number too many": lambda: tensor((5,), (1,)),
    "an offset too far": lambda: tensor((1,), (1,), offset=4),
    "an offset before": lambda: tensor((1,), (1,), offset=-1),
    "strides too long": lambda: tensor((2, 2), (3, 1)),
    "strides backwards": lambda: tensor((4,), (-1,), offset=3),
    "an exabyte": lambda: tensor((1 << 58,), (1,)),
    "an exabyte of nothing": lambda: tensor((1 << 62, 0, 1 << 62), (0, 0, 0)),
    "sizes beyond 64 bits": lambda: tensor((1 << 64, 0), (0, 0)),
    "one number a million million times": lambda: tensor((1 << 40,), (0,)),
    "negative sizes": lambda: tensor((-4,), (1,)),
    "fractions of sizes": lambda: tensor((2.0,), (1,)),
    "more strides than sizes": lambda: tensor((2,), (1, 1)),
    "a storage said to be larger": lambda: tensor((8,), (1,), size=8),
    "a storage said to be smaller": lambda: tensor((2,), (1,), size=2),
    "a storage of a negative size": lambda: tensor((4,), (1,), size=-4),
    "no storage": lambda: checkpoint(tensor_program((4,), (1,))),
    "one storage a hundred times": repeated_views,
}

ZIPS: dict[str, Callable[[], bytes]] = {
    "a bomb": lambda: checkpoint(tensor_program((26 << 20,), (1,), size=26 << 20), {"0": ZEROS}, zipfile.ZIP_DEFLATED),
    "a bomb of a pickle": lambda: checkpoint(b"\x80\x02" + b"]" * (40 << 20), method=zipfile.ZIP_DEFLATED),
    "a bomb that lies": lambda: forged_zip(Member("archive/data.pkl", deflated(ZEROS), 16, method=8)),
    "members over each other": lambda: zip_of(Member("archive/data/1", bytes(16), offset=0)),
    "a member inside another": inside_another,
    "a name twice": lambda: zip_of(Member("archive/data/0", bytes(16))),
    "two pickles": lambda: zip_of(Member("other/data.pkl", tensor_program((4,), (1,)))),
    "another name in front": lambda: zip_of(Member("archive/a", b"x", own_name="archive/b")),
    "a name with a null": lambda: zip_of(Member("archive/a\0b", b"x")),
    "a way out": lambda: zip_of(Member("../../ran", b"x")),
    "a way out by a backslash": lambda: zip_of(Member("archive\\..\\..\\ran", b"x")),
    "an absolute place": lambda: zip_of(Member("/tmp/ran", b"x")),
    "a wrong checksum": lambda: forged_zip(Member("archive/data.pkl", tensor_program((4,), (1,)), checksum=1)),
    "a member beyond the end": lambda: zip_of(Member("archive/a", b"x", length=1 << 31)),
    "a member that begins beyond": lambda: zip_of(Member("archive/a", b"x", offset=1 << 31)),
    "two sizes": lambda: zip_of(Member("archive/a", b"x", 1 << 20)),
    "encrypted": lambda: zip_of(Member("archive/a", b"x", flags=ENCRYPTED)),
    "another compression": lambda: zip_of(Member("archive/a", b"x", method=BZIP2)),
    "an archive in an archive": lambda: zip_bytes({"archive/archive.pth": GOOD}),
    "big-endian numbers": lambda: zip_of(Member("archive/byteorder", b"big")),
    "nothing": lambda: forged_zip(),
    "a pickle and no archive": lambda: pickle.dumps({"a": 1}, 2),
}

ARRAYS: dict[str, Callable[[], bytes]] = {
    "pickled objects": pickled_array,
    "an array of a petabyte": lambda: header(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1125899906842624,)}\n"
    ),
    "a negative size": lambda: header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 0)}\n"),
    "code in a header": lambda: header("{'descr': __import__('os').system('touch ran')}\n"),
    "a deep header": lambda: header("(" * 9_000),
    "a long header": lambda: header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "0," * 20_000 + ")}\n"),
    "records": lambda: header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (0,)}\n"),
    "text": lambda: header("{'descr': '<U8', 'fortran_order': False, 'shape': (0,)}\n"),
    "big-endian": lambda: header("{'descr': '>f4', 'fortran_order': False, 'shape': (0,)}\n"),
    "another version": lambda: zip_bytes({"a.npy": b"\x93NUMPY\x09\x00"}),
    "no array": lambda: zip_bytes({"a.npy": npy("{}"), "b.txt": b""}),
    "a bomb": lambda: zip_bytes({"a.npy": ZEROS}, zipfile.ZIP_DEFLATED),
}

SAFETENSORS: dict[str, Callable[[], bytes]] = {
    "a header of an exabyte": lambda: struct.pack("<Q", 1 << 60) + bytes(64),
    "a header past the end": lambda: struct.pack("<Q", 65) + bytes(64),
    "a tensor past the end": lambda: tensors_in({"a": entry(0, 32, [8])}),
    "tensors over each other": lambda: tensors_in({"a": entry(0, 16, [4]), "b": entry(0, 16, [4])}),
    "a hole": lambda: tensors_in({"a": entry(8, 16, [2])}),
    "bytes of nobody": lambda: tensors_in({"a": entry(0, 8, [2])}),
    "a size that is another": lambda: tensors_in({"a": entry(0, 16, [5])}),
    "sizes beyond 64 bits": lambda: tensors_in({"a": entry(0, 16, [1 << 63, 1 << 63])}),
    "a negative size": lambda: tensors_in({"a": entry(0, 16, [-4])}),
    "an unknown type": lambda: tensors_in({"a": entry(0, 16, [4], "O")}),
    "a name twice": lambda: tensors_in(
        '{"a":' + json.dumps(entry(0, 8, [2])) + ',"a":' + json.dumps(entry(8, 16, [2])) + "}"
    ),
    "depth": lambda: tensors_in("[" * 100_000),
    "no dictionary": lambda: tensors_in("[]"),
    "nothing": lambda: b"",
}

INDEXES: dict[str, Callable[[], bytes]] = {
    "a way out": lambda: index("../good.pth"),
    "an absolute place": lambda: index("/etc/passwd"),
    "itself": lambda: index("model.safetensors.index.json"),
    "its folder": lambda: index("."),
    "depth": lambda: b"[" * 100_000,
    "a list": lambda: b"[1]",
    "numbers for names": lambda: b'{"weight_map": {"a": 1}}',
}

FILES = {
    f"{suffix}: {name}": (f"evil.{suffix}", make)
    for suffix, files in {
        "pth": PICKLES | TENSORS | ZIPS,
        "npz": ARRAYS,
        "safetensors": SAFETENSORS,
        "safetensors.index.json": INDEXES,
    }.items()
    for name, make in files.items()
}
