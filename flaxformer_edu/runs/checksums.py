"""A checksum for every file of a checkpoint, written before the checkpoint appears and checked when it is opened.

It is zlib's CRC-32: it finds every changed bit, and random damage but for one case in four billion, at 3 GB/s. SHA-256
at 0.8 GB/s made saving a ViT-B/16 slower by a fifth. Neither protects from somebody who changes both file and sum.
"""

import json
import zlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from flaxformer_edu.errors import InputError
from flaxformer_edu.files import read_json_object, write_text

CHECKSUMS, MODEL_FILE = "checksums", "model.json"
EARLIER_MODEL_FILE = "model.json.earlier"  # while another model is being saved in the place of one
_CHUNK = 1 << 20


class DamagedError(InputError):
    """A checkpoint is not as it was written, or is none."""


def write_checksums(checkpoint: Path, step: int) -> None:
    """Write down the size and the CRC-32 of all files of the checkpoint, and of the model.json that belongs to it.

    `checkpoint` may still have a temporary name in its folder; `step` is what it will be called. The list ends with its
    own CRC-32.
    """
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    described = _described(checkpoint)
    with ThreadPoolExecutor() as pool:
        sums = pool.map(checksum, files)
        listed = {path.relative_to(checkpoint).as_posix(): found for path, found in zip(files, sums, strict=True)}
    own = checksum(described) if described.exists() else None
    text = json.dumps({"step": step, MODEL_FILE: own, "files": listed})
    write_text(checkpoint / CHECKSUMS, f"{text}\n{zlib.crc32(text.encode()):08x}\n")


def check(checkpoint: Path, groups: Collection[str]) -> bool:
    """Whether the checkpoint has checksums, and therefore is as it was written; of `groups` every byte is read.

    Of its other groups the files' sizes are compared. Raises DamagedError for what is damaged or no checkpoint.
    """
    try:
        listed = _read_checksums(checkpoint)
        if listed is None:
            _check_groups(checkpoint)
        else:
            _compare(checkpoint, listed["files"], groups)
    except OSError as error:  # of the disk, or a file that another process has just deleted
        raise DamagedError(f"{checkpoint} cannot be read ({error})") from None
    return listed is not None


def described_by(checkpoint: Path) -> Path:
    """The model.json that the checkpoint was written with: the earlier one where saving another model was cut short.

    Raises InputError where it is neither.
    """
    listed, described = _read_checksums(checkpoint), _described(checkpoint)
    if listed is None or listed[MODEL_FILE] is None:
        return described
    for path in (described, described.with_name(EARLIER_MODEL_FILE)):
        if path.is_file() and checksum(path) == listed[MODEL_FILE]:
            return path
    raise InputError(f"{described} is not as it was when {checkpoint} was written: put the right one back")


def checksum(path: Path) -> list[int]:
    """The size of the file in bytes, and the CRC-32 of its content."""
    size, value, buffer = 0, 0, memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            size, value = size + count, zlib.crc32(buffer[:count], value)
    return [size, value]


@cache
def checked_commit() -> Any:
    """Orbax's way to make a checkpoint appear, by renaming its temporary folder, with checksums written before that."""
    from orbax.checkpoint.path import atomicity

    suffix = atomicity.TMP_DIR_SUFFIX
    whole = f"{suffix}-whole"

    class CheckedPath(atomicity.AtomicRenameTemporaryPath):
        """Orbax finishes the folder under a name that is still temporary; then come the checksums and the real name."""

        @classmethod
        def from_final(cls, final_path: Any, **options: Any) -> Any:
            if suffix in final_path.parent.name:  # a group within a checkpoint, which has no checksums of its own
                return atomicity.AtomicRenameTemporaryPath.from_final(final_path, **options)
            return super().from_final(final_path.with_name(final_path.name + whole), **options)

        def get_final(self) -> Any:
            written = super().get_final()
            return written.with_name(written.name.partition(suffix)[0])

        async def finalize(self) -> None:
            await super().finalize()
            written = Path(super().get_final())
            write_checksums(written, int(self.get_final().name))
            written.rename(self.get_final())

    return CheckedPath


def _described(checkpoint: Path) -> Path:
    """The model.json of the run's or the saved model's folder, in whose `checkpoints` this one is."""
    return checkpoint.parent.parent / MODEL_FILE


def _check_groups(checkpoint: Path) -> None:
    """Without checksums there is only Orbax's note of which groups it wrote."""
    try:
        noted = tuple(read_json_object(checkpoint / "_CHECKPOINT_METADATA")["item_handlers"])
    except (InputError, KeyError, TypeError):
        noted = ()
    missing = [name for name in dict.fromkeys(("params", *noted)) if not (checkpoint / name).is_dir()]
    if missing:
        raise DamagedError(f"{checkpoint} is damaged, or no checkpoint: it holds no {', '.join(missing)}")


def _read_checksums(checkpoint: Path) -> dict[str, Any] | None:
    """What `write_checksums` wrote; None in a checkpoint of earlier versions, which has no such file."""
    try:
        content = (checkpoint / CHECKSUMS).read_bytes()
    except FileNotFoundError:
        return None
    text = content.partition(b"\n")[0]
    if content != text + f"\n{zlib.crc32(text):08x}\n".encode():
        raise DamagedError(f"{checkpoint} is damaged: {CHECKSUMS} is not as it was written")
    listed = json.loads(text)
    if str(listed["step"]) != checkpoint.name:
        raise DamagedError(f"{checkpoint} is damaged: it was written as checkpoint {listed['step']}")
    return listed


def _compare(checkpoint: Path, files: dict[str, list[int]], groups: Collection[str]) -> None:
    problems = [_size_problem(checkpoint, name, size) for name, (size, _) in files.items()]
    if not any(problems):
        read = [name for name in files if "/" not in name or name.partition("/")[0] in (*groups, "metrics")]
        with ThreadPoolExecutor() as pool:
            sums = pool.map(checksum, [checkpoint / name for name in read])
            found = dict(zip(read, sums, strict=True))
        problems = [f"{name} is not as it was written" for name in read if found[name] != files[name]]
    if named := [problem for problem in problems if problem is not None]:
        more = f", and {len(named) - 1} more such files" if len(named) > 1 else ""
        raise DamagedError(f"{checkpoint} is damaged: {named[0]}{more}")


def _size_problem(checkpoint: Path, name: str, size: int) -> str | None:
    path = checkpoint / name
    if not path.is_file():
        return f"{name} is missing"
    found = path.stat().st_size
    return None if found == size else f"{name} has {found} bytes, expected {size}"
