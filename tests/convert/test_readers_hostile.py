"""Hostile files: none runs anything or takes more memory than the bound, and each is refused by one clear error."""

import contextlib
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convert.hostile_files import FILES, TENSORS
from convert.readers_helpers import checkpoint, plain, tensor_program, weights

from flaxformer_edu.convert import read
from flaxformer_edu.convert.readers.pickle_machine import Refused, run
from flaxformer_edu.convert.readers.torch_zip import NAMES
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx

MOST_MEMORY = 128 << 20  # bytes, beside sixteen times the file's size
FORBIDDEN = {"os.system", "os.mkdir", "subprocess.Popen", "pickle.find_class", "exec", "socket.connect", "import"}

watching: list[str] | None = None


def note(event: str, _: tuple[Any, ...]) -> None:
    if watching is not None and event in FORBIDDEN:
        watching.append(event)


sys.addaudithook(note)  # Python itself reports what is run; a hook stays, so it listens only where asked to


@contextlib.contextmanager
def watch() -> Iterator[list[str]]:
    """The forbidden events while the block runs."""
    global watching
    watching = events = []
    try:
        yield events
    finally:
        watching = None


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function: Callable, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


COMMAND = "touch ran"
OS = b"cimportlib\nimport_module\n" + plain("os") + b"\x85R"
LIVE = {  # instructions that make Python's own unpickler leave a file or folder `ran` behind
    "os.system": plain(Call(os.system, COMMAND)),
    "eval": plain(Call(eval, "open('ran', 'w').close()")),
    "exec": plain(Call(exec, "open('ran', 'w').close()")),
    "subprocess": plain(Call(subprocess.check_call, ["touch", "ran"])),
    "mkdir": plain(Call(os.mkdir, "ran")),
    "method": plain(Call(Path.touch, Path("ran"))),
    "map": plain(Call(list, Call(map, os.system, [COMMAND]))),
    "getattr": b"cbuiltins\ngetattr\n" + OS + plain("system") + b"\x86R" + plain(COMMAND) + b"\x85R",
    "dotted name": b"\x80\x04" + plain("subprocess") + plain("os.system") + b"\x93" + plain(COMMAND) + b"\x85R",
    "INST": b"(" + plain(COMMAND) + b"ios\nsystem\n",
    "OBJ": b"(cos\nsystem\n" + plain(COMMAND) + b"o",
    "nested pickle": plain(Call(pickle.loads, pickle.dumps(Call(os.system, COMMAND), 2))),
}
WEIGHTS = tensor_program((4,), (1,))[2:-1]
PLACES = {  # where in a checkpoint the instructions stand
    "alone": b"%b",
    "beside the weights": b"}(" + plain("state_dict") + WEIGHTS + plain("epoch") + b"%bu",
    "as the state of the dictionary": b"ccollections\nOrderedDict\n)R(" + plain("model") + WEIGHTS + b"u%bb",
    "as the state of what is skipped": b"}("
    + plain("model")
    + WEIGHTS
    + plain("a")
    + b"cargparse\nNamespace\n)\x81%bbu",
    "as an argument": b"ccollections\nOrderedDict\n%b\x85R",
    "as a storage": b"%bQ",
    "as a key": b"}%b" + plain(1) + b"s",
}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unchecked: None) -> None:
    """Where hostile files may leave their traces; and a good file, read so that all modules are imported."""
    monkeypatch.chdir(tmp_path)
    torch.save({"model": weights()}, "good.pth")
    read("good.pth")
    np.savez_compressed("good.npz", a=np.ones(3))
    read("good.npz")


def assert_refused(name: str, content: bytes) -> None:
    """Reading raises InputError, runs nothing and stays within the bound."""
    Path(name).write_bytes(content)
    before = set(Path().iterdir())
    tracemalloc.start()
    try:
        with watch() as events, pytest.raises(InputError, match=name.replace(".", r"\.")) as error:
            read(name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert events == []
    assert peak < MOST_MEMORY + 16 * len(content)
    assert len(str(error.value)) < 1000
    assert set(Path().iterdir()) == before


@pytest.mark.parametrize("name", LIVE)
def test_python_itself_would_run_them(name: str):
    pickle.loads(b"\x80\x02" + LIVE[name] + b".")
    assert Path("ran").exists()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", LIVE)
def test_nothing_is_run(name: str, place: str):
    content = checkpoint(b"\x80\x02" + PLACES[place].replace(b"%b", LIVE[name]) + b".", {"0": bytes(16)})
    assert_refused("evil.pth", content)


@pytest.mark.parametrize("name", FILES)
def test_hostile_files_are_refused(name: str):
    file_name, make = FILES[name]
    assert_refused(file_name, make())


@pytest.mark.parametrize("name", ["one number too many", "an offset too far", "strides too long", "an exabyte"])
def test_tensors_beyond_their_storage_are_named(name: str):
    Path("evil.pth").write_bytes(TENSORS[name]())
    with pytest.raises(InputError, match="reaches beyond its storage"):
        read("evil.pth")


def test_a_function_gets_no_endless_arguments():
    """Handing over the same long tuple again and again would cost its length each time."""
    with pytest.raises(Refused, match="more arguments than any has"):
        run(b"\x80\x02cargparse\nNamespace\n" + plain(tuple(range(9))) + b"R.", NAMES, _no_storage)


def _no_storage(identifier: Any) -> None:
    raise AssertionError(f"asked for {identifier}")
