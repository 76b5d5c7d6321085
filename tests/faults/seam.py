"""A disk that fails at a moment of one's choice, as far as Python reads and writes: no preloading and no file system.

Python's `open`, as it is written in Python, goes through a class for the bare file that can be replaced; so pathlib,
zipfile, json, NumPy and what calls them read and write through ours.
"""

import _pyio
import builtins
import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

Kind = Literal["read", "write"]


class Disk:
    """Counts the reads, or the writes, of files below a folder, from the start; the one numbered `at` fails.

    It fails by an error of the system, or if `error` is None by giving, or taking, fewer bytes than it might.
    """

    def __init__(self, folder: Path, kind: Kind, *, at: int | None = None, error: int | None = None):
        self.folder, self.kind, self.at, self.error, self.seen = str(folder), kind, at, error, 0

    def shorten(self, name: object, kind: Kind, size: int) -> int:
        """How many of `size` bytes are read, or written; raises the error."""
        if kind != self.kind or not str(name).startswith(self.folder):
            return size
        self.seen += 1
        if self.seen - 1 != self.at:
            return size
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error), str(name))
        return max(1, size // 2) if size else 0


@contextmanager
def failing(disk: Disk) -> Iterator[Disk]:
    """While it lasts, Python's files are on this disk."""

    class File(_pyio.FileIO):
        def read(self, size=None):
            if size is None or size < 0:
                return self.readall()
            return super().read(disk.shorten(self.name, "read", size))

        def readinto(self, buffer):
            view = memoryview(buffer).cast("B")
            return super().readinto(view[: disk.shorten(self.name, "read", len(view))])

        def readall(self):
            return b"".join(iter(lambda: self.read(1 << 16), b""))

        def write(self, content):
            content = bytes(content)  # not a view, which the error would keep
            return super().write(content[: disk.shorten(self.name, "write", len(content))])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_pyio, "FileIO", File)
        patch.setattr(io, "open", _pyio.open)
        patch.setattr(builtins, "open", _pyio.open)
        yield disk


ERRORS = {"no space": errno.ENOSPC, "a fault": errno.EIO, "short": None}
