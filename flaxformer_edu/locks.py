"""One process at a time: a lock on a file, which the system takes from a process that dies, whatever it dies of.

It is `flock`. Over NFS, Linux makes it a lock of the file's server, which holds between machines as long as the server
runs its lock service and is not mounted with `nolock` or `local_lock`; a file system that knows no locks is named in a
line on standard error, and then nothing is locked. Neither is anything on Windows, which has no `flock`.
"""

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from flaxformer_edu.errors import InputError
from flaxformer_edu.files import make_folder

try:
    import fcntl
except ImportError:
    fcntl = None

UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_held: set[IO[str]] = set()


@contextmanager
def locked(path: Path, busy: Callable[[str], object]) -> Iterator[None]:
    """Hold the lock; the file, which says who holds it, is deleted at the end.

    Where another process has it, or another thread, `busy` is called with who that is, "process 12 on snail": it raises
    an error, or returns to wait. Raises InputError where the file cannot be written.
    """
    if fcntl is None:
        yield
        return
    make_folder(path.parent)
    file = _acquire(path, busy)
    _held.add(file)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is locked, so that nobody holds a file that is about to go
        _held.discard(file)
        file.close()


def wait(holder: str) -> None:
    """For `busy`: say so, and wait."""
    print(f"waiting: {holder} is at it already", file=sys.stderr)


def _acquire(path: Path, busy: Callable[[str], object]) -> IO[str]:
    while True:
        try:
            file = path.open("a+")
        except OSError as error:
            raise InputError(f"{path.parent} cannot be written ({error.strerror}): choose another place") from error
        try:
            _lock(file, path, busy)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}")
                file.flush()
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # the one that held it has deleted it: this was a lock on nothing


def _lock(file: IO[str], path: Path, busy: Callable[[str], object]) -> None:
    assert fcntl is not None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        busy(file.read() or "another process")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        print(f"{path.parent} cannot be locked ({error.strerror}): let only one process use it", file=sys.stderr)


def _leave_to_parent() -> None:
    """A forked child does not keep what its parent has locked."""
    for file in _held:
        file.close()
    _held.clear()


if fcntl is not None:
    os.register_at_fork(after_in_child=_leave_to_parent)
