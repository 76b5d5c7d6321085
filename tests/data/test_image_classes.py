"""CIFAR-10, MNIST and the CS188 files, read from folders, and refused, with the file named, where they are damaged."""

import contextlib
import gzip
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaxformer_edu.data import decode_word, load_cifar10, load_lang_id, load_mnist
from flaxformer_edu.data.formats.pickles import load_arrays
from flaxformer_edu.data.image_sets.mnist import read_idx
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx

RANDOM = np.random.default_rng(0)


def write_cifar10(folder: Path, protocol: int = 2) -> dict[str, np.ndarray]:
    """Four images a batch, as in the course's folder; returns the rows of each file."""
    folder.mkdir(parents=True)
    files = {}
    for number, name in enumerate([*(f"data_batch_{index}" for index in range(1, 6)), "test_batch"]):
        files[name] = RANDOM.integers(0, 256, (4, 3072), dtype=np.uint8)
        batch = {b"batch_label": b"four", b"labels": [number, 1, 2, 9], b"data": files[name]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=protocol))
    return files


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    write_cifar10(tmp_path / "cifar-10-batches-py")
    return tmp_path / "cifar-10-batches-py"


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_cifar10_from_its_pickles(tmp_path: Path, protocol: int):
    files = write_cifar10(tmp_path / "cifar-10-batches-py", protocol)
    for folder in (tmp_path, tmp_path / "cifar-10-batches-py"):
        splits = load_cifar10(folder)
        assert splits["train"]["images"].shape == (20, 32, 32, 3)
        assert splits["train"]["labels"].tolist()[4:8] == [1, 1, 2, 9]
        assert splits["test"].class_names[splits["test"]["labels"][3]] == "truck"
        red = splits["train"]["images"][5, :, :, 0]
        assert np.array_equal(red, files["data_batch_2"][1, :1024].reshape(32, 32))


def test_the_pickles_of_python_2(tmp_path: Path):
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I2\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
        b"I00\nS'\\x07\\xff'\ntb"
    )
    (tmp_path / "batch").write_bytes(b"(dS'data'\n" + array + b"sS'labels'\n(lI3\nas.")
    content = load_arrays(tmp_path / "batch")
    assert content[b"data"].tolist() == [7, 255]
    assert content[b"labels"] == [3]


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_runs_nothing(cifar10: Path, tmp_path: Path):
    (cifar10 / "data_batch_3").write_bytes(pickle.dumps({b"data": Evil(tmp_path / "evil")}))
    with pytest.raises(InputError, match=r"data_batch_3 is damaged.*mkdir, which is refused"):
        load_cifar10(cifar10)
    assert not (tmp_path / "evil").exists()


@given(st.data())
def test_damaged_pickles_fail_in_one_way(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    content = bytearray(pickle.dumps({b"data": np.arange(6, dtype=np.uint8), b"labels": [1, 2]}, protocol=2))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(InputError):
        assert isinstance(load_arrays(path), dict)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), r"no file .*test_batch; the folder is incomplete"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), r"test_batch is damaged"),
        (lambda path: path.write_bytes(b""), r"test_batch is damaged"),
        (lambda path: path.write_bytes(pickle.dumps([1])), r"test_batch is damaged"),
        (lambda path: path.write_bytes(pickle.dumps({b"labels": [1]})), r"test_batch is no CIFAR-10 batch"),
        (
            lambda path: path.write_bytes(pickle.dumps({b"labels": [1], b"data": np.zeros((2, 3072), np.uint8)}, 2)),
            r"test_batch is no CIFAR-10 batch",
        ),
        (
            lambda path: path.write_bytes(pickle.dumps({b"labels": [1], b"data": np.zeros((1, 3072))}, 2)),
            r"test_batch is damaged.*only arrays of uint8",
        ),
        (
            lambda path: path.write_bytes(pickle.dumps({b"labels": [10], b"data": np.zeros((1, 3072), np.uint8)}, 2)),
            r"test_batch: labels holds numbers from 10 to 10, expected 0 to 9",
        ),
    ],
)
def test_damage_to_cifar10_is_named(cifar10: Path, damage: Callable[[Path], object], message: str):
    damage(cifar10 / "test_batch")
    with pytest.raises(InputError, match=message):
        load_cifar10(cifar10)


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


MNIST = {
    "train-images": RANDOM.integers(0, 256, (5, 28, 28), dtype=np.uint8),
    "train-labels": np.arange(5, dtype=np.uint8),
    "t10k-images": RANDOM.integers(0, 256, (3, 28, 28), dtype=np.uint8),
    "t10k-labels": np.arange(3, dtype=np.uint8),
}


@pytest.mark.parametrize("naming", ["{}-idx{}-ubyte.gz", "{}-idx{}-ubyte", "{}.idx{}-ubyte"])
def test_mnist_from_its_idx_files(tmp_path: Path, naming: str):
    for stem, array in MNIST.items():
        path = tmp_path / naming.format(stem, array.ndim)
        path.write_bytes(gzip.compress(idx(array)) if path.suffix == ".gz" else idx(array))
    splits = load_mnist(tmp_path)
    assert np.array_equal(splits["train"]["images"][..., 0], MNIST["train-images"])
    assert np.array_equal(splits["test"]["labels"], [0, 1, 2])
    assert splits["test"]["labels"].dtype == np.int32


