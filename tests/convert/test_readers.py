"""Reading: equal to what PyTorch, NumPy and safetensors read, bit by bit, without copies."""

import json
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from convert.readers_helpers import bits, weights
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxformer_edu.convert import read
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
)


def assert_equal(ours: dict[str, np.ndarray], theirs: dict[str, torch.Tensor]) -> None:
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert f"torch.{ours[name].dtype.name}" == str(tensor.dtype)
        assert ours[name].shape == tuple(tensor.shape)
        assert bits(ours[name]) == bits(tensor)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Random bits of a random type, seen through a random view."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    count = int(np.prod(shape)) * dtype.itemsize
    content = torch.tensor(list(draw(st.binary(min_size=count, max_size=count))), dtype=torch.uint8)
    tensor = (content % 2).bool().reshape(shape) if dtype == torch.bool else content.view(dtype).reshape(shape)
    if not shape:
        return tensor
    axis = draw(st.integers(0, len(shape) - 1))
    match draw(st.sampled_from(["whole", "transposed", "part", "steps", "one", "expanded", "parameter"])):
        case "transposed":
            return tensor.transpose(0, axis)
        case "part":
            return tensor.narrow(axis, shape[axis] // 2, shape[axis] - shape[axis] // 2)
        case "steps" if dtype.itemsize < 16:
            return tensor[(slice(None),) * axis + (slice(None, None, 2),)]
        case "one" if shape[axis]:
            return tensor.select(axis, shape[axis] - 1)
        case "expanded":
            return tensor.expand(3, *shape)
        case "parameter" if dtype.is_floating_point:
            return torch.nn.Parameter(tensor)
    return tensor


@settings(max_examples=150, deadline=None)
@given(content=st.dictionaries(st.text(max_size=8), tensors(), min_size=1, max_size=5), shared=st.booleans())
def test_reads_what_torch_saves(tmp_path_factory: pytest.TempPathFactory, content: dict, shared: bool):
    path = tmp_path_factory.mktemp("saved") / "weights.pth"
    if shared:
        content |= {f"{name} again": tensor for name, tensor in content.items()}
    torch.save(content, path)
    ours, theirs = read(path), torch.load(path)
    prefixed = all(name.startswith(("module.", "_orig_mod.")) for name in theirs)
    if not prefixed:
        assert_equal(ours, theirs)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol(tmp_path: Path, protocol: int):
    torch.save(weights(), tmp_path / "weights.pt", pickle_protocol=protocol)
    assert_equal(read(tmp_path / "weights.pt"), weights())


def test_a_module_and_its_optimizer(tmp_path: Path):
    model = torch.nn.TransformerEncoderLayer(8, 2, 16)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3, 8)).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, tmp_path / "a.pth")
    assert_equal(read(tmp_path / "a.pth"), model.state_dict())


def test_nothing_is_copied_and_shared_storages_stay_shared(tmp_path: Path):
    torch.save(weights(), tmp_path / "weights.pth")
    ours = read(tmp_path / "weights.pth")
    assert np.shares_memory(ours["embedding.weight"], ours["head.weight"])
    assert np.shares_memory(ours["embedding.weight"], ours["head.transposed"])
    assert not any(array.flags.writeable or array.flags.owndata for array in ours.values())


class Settings:
    """What a training script might save beside its weights, with a class of its own."""


HARMLESS = {
    "epoch": 3,
    "best": np.float64(0.75),
    "args": __import__("argparse").Namespace(lr=1e-3, names=["a"], path=None),
    "history": [(1, 2.5), {"loss": None}],
    "accuracy": torch.tensor(0.5),
    "rng": torch.get_rng_state(),
    "device": torch.device("cpu"),
    "dtype": torch.float32,
    "shape": torch.Size([1, 2]),
}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: {"state_dict": w, **HARMLESS},
        lambda w: {**HARMLESS, "model": w, "ema": OrderedDict(w)},
        lambda w: {"model_state_dict": w, "optimizer_state_dict": {"state": {0: {"step": torch.ones(1)}}}},
        lambda w: {"net": w, "acc": 91.5},
        lambda w: {"model": {"state_dict": w, "epoch": 1}, "extra": {"t": torch.ones(1)}},
        lambda w: {"the_weights": w, "epoch": 1, "the_same": w},
        lambda w: {f"module.{name}": tensor for name, tensor in w.items()},
        lambda w: {"state_dict": {f"module._orig_mod.{name}": tensor for name, tensor in w.items()}},
    ],
)
def test_wrappers_come_off(tmp_path: Path, wrap: Any):
    torch.save(wrap(weights()), tmp_path / "weights.pth")
    assert_equal(read(tmp_path / "weights.pth"), weights())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.nn.Linear(2, 3), r"'torch.nn.modules.linear.Linear'.*torch.save\(model.state_dict\(\), path\)"),
        ({"state_dict": weights(), "settings": Settings()}, "asks for .*Settings'"),
        (torch.ones(3), "it holds a Tensor, not a dictionary of tensors by name"),
        ([torch.ones(3)], "it holds a list"),
        ({}, "no tensors under names"),
        ({0: torch.ones(3)}, "no tensors under names"),
        ({"weight": torch.ones(3), "epoch": 3}, "'epoch': int"),
        ({"model": {"weight": torch.ones(3), "name": "vit"}, "epoch": 3}, "'name': str"),
        ({"student": weights(), "teacher": weights()}, "'student', 'teacher' are all weights, and only one"),
        ({"weight": torch.ones(2, 2).to_sparse()}, "_rebuild_sparse_tensor"),
        ({"weight": torch.ones(2, dtype=torch.complex64).conj()}, "conjugated"),
        ({"weight": torch.ones(2).to(torch.float8_e4m3fn)}, "float8_e4m3fn"),
        ({"weight": torch.empty(2, device="meta")}, "_rebuild_meta_tensor_no_storage"),
    ],
)
def test_anything_but_weights_is_refused(tmp_path: Path, content: Any, message: str):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=rf"weights\.pth.*{message}"):
        read(tmp_path / "weights.pth")


