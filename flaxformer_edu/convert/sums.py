"""SHA256SUMS beside converted files: damage is found when they are opened, by us or by `sha256sum --check`."""

import hashlib
import re
from pathlib import Path

from flaxformer_edu.errors import InputError
from flaxformer_edu.files import write_text

SUMS = "SHA256SUMS"
LARGEST_LIST = 1 << 20  # bytes
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\\0]+)")


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of each file in the folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != SUMS)
    write_text(folder / SUMS, "".join(f"{_sha256(path)}  {path.name}\n" for path in files))


def check_sums(folder: Path) -> bool:
    """Whether the folder has sums, and therefore is as it was written. Raises InputError where a file is not."""
    path = folder / SUMS
    if not path.is_file():
        return False
    content = path.read_bytes()[:LARGEST_LIST]
    lines = [_LINE.fullmatch(line) for line in content.decode("utf-8", "replace").splitlines()]
    if not content.endswith(b"\n") or not all(lines):
        raise InputError(f"{path} is damaged: convert the model again, or delete the file to go on without checking")
    for sha256, name in [line.groups() for line in lines if line]:
        file = folder / name
        if not file.is_file() or _sha256(file) != sha256:
            raise InputError(
                f"{file} is not as it was written, by {SUMS} beside it: convert the model again. If you have changed "
                f"the file yourself, delete {SUMS}"
            )
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