def test_mnist_from_the_file_of_cs188(tmp_path: Path):
    path = tmp_path / "mnist.npz"
    arrays = {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        arrays[f"{split}_images"] = MNIST[f"{stem}-images"].reshape(-1, 784).astype(np.float32) / 255
        arrays[f"{split}_labels"] = MNIST[f"{stem}-labels"]
    np.savez_compressed(path, **arrays)
    assert np.array_equal(load_mnist(path)["train"]["images"][..., 0], MNIST["train-images"])
    np.savez_compressed(path, **{**arrays, "test_images": arrays["test_images"][:, 1:]})
    with pytest.raises(InputError, match=r"mnist\.npz: test_images is \(3, 783\)"):
        load_mnist(path)
    np.savez_compressed(path, train_images=arrays["train_images"])
    with pytest.raises(InputError, match=r"mnist\.npz has no array train_labels \(it has train_images\)"):
        load_mnist(path)
    np.savez(path, **{**arrays, "train_images": np.array([object()])}, allow_pickle=True)
    with pytest.raises(InputError, match=r"mnist\.npz: train_images is object\(1,\), which is not read"):
        load_mnist(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), r"no file .*t10k-images-idx3-ubyte\.gz \(nor unpacked\)"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), r"t10k-images-idx3-ubyte\.gz is truncated or no gzip"),
        (lambda path: path.write_bytes(b"\x1f\x8b nonsense"), r"is truncated or no gzip"),
        (lambda path: path.write_bytes(path.read_bytes()[:60] + bytes(40)), r"is truncated or no gzip"),
        (
            lambda path: path.write_bytes(gzip.compress(idx(MNIST["t10k-images"])[:-1])),
            r"holds 2351 values, its header",
        ),
        (
            lambda path: path.write_bytes(gzip.compress(b"\x00\x00\x08\x03\x00")),
            r"is no idx file of unsigned bytes in 3",
        ),
        (lambda path: path.write_bytes(gzip.compress(idx(MNIST["t10k-labels"]))), r"is no idx file"),
        (lambda path: path.write_bytes(gzip.compress(idx(MNIST["t10k-images"][:, 1:]))), r"test are \(3, 27, 28\) and"),
        (
            lambda path: path.write_bytes(gzip.compress(idx(MNIST["t10k-images"][1:]))),
            r"are \(2, 28, 28\) and labels \(3,\)",
        ),
    ],
)
def test_damage_to_mnist_is_named(tmp_path: Path, damage: Callable[[Path], object], message: str):
    for stem, array in MNIST.items():
        (tmp_path / f"{stem}-idx{array.ndim}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    damage(tmp_path / "t10k-images-idx3-ubyte.gz")
    with pytest.raises(InputError, match=message):
        load_mnist(tmp_path)


@given(shape=st.lists(st.integers(0, 4), min_size=1, max_size=3), cut=st.integers(0, 3))
def test_an_idx_file_is_read_whole_or_not_at_all(tmp_path_factory: pytest.TempPathFactory, shape: list[int], cut: int):
    array = RANDOM.integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path_factory.getbasetemp() / "array"
    content = idx(array)
    path.write_bytes(content[: len(content) - cut])
    if cut == 0:
        assert np.array_equal(read_idx(path, len(shape)), array)
    else:
        with pytest.raises(InputError, match=r"idx file|holds"):
            read_idx(path, len(shape))


def test_missing_folders_are_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"no folder .*nowhere; unpack cifar-10-python"):
        load_cifar10(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no folder .*nowhere; put the four MNIST files there"):
        load_mnist(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no file .*lang_id\.npz; it comes with the CS188 project"):
        load_lang_id(tmp_path)


@pytest.fixture
def lang_id() -> dict[str, np.ndarray]:
    arrays = {
        "chars": np.array(["a", "b"]),
        "language_codes": np.array(["en"]),
        "language_names": np.array(["English"]),
    }
    for split in ("train", "dev", "test"):
        arrays[f"{split}_x"] = np.array([[0, -1], [1, 0]])
        arrays[f"{split}_y"] = np.array([0, 0])
        arrays[f"{split}_buckets"] = np.array([[0, 1], [1, 2]])
    return arrays


def test_words_in_five_languages(tmp_path: Path, lang_id: dict[str, np.ndarray]):
    np.savez(tmp_path / "lang_id.npz", **lang_id)
    dev = load_lang_id(tmp_path)["dev"]
    assert [decode_word(word, dev.metadata["chars"]) for word in dev["words"]] == ["a", "ba"]
    np.savez(tmp_path / "lang_id.npz", **{**lang_id, "test_x": np.array([[2, 0], [1, 1]])})
    with pytest.raises(InputError, match=r"test_x holds numbers from 0 to 2, expected -1 to 1"):
        load_lang_id(tmp_path)
    np.savez(tmp_path / "lang_id.npz", **{**lang_id, "test_y": np.array([0])})
    with pytest.raises(InputError, match=r"test_x is \(2, 2\) and test_y \(1,\)"):
        load_lang_id(tmp_path)
    (tmp_path / "lang_id.npz").write_bytes((tmp_path / "lang_id.npz").read_bytes()[:100])
    with pytest.raises(InputError, match=r"lang_id\.npz is truncated"):
        load_lang_id(tmp_path)


def test_the_real_mnist(real_data: Path):
    splits = load_mnist(real_data / "mnist")
    assert [len(split) for split in splits.values()] == [60000, 10000]
    assert splits["train"]["labels"][:6].tolist() == [5, 0, 4, 1, 9, 2]
    assert splits["train"]["images"].mean() / 255 == pytest.approx(0.1307, abs=1e-4)


def test_the_real_words(real_data: Path):
    splits = load_lang_id(real_data / "lang_id")
    assert [len(split) for split in splits.values()] == [17500, 500, 500]
    train = splits["train"]
    assert len(train.metadata["chars"]) == 47
    for start, end in train.metadata["buckets"]:
        assert len(np.unique((train["words"][start:end] >= 0).sum(1))) == 1