def test_other_files_are_refused_with_what_to_do(tmp_path: Path):
    torch.save(weights(), tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/data.pkl", b"")
        archive.writestr("script/constants.pkl", b"")
    (tmp_path / "pointer.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "page.safetensors").write_text("<html>")
    (tmp_path / "folder").mkdir()
    safetensors.torch.save_file({}, tmp_path / "none.safetensors")
    messages = {
        "legacy.pt": "before version 1.6; save it again",
        "script.pt": "TorchScript",
        "pointer.bin": "git lfs pull",
        "empty.pth": "neither a PyTorch zip file nor .npz",
        "page.safetensors": "damaged or no safetensors file",
        "none.safetensors": "holds no tensors",
        "folder": "holds none of model.safetensors",
        "nowhere.pth": "no file",
    }
    for name, message in messages.items():
        with pytest.raises(InputError, match=message):
            read(tmp_path / name)


def test_checksums_switched_off_are_explained(tmp_path: Path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(weights(), tmp_path / "weights.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.raises(InputError, match="set_crc32_options"):
        read(tmp_path / "weights.pth")


def test_safetensors(tmp_path: Path):
    content = {name: tensor.clone().contiguous() for name, tensor in weights().items()}
    safetensors.torch.save_file(content | {"none": torch.ones(0, 3)}, tmp_path / "model.safetensors")
    ours = read(tmp_path / "model.safetensors")
    theirs = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert_equal(dict(sorted(ours.items())), dict(sorted(theirs.items())))
    assert not any(array.flags.writeable or array.flags.owndata for array in ours.values())
    assert read(tmp_path).keys() == ours.keys()


def test_safetensors_of_float8_are_refused(tmp_path: Path):
    safetensors.torch.save_file({"w": torch.ones(2).to(torch.float8_e5m2)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="F8_E5M2; save them as F32"):
        read(tmp_path / "model.safetensors")


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards(tmp_path: Path, suffix: str):
    first, second = {"a": torch.ones(2), "b": torch.zeros(3)}, {"c": torch.arange(4)}
    save = safetensors.torch.save_file if suffix == "safetensors" else torch.save
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    save(first, tmp_path / f"1.{suffix}")
    save(second, tmp_path / f"2.{suffix}")
    places = {"a": f"1.{suffix}", "b": f"1.{suffix}", "c": f"2.{suffix}"}
    index = tmp_path / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 52}, "weight_map": places}))
    assert_equal(dict(sorted(read(index).items())), first | second)
    assert read(tmp_path).keys() == first.keys() | second.keys()
    index.write_text(json.dumps({"weight_map": places | {"b": f"2.{suffix}"}}))
    with pytest.raises(InputError, match="disagree about 'b'"):
        read(index)
    (tmp_path / f"2.{suffix}").unlink()
    with pytest.raises(InputError, match=f"names '2.{suffix}', and there are no such files"):
        read(index)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path: Path, save: Any):
    content = {
        "Transformer/encoderblock_0/LayerNorm_0/scale": np.linspace(0, 1, 7, dtype=np.float32),
        "embedding/kernel": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
        "step": np.array(3),
        "none": np.zeros((0, 2), np.float16),
    }
    save(tmp_path / "ViT.npz", **content, half=np.arange(3).astype(ml_dtypes.bfloat16))
    ours = read(tmp_path / "ViT.npz")
    assert ours.pop("half").tolist() == [0, 1, 2]
    assert list(ours) == list(content)
    for name, array in content.items():
        assert ours[name].dtype == array.dtype
        np.testing.assert_array_equal(ours[name], array, strict=True)


MEASURE = """
import sys
from flaxformer_edu.convert.readers import read

def memory(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))

before = memory("VmRSS")
for path in sys.argv[1:]:
    weights = read(path)
    total = sum(float(array.sum()) for array in weights.values())
    del weights
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_at_most_1_3_times_the_file(tmp_path: Path):
    content = {f"blocks.{i}.weight": torch.ones(1 << 20) for i in range(16)}
    torch.save(content, tmp_path / "w.pth")
    safetensors.torch.save_file(content, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", **{name: tensor.numpy() for name, tensor in content.items()})
    paths = [str(tmp_path / name) for name in ("w.pth", "w.safetensors", "w.npz")]
    output = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, check=True)
    assert int(output.stdout) <= 1.3 * (64 << 20)
