"""Zip files of tensors: members found, checked and mapped, never unpacked to disk.

The standard library reads the table at the end of the file. It is not believed: each member's own header must agree
with it, no two members may share a name or a byte, and content is given only after its checksum was compared.
"""

import itertools
import mmap
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from flaxformer_edu.errors import InputError

LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # signature, 5 fields, checksum and sizes, lengths of name and extra field
BEGIN = b"PK\x03\x04"
ENCRYPTED = 0x1
UTF8 = 0x800
LONGEST_DESCRIPTOR = 24  # bytes that may follow a member: its checksum and sizes once more
CHUNK = 1 << 20
LEGACY_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # a pickle of PyTorch's magic number


class Archive:
    """A zip file, open for reading. `names` are its members; `read` gives their bytes.

    Memory: stored members are mapped; compressed ones may unpack to at most `limit` bytes together.
    Raises `InputError` where the file is no zip file or contradicts itself.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file = path.open("rb")
        try:
            self._open()
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> None:
        if self._file.read(4) != BEGIN:
            raise InputError(f"{self.path} {self._not_a_zip()}")
        self._map = memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))
        self.limit = 10 * len(self._map) + (32 << 20)
        with zipfile.ZipFile(self._file) as table:
            members = table.infolist()
            self._starts = self._check(members, table.start_dir)
        self._members = {member.orig_filename: member for member in members}
        self.names = list(self._members)

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file; what `read` gave stays mapped until nobody holds it."""
        self._file.close()

    def read(self, name: str) -> memoryview:
        """A member's bytes. Raises `InputError` where there is none of this name, or its checksum is wrong."""
        if name not in self._members:
            raise InputError(f"{self.path} has no member {name!r:.100}; the file is incomplete, get it again")
        member, start = self._members[name], self._starts[name]
        content = self._map[start : start + member.compress_size]
        if member.compress_type == zipfile.ZIP_DEFLATED:
            content = memoryview(zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, member.file_size + 1))
            checksum = zlib.crc32(content)
        else:
            checksum = self._checksum(start, member.compress_size)
        if len(content) != member.file_size or checksum != member.CRC:
            raise InputError(
                f"{self.path} is damaged: the checksum of {name!r:.100} is wrong; get the file again "
                "(one saved by PyTorch with set_crc32_options(False) has no checksums: save it with them)"
            )
        return content

    def _checksum(self, start: int, size: int) -> int:
        """The CRC-32 of a part of the file, read and not mapped, so that only what is used later takes memory."""
        self._file.seek(start)
        checksum, buffer = 0, memoryview(bytearray(min(size, CHUNK)))
        while size:
            count = self._file.readinto(buffer[: min(size, CHUNK)])
            if not count:
                raise InputError(f"{self.path} was cut short while it was read")
            checksum = zlib.crc32(buffer[:count], checksum)
            size -= count
        return checksum

    def _check(self, members: list[zipfile.ZipInfo], table: int) -> dict[str, int]:
        """Where each member's content begins, up to the table.

        Raises `InputError` where the headers disagree with the table: it must not hide a member by leaving it out.
        """
        if not members or sum(member.file_size for member in members) > self.limit:
            raise InputError(f"{self.path} is empty, or would unpack to more than {self.limit} bytes")
        starts: dict[str, int] = {}
        members = sorted(members, key=lambda member: member.header_offset)
        for member, following in itertools.zip_longest(members, members[1:]):
            if member.orig_filename in starts:
                raise self._contradiction(member, "occurs twice")
            starts[member.orig_filename] = start = self._start(member)
            gap = (following.header_offset if following else table) - (start + member.compress_size)
            if not 0 <= gap <= LONGEST_DESCRIPTOR:
                raise self._contradiction(member, "lies over another one, or is followed by one that is not listed")
        return starts

    def _start(self, member: zipfile.ZipInfo) -> int:
        """Where a member's content begins, by the header in front of it, which must agree with the table."""
        begin = member.header_offset + LOCAL_HEADER.size
        header = bytes(self._map[member.header_offset : begin])
        if len(header) < LOCAL_HEADER.size or header[:4] != BEGIN:
            raise self._contradiction(member, "is not where the table says")
        _, _, flags, method, *_, name_length, extra_length = LOCAL_HEADER.unpack(header)
        start = begin + name_length + extra_length
        encoding = "utf-8" if member.flag_bits & UTF8 else "cp437"
        if self._map[begin : begin + name_length] != member.orig_filename.encode(encoding):
            raise self._contradiction(member, "has another name in its own header")
        if _leads_out(member.orig_filename):
            raise self._contradiction(member, "names a place outside the archive")
        if (flags | member.flag_bits) & ENCRYPTED:
            raise self._contradiction(member, "is encrypted")
        if method != member.compress_type or method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self._contradiction(member, "is packed by another method than deflate")
        if method == zipfile.ZIP_STORED and member.compress_size != member.file_size:
            raise self._contradiction(member, "has two sizes")
        return start

    def _contradiction(self, member: zipfile.ZipInfo, problem: str) -> InputError:
        name = member.orig_filename
        return InputError(f"{self.path} is damaged or hostile: its member {name!r:.100} {problem}; get the file again")

    def _not_a_zip(self) -> str:
        """What the file is, and what to do."""
        self._file.seek(0)
        begin = self._file.read(64)
        if begin.startswith(LEGACY_TORCH):
            return (
                "was saved in the format that PyTorch had before version 1.6; "
                "save it again with a current PyTorch: torch.save(torch.load(path, weights_only=True), path)"
            )
        if begin.startswith(b"version https://git-lfs"):
            return "is a pointer of Git LFS, not the weights; fetch them with: git lfs pull"
        return "is neither a PyTorch zip file nor .npz (.safetensors files are known by their ending), or is damaged"


def _leads_out(name: str) -> bool:
    """Whether a path leads out of the folder that it is unpacked in."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or "\0" in name
