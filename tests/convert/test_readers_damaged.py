"""2,000 randomly damaged files of each format: a clean error or correct tensors, nothing else."""

import collections
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from convert.readers_helpers import saved, weights

from flaxformer_edu.convert import read
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx

FILES = 2_000


def damage(content: bytes, generator: np.random.Generator) -> bytes:
    """The file with a bit or byte changed, a part cut off, inserted, repeated, lost or zeroed."""
    start, end = np.sort(generator.integers(0, len(content), 2))
    end = min(end, start + 1 + int(generator.geometric(0.02)))
    noise = generator.bytes(int(generator.integers(1, 9)))
    match generator.integers(8):
        case 0:
            return content[:start] + bytes([content[start] ^ 1 << int(generator.integers(8))]) + content[start + 1 :]
        case 1:
            return content[:start] + noise + content[start + len(noise) :]
        case 2:
            return content[:start]
        case 3:
            return content[:start] + noise + content[start:]
        case 4:
            return content[:start] + bytes(end - start) + content[end:]
        case 5:
            return content[:start] + content[end:]
        case 6:
            return content[:end] + content[start:]
    return content[start:]


def npz(save: Callable) -> bytes:
    file = io.BytesIO()
    save(file, **{"head/kernel": np.arange(12.0).reshape(3, 4), "head/bias": np.ones(3, np.float32)})
    return file.getvalue()


def contiguous() -> dict:
    return {name: tensor.clone().contiguous() for name, tensor in weights().items()}


def contents(arrays: dict[str, np.ndarray]) -> dict[str, tuple]:
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}


def outcomes(path: Path, content: bytes, is_correct: Callable[[dict[str, np.ndarray], bytes], bool]) -> dict[str, int]:
    """How many of the damaged files were refused and read; fails where a file was read wrongly."""
    generator = np.random.default_rng(0)
    counts = collections.Counter()
    for number in range(FILES):
        damaged = damage(content, generator)
        path.write_bytes(damaged)
        try:
            arrays = read(path)
        except InputError:
            counts["refused"] += 1
            continue
        assert is_correct(arrays, damaged), f"damaged file {number} was read wrongly"
        counts["read"] += 1
    return counts


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.pth", saved({"model": weights(), "epoch": 1})),
        ("w.npz", npz(np.savez)),
        ("packed.npz", npz(np.savez_compressed)),
    ],
)
def test_damaged_zip_files_are_refused_or_read_correctly(tmp_path: Path, name: str, content: bytes):
    path = tmp_path / name
    path.write_bytes(content)
    intact = contents(read(path))
    counts = outcomes(path, content, lambda arrays, _: contents(arrays) == intact)
    assert counts["refused"] > FILES / 2
    assert counts["read"] > 0


@pytest.mark.usefixtures("unchecked")
def test_damaged_safetensors_files_are_refused_or_whole(tmp_path: Path):
    """Without checksums a changed number or name cannot be seen; sizes and places must still fit the file exactly."""

    def is_whole(arrays: dict[str, np.ndarray], content: bytes) -> bool:
        header = int.from_bytes(content[:8], "little")
        return b"".join(array.tobytes() for array in arrays.values()) == content[8 + header :]

    counts = outcomes(tmp_path / "w.safetensors", safetensors.torch.save(contiguous()), is_whole)
    assert counts["refused"] > FILES / 2
    assert counts["read"] > 0
