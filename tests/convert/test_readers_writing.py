"""Writing: PyTorch, safetensors and our own reader give back the same names, types, shapes and bits."""

import os
import re
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from convert.readers_helpers import bits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from flaxformer_edu.convert import read, write
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx

SHARED_TYPES = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "complex64",
    "bool",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    dtype = np.dtype(draw(st.sampled_from(SHARED_TYPES)))
    shape = draw(npst.array_shapes(min_dims=0, min_side=0, max_dims=5, max_side=3))
    raw = draw(npst.arrays(np.uint8, (int(np.prod(shape)) * dtype.itemsize,)))
    array = ((raw % 2).astype(bool) if dtype == np.bool_ else raw.view(dtype)).reshape(shape)
    return array.T if draw(st.booleans()) else array


@settings(max_examples=60, deadline=None)
@given(content=st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), arrays(), min_size=1))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, content: dict[str, np.ndarray]):
    folder = tmp_path_factory.mktemp("written")
    content = {f"{name}.weight": array for name, array in content.items()}
    write(folder / "w.pth", content)
    write(folder / "w.safetensors", content)
    theirs = torch.load(folder / "w.pth", weights_only=True), safetensors.torch.load_file(folder / "w.safetensors")
    for path, tensors in zip((folder / "w.pth", folder / "w.safetensors"), theirs, strict=True):
        ours = read(path)
        stripped = {name.removeprefix("module.").removeprefix("_orig_mod.") for name in content}
        assert ours.keys() == (content.keys() if ours.keys() == content.keys() else stripped)
        assert tensors.keys() == content.keys()
        for name, array in content.items():
            assert tuple(tensors[name].shape) == array.shape
            assert str(tensors[name].dtype) == f"torch.{array.dtype.name}"
            assert bits(tensors[name]) == bits(array)
        for array, name in zip(ours.values(), ours, strict=True):
            if name in content:
                assert (array.dtype, array.shape) == (content[name].dtype, content[name].shape)
                assert bits(array) == bits(content[name])


def test_torch_loads_it_in_every_way(tmp_path: Path):
    model = torch.nn.TransformerEncoderLayer(8, 2, 16)
    write(tmp_path / "w.pt", {name: tensor.numpy() for name, tensor in model.state_dict().items()})
    for options in ({}, {"mmap": True}, {"weights_only": False}):
        loaded = torch.load(tmp_path / "w.pt", **options)
        torch.nn.TransformerEncoderLayer(8, 2, 16).load_state_dict(loaded, strict=True)
        assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
    with zipfile.ZipFile(tmp_path / "w.pt") as archive:
        assert archive.testzip() is None
    assert all(array.ctypes.data % 64 == 0 for array in read(tmp_path / "w.pt").values())


def test_transformers_finds_the_format_in_the_metadata(tmp_path: Path):
    write(tmp_path / "model.safetensors", {"w": np.ones(2, ml_dtypes.bfloat16)})
    with safetensors.safe_open(tmp_path / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.npz"])
def test_a_file_may_replace_the_one_its_arrays_come_from(tmp_path: Path, name: str):
    write(tmp_path / name, {"a": np.arange(5.0), "b": np.ones((2, 2))})
    write(tmp_path / name, {key: array for key, array in read(tmp_path / name).items() if key == "a"})
    assert read(tmp_path / name)["a"].tolist() == [0, 1, 2, 3, 4]
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path):
    (tmp_path / "w.pth").mkdir()
    with pytest.raises(InputError, match=r"w\.pth is a folder: choose the name of a file"):
        write(tmp_path / "w.pth", {"a": np.ones(2)})
    assert [file.name for file in tmp_path.iterdir()] == ["w.pth"]


@pytest.mark.parametrize("ending", [".pth", ".safetensors", ".npz"])
def test_a_pipe_stays_a_pipe(tmp_path: Path, ending: str):
    os.mkfifo(tmp_path / f"w{ending}")
    with ThreadPoolExecutor() as pool:
        content = pool.submit((tmp_path / f"w{ending}").read_bytes)
        write(tmp_path / f"w{ending}", {"a": np.ones(100_000)})
        (tmp_path / f"copy{ending}").write_bytes(content.result())
    assert (tmp_path / f"w{ending}").is_fifo()
    assert read(tmp_path / f"copy{ending}")["a"].sum() == 100_000


@pytest.mark.parametrize("ending", [".pth", ".safetensors", ".npz"])
def test_a_full_disk_is_named(tmp_path: Path, ending: str):
    """The process may write 1,000 bytes in a file, and no more: what a full disk is to a program."""
    program = """if True:
        import resource, signal, sys
        import numpy as np
        from flaxformer_edu.convert.readers import write
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
        try:
            write(sys.argv[1], {"a": np.ones(100_000)})
        except ValueError as error:
            print(error)
    """
    command = [sys.executable, "-c", program, str(tmp_path / f"w{ending}")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.match(rf"{tmp_path}/w\{ending} cannot be written \(.*File too large", done.stdout)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("w.h5", np.ones(2), "end in .safetensors, .pth, .pt, .bin, .npz"),
        ("w.npz", np.ones(2, ml_dtypes.bfloat16), r"weight \(bfloat16\): cast them"),
        ("nowhere/w.pth", np.ones(2), "folder must exist"),
        ("w.pth", np.ones(2, ml_dtypes.float8_e5m2), r"weight \(float8_e5m2\): cast them"),
        ("w.pth", np.ones(2, np.uint32), r"weight \(uint32\)"),
        ("w.safetensors", np.ones(2, np.complex128), r"weight \(complex128\)"),
        ("w.safetensors", np.ones(2, ">f4"), r"weight \(>f4\)"),
        ("w.pth", np.array(["text"]), "cast them"),
    ],
)
def test_what_a_format_cannot_hold(tmp_path: Path, name: str, array: np.ndarray, message: str):
    with pytest.raises(InputError, match=message):
        write(tmp_path / name, {"weight": array})
    assert list(tmp_path.iterdir()) == []


def test_any_name_is_a_name(tmp_path: Path):
    for ending in (".npz", ".pth", ".safetensors"):
        write(tmp_path / f"w{ending}", {"file": np.ones(2), "allow_pickle": np.zeros((0, 3)), "a/b": np.array(3)})
        assert read(tmp_path / f"w{ending}").keys() == {"file", "allow_pickle", "a/b"}
        assert read(tmp_path / f"w{ending}")["allow_pickle"].shape == (0, 3)
