"""Downloading one file: with a time limit, a checksum, and nothing left behind that was not checked."""

import hashlib
from dataclasses import dataclass
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from urllib.parse import urlsplit

from flaxformer_edu.errors import InputError
from flaxformer_edu.files import written_file
from flaxformer_edu.locks import locked, wait

TIMEOUT = 15.0  # seconds without an answer, or without a byte, after which a server counts as unreachable
LARGEST_FILE = 20_000_000_000  # bytes, where no size was published
_CHUNK = 1 << 18
_REMEDY = "delete it and fetch it again"
_ELSEWHERE = "the server holds another file, so get it in another way"


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file at a URL, its size in bytes and the SHA-256 that was published for it, each None where unknown.

    PyTorch publishes only the beginning of a SHA-256: that much is compared.
    """

    url: str
    size: int | None
    sha256: str | None

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return Path(urlsplit(self.url).path).name


def download(remote: RemoteFile, folder: Path, timeout: float = TIMEOUT) -> Path:
    """The file in `folder`: the one that is there if its checksum is right, else downloaded with a progress bar.

    Where another process is downloading it at the same time, this one waits, and finds it there.
    Raises `InputError` at once where the server cannot be reached or does not have the file (with the way to put it
    there by hand), and where the size or the checksum differs; no more than the published size is ever written.
    """
    target = folder / remote.name
    if not target.is_file():
        with locked(folder / f".{remote.name}.lock", wait):
            if not target.is_file():
                _fetch(remote, target, timeout)
                return target
    check(target, remote)
    return target


def _fetch(remote: RemoteFile, target: Path, timeout: float) -> None:
    with written_file(target) as draft:
        try:
            _stream(remote, draft, timeout)
        except (OSError, HTTPException) as error:  # of the network: URLError, HTTPError and time-outs are OSErrors
            raise InputError(
                f"cannot download {remote.url} ({error}); get the file in another way, put it at {target} and run again"
            ) from error
        check(draft, remote)


def check(path: Path, remote: RemoteFile) -> None:
    """Raise `InputError` unless size and SHA-256 of the file are those published."""
    size = path.stat().st_size
    if remote.size not in (None, size):
        raise InputError(f"{path.with_name(remote.name)} has {size} bytes, expected {remote.size}; {_REMEDY}")
    if remote.sha256 is not None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if not digest.startswith(remote.sha256):
            raise InputError(f"{path.with_name(remote.name)} has SHA-256 {digest}, expected {remote.sha256}; {_REMEDY}")


def _stream(remote: RemoteFile, target: Path, timeout: float) -> None:
    from urllib.request import urlopen

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        urlopen(remote.url, timeout=timeout) as answer,
        target.open("wb") as file,
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
    ):
        most = LARGEST_FILE if remote.size is None else remote.size
        if (answer.length or 0) > most:  # as announced
            raise InputError(f"{remote.url} has {answer.length:,} bytes, expected {most:,} at most; {_ELSEWHERE}")
        task = progress.add_task(remote.name, total=remote.size)
        while chunk := answer.read(_CHUNK):
            if file.tell() + len(chunk) > most:
                raise InputError(f"{remote.url} goes on after the {most:,} bytes expected at most; {_ELSEWHERE}")
            file.write(chunk)
            progress.advance(task, len(chunk))
        if answer.length:  # of what was announced
            raise IncompleteRead(b"", answer.length)
