"""One process at a time writes to a folder or downloads a file; one that is killed leaves no lock behind."""

import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from rich.console import Console
from training.tiny import Source, Tiny, TinyConfig, loss_fn, tiny

from flaxformer_edu.data.captions.drawn import default_folder
from flaxformer_edu.errors import InputError
from flaxformer_edu.locks import locked
from flaxformer_edu.runs import open_model, save_model
from flaxformer_edu.training import LoopConfig, Optimizer, fit

HOLD = """
import sys
from pathlib import Path
from flaxformer_edu.locks import locked, wait
with locked(Path(sys.argv[1]), wait):
    print("locked", flush=True)
    sys.stdin.read()
"""
FORK = """
import os, sys
from pathlib import Path
from flaxformer_edu.locks import locked, wait
with locked(Path(sys.argv[1]), wait):
    if os.fork() == 0:
        print("forked", flush=True)
        sys.stdin.read()
        os._exit(0)
    sys.stdin.read()
"""
FETCH = "from flaxformer_edu.commands.data import fetch; fetch('pictures')"
DOWNLOAD = """
import sys
from pathlib import Path
from flaxformer_edu.download import RemoteFile, download
url, sha256, folder = sys.argv[1:]
print(download(RemoteFile(url=url, size=7, sha256=sha256), Path(folder)).read_text())
"""


@contextmanager
def process(program: str, *arguments: object) -> Iterator[subprocess.Popen]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    root = str(Path(__file__).parent.parent)
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, **pipes, env={**os.environ, "PYTHONPATH": root}) as started:
        yield started
        started.kill()


@contextmanager
def another_holds(path: Path) -> Iterator[subprocess.Popen]:
    with process(HOLD, path) as other:
        assert other.stdout.readline() == "locked\n"
        yield other


def train(folder: Path, source: Source | None = None):
    options = {"folder": folder, "console": Console(file=io.StringIO())}
    return fit(tiny(), loss_fn, Optimizer(), source or Source(), LoopConfig(steps=2), **options)


def test_a_second_process_is_refused_and_readers_are_not(tmp_path):
    train(tmp_path)
    with another_holds(tmp_path / ".lock") as other:
        holder = f"in use by process {other.pid} on {socket.gethostname()}: wait"
        with pytest.raises(InputError, match=f"{tmp_path} is {holder}"):
            train(tmp_path)
        open_model(tmp_path, classes=[Tiny, TinyConfig])
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert (tmp_path / ".lock").exists()  # the file is left, but nobody holds it
    train(tmp_path)
    assert not (tmp_path / ".lock").exists()


def test_a_model_is_not_saved_where_another_process_saves_one(tmp_path):
    save_model(tmp_path, tiny())
    with another_holds(tmp_path / ".lock") as other, pytest.raises(InputError, match=f"in use by process {other.pid}"):
        save_model(tmp_path, tiny())
    save_model(tmp_path, tiny())


def test_a_run_holds_its_folder_from_start_to_end(tmp_path):
    class Intruding(Source):
        compared = False  # the first batch, before the folder is held

        def __call__(self, step):
            if self.compared:
                with pytest.raises(InputError, match=f"in use by process {os.getpid()} on "):
                    train(tmp_path)
            self.compared = True
            return super().__call__(step)

    train(tmp_path, Intruding())


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    with process(FORK, tmp_path / "lock") as parent:
        assert parent.stdout.readline() == "forked\n"
        parent.kill()
        parent.wait()
        with locked(tmp_path / "lock", pytest.fail):  # the child is still there, until its standard input ends
            assert (tmp_path / "lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}"


def released_in_between(lock: Path, make: Callable[[], object], program: str, *arguments: object) -> str:
    """What the program prints, which waits for a lock of this process until `make()` has done the work."""
    with ExitStack() as lock_held:
        lock_held.enter_context(locked(lock, pytest.fail))
        with process(program, *arguments) as second:
            holder = f"process {os.getpid()} on {socket.gethostname()}"
            assert second.stderr.readline() == f"waiting: {holder} is at it already\n"
            make()
            lock_held.close()
            return second.communicate()[0]


def test_a_second_download_waits_and_finds_the_work_done(tmp_path):
    """There is no server: the file comes from the process that was first."""

    def make():
        (tmp_path / "a.bin").write_bytes(b"content")

    arguments = "http://127.0.0.1:9/a.bin", hashlib.sha256(b"content").hexdigest(), tmp_path
    assert released_in_between(tmp_path / ".a.bin.lock", make, DOWNLOAD, *arguments) == "content\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_the_same_data_fetched_twice_at_once(tmp_path, monkeypatch):
    """The second one does not draw again what is there then."""
    monkeypatch.setenv("FLAXFORMER_EDU_CACHE", str(tmp_path))
    place = default_folder()
    said = released_in_between(place.parent / f".{place.name}.lock", place.mkdir, FETCH)
    assert said == f"pictures is in {place}\n"
