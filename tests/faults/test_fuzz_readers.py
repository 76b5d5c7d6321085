"""Whatever a file holds, its reader gives something or an InputError: in time, in little memory, executing nothing."""

import os
import signal
import struct
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis
import pytest
from faults.readable import Kind, kinds
from hypothesis import strategies as st

from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.one_mode
SECONDS = 10
MEMORY = 256 << 20  # bytes, besides twice the file
EXECUTED = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "shutil.rmtree"}
NAMES = [
    *("w.pth", "w.npz", "w.safetensors", "run.npz", "lang_id.npz", "mnist.npz", "captions.h5", "data_batch_1"),
    *("images-idx3-ubyte", "images-idx3-ubyte.gz", "vocab.json", "metrics.jsonl", "captions.tsv", "captions.json"),
    *("picture.png", "picture.jpeg", "picture.gif", "picture.tiff"),
]
SIZES = [0, 1, -1, 127, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1]
TEXTS = [b"NaN", b"-1", b"1e999", b"null", b"[]", b"{}", b'""', b"\xff", b"\0", b"9" * 400, b"[" * 3000, b"../../a"]
TEXTS += [struct.pack(form, size) for size in SIZES for form in ("<q", ">q")]
TEXTS += [struct.pack(form, size & 0xFFFFFFFF) for size in SIZES for form in ("<I", ">I")]
OTHERS = [b"cos\nsystem\n(S'touch executed'\ntR.", b"PK\3\4", b"\x89HDF\r\n\x1a\n", b"\x93NUMPY\1\0", b"\x1f\x8b"]

# A place, as a share of the part; what is done there; and with what.
Change = tuple[float, str, bytes, int]
changes = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["flip", "flip", "overwrite", "overwrite", "insert", "delete", "repeat", "cut"]),
        st.one_of(st.sampled_from(TEXTS + OTHERS), st.binary(min_size=1, max_size=8)),
        st.integers(0, 63),
    ),
    min_size=1,
    max_size=4,
)


def changed(content: bytes, steps: list[Change]) -> bytes:
    """The content with each change made, one after the other."""
    for share, how, new, number in steps:
        place = int(share * len(content))
        before, after = content[:place], content[place:]
        content = {
            "flip": before + bytes(byte ^ 1 << number % 8 for byte in after[:1]) + after[1:],
            "overwrite": before + new + after[len(new) :],
            "insert": before + new + after,
            "delete": before + after[1 + number :],
            "repeat": before + after[: 1 + number] * (2 + number % 3) + after,
            "cut": before,
        }[how]
    return content


@cache
def seeds() -> dict[str, Kind]:
    """The files that are changed, by their names."""
    with TemporaryDirectory() as folder:
        return dict(kinds(Path(folder)))


_executed: list[tuple[str, Any]] = []
_watching = False


def _note(event: str, details: Any) -> None:
    if _watching and event in EXECUTED:
        _executed.append((event, details))


sys.addaudithook(_note)


@contextmanager
def watched(size: int) -> Iterator[None]:
    """Fail where what is done takes too long, or too much memory for a file of that size, or executes anything."""
    global _watching

    def late(*_: object) -> None:
        raise AssertionError(f"it takes more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    tracemalloc.start()
    _executed.clear()
    _watching = True
    try:
        yield
    finally:
        _watching = False
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert peak <= 2 * size + MEMORY
    assert not _executed


@pytest.mark.filterwarnings("ignore")  # of libraries, about what is damaged
@pytest.mark.parametrize(
    ("name", "examples"),
    [
        *((name, 8) for name in NAMES),
        *(pytest.param(name, 1500, marks=pytest.mark.slow) for name in NAMES),
    ],
)
def test_readers(name: str, examples: int, outcomes: Counter[str]):
    """Harmless is what could be read: most formats do not say what was written."""
    kind = seeds()[name]

    @hypothesis.settings(
        max_examples=examples,
        derandomize=examples < 100,  # the long form tries other files each time
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],  # to make a finding smaller takes longer than to read it
    )
    @hypothesis.given(st.sampled_from(sorted(kind.parts)), st.booleans(), changes)
    def fuzz(part: str, packed: bool, steps: list[Change]) -> None:
        if packed:
            content = changed(kind.join(kind.parts), steps)
        else:
            content = kind.join({**kind.parts, part: changed(kind.parts[part], steps)})
        outcomes[outcome(kind, name, content)] += 1

    assert outcome(kind, name, kind.join(kind.parts)) == "harmless"
    fuzz()


def outcome(kind: Kind, name: str, content: bytes) -> str:
    """What the reader makes of the content; other errors than InputError come through."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            with watched(len(content)):
                kind.read(path)
        except InputError:
            return "refused"
        finally:
            assert not os.path.lexists("executed")
    return "harmless"
