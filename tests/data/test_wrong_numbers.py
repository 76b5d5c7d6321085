"""Files that can be read and hold what cannot be right, or promise more than they hold: refused by name."""

import gzip
import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from flaxformer_edu.data import load_cifar10, load_coco, load_lang_id, load_mnist
from flaxformer_edu.data.formats.h5 import read_h5, write_h5
from flaxformer_edu.data.formats.npz import load_npz
from flaxformer_edu.data.image_sets.mnist import read_idx
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx

PIXELS = np.arange(4 * 784).reshape(4, 784) % 256
DIGITS = {f"{split}_{what}": array for split in ("train", "test") for what, array in (
    ("images", (PIXELS / 255).astype(np.float32)), ("labels", np.arange(4)),
)}  # fmt: skip
WORDS = {
    **{"chars": np.array(["a", "b"]), "language_codes": np.array(["en"]), "language_names": np.array(["English"])},
    **{f"{split}_x": np.array([[0, -1], [1, 0]]) for split in ("train", "dev", "test")},
    **{f"{split}_y": np.array([0, 0]) for split in ("train", "dev", "test")},
    **{f"{split}_buckets": np.array([[0, 1], [1, 2]]) for split in ("train", "dev", "test")},
}


def changed(array: np.ndarray, value: float, dtype: type = np.float64) -> np.ndarray:
    copy = array.astype(dtype)
    copy.flat[-1] = value
    return copy


def test_pixels_of_mnist_are_read_in_both_scales(tmp_path: Path):
    for images in (DIGITS["train_images"], DIGITS["train_images"].astype(np.float64), PIXELS, PIXELS.astype(np.uint8)):
        np.savez(tmp_path / "mnist.npz", **{**DIGITS, "train_images": images})
        assert np.array_equal(load_mnist(tmp_path / "mnist.npz")["train"]["images"].reshape(4, 784), PIXELS)


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("images", PIXELS.astype(np.float32), r"float32 from 0\.0 to 255\.0, expected floats from 0 to 1"),
        ("images", changed(PIXELS / 255, np.nan), "from nan to nan, expected floats"),
        ("images", changed(PIXELS / 255, -0.01), "expected floats from 0 to 1"),
        ("images", changed(PIXELS, 256, np.int64), "numbers from 0 to 256, expected 0 to 255"),
        ("images", PIXELS.astype(str), "holds <U21, expected floats"),
        ("labels", changed(np.arange(4), 2.5), "not all whole numbers"),
        ("labels", changed(np.arange(4), np.nan), "not all whole numbers"),
        ("labels", changed(np.arange(4), 2**32, np.int64), "numbers from 0 to 4294967296, expected 0 to 9"),
        ("labels", changed(np.arange(4), 2**40), r"from 0 to 1099511627776, expected 0 to 9"),
        ("labels", changed(np.arange(4), -1, np.int64), "numbers from -1 to 2, expected 0 to 9"),
        ("labels", np.arange(4).astype(str), "holds <U21 that are not all whole numbers"),
    ],
)
def test_numbers_of_mnist_that_cannot_be(tmp_path: Path, key: str, array: np.ndarray, message: str):
    np.savez(tmp_path / "mnist.npz", **{**DIGITS, f"test_{key}": array})
    with pytest.raises(InputError, match=rf"mnist\.npz: test_{key} .*{message}"):
        load_mnist(tmp_path / "mnist.npz")


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("dev_x", [[0, -1], [-1, 0]], "words that begin with -1 or go on"),
        ("dev_x", [[0.5, -1], [1, 0]], "not all whole numbers"),
        ("dev_x", [["a", "b"]] * 2, "not all whole numbers"),
        ("dev_y", [0, 1], "numbers from 0 to 1, expected 0 to 0"),
        ("dev_y", [0, 2**32], "numbers from 0 to 4294967296"),
        ("chars", [0, 1], "expected different strings"),
        ("chars", ["a", "a"], "expected different strings"),
        ("chars", ["a", "bc"], "expected one letter each"),
        ("language_names", [["a"]], "expected different strings"),
        ("dev_buckets", [[0, 9]], "numbers from 0 to 9, expected 0 to 2"),
    ],
)
def test_numbers_of_words_that_cannot_be(tmp_path: Path, key: str, array: list, message: str):
    np.savez(tmp_path / "lang_id.npz", **{**WORDS, key: np.array(array)})
    with pytest.raises(InputError, match=rf"lang_id\.npz: {key} .*{message}"):
        load_lang_id(tmp_path)


@pytest.mark.parametrize("labels", [[0, 2**40], [0, -1], [0, 1.5], [0, "x"], [0, [1]], [0, 10**30], [0, None]])
def test_labels_of_cifar10_that_cannot_be(tmp_path: Path, labels: list):
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        batch = {b"labels": labels, b"data": np.zeros((2, 3072), np.uint8)}
        (tmp_path / name).write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(InputError, match="data_batch_1"):
        load_cifar10(tmp_path)


def npz(path: Path, header: bytes, stored: bytes = b"", said: int | None = None) -> Path:
    """An npz file whose member `a` has this header, these bytes, and a directory that may lie about their number."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + stored)
        if said is not None:
            archive.getinfo("a.npy").file_size = said
    return path


def header(shape: str, dtype: str = "<f8") -> bytes:
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()


@pytest.mark.parametrize(
    "make",
    [
        lambda path: npz(path, header("(5000000000000,)")),
        lambda path: npz(path, header("(5000000000000,)"), said=40_000_000_000_128),
        lambda path: npz(path, header("(-1, 5)")),
        lambda path: npz(path, header("(1000000000000000,)", "<U0")),
        lambda path: npz(path, header("(2,)"), bytes(15)),
        lambda path: npz(path, header("(2,)"), bytes(17)),
        lambda path: npz(path, b"(" * 5000),
        lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x02\x00{}"),
        lambda path: path.write_bytes(npy_file()),
        lambda path: path.write_bytes(b""),
    ],
)
def test_npz_files_that_promise_more_than_they_hold(tmp_path: Path, make: Callable[[Path], object]):
    make(path := tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"a\.npz"):
        load_npz(path, ["a"])


def npy_file() -> bytes:
    content = io.BytesIO()
    np.save(content, np.arange(3))
    return content.getvalue()


def refused_in_little_memory(read: Callable[[], object], message: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=message):
            read()
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_letters_that_there_are_not(tmp_path: Path):
    """NumPy gives such an array, and fails where one of its strings is looked at."""
    chars = np.array(["a", "b"])
    chars.view(np.uint32)[1] = 0x110000
    np.savez(tmp_path / "lang_id.npz", chars=chars)
    with pytest.raises(InputError, match=r"lang_id\.npz: chars holds letters that there are not"):
        load_npz(tmp_path / "lang_id.npz", ["chars"])


def test_bombs_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flaxformer_edu.data.formats.checks.FREE_BYTES", 1_000_000)
    zeros, side = bytes(30_000_000), 30_000_000
    whole = npz(tmp_path / "a.npz", header("(30000000,)", "|u1"), zeros)
    refused_in_little_memory(lambda: load_npz(whole, ["a"]), r"a promises 0\.0 GB, but [\d,]+ bytes are stored")
    path = tmp_path / "train-images.gz"
    path.write_bytes(gzip.compress(bytes((0, 0, 8, 1)) + struct.pack(">i", side) + zeros))
    refused_in_little_memory(lambda: read_idx(path, 1), "promises")
    path.write_bytes(gzip.compress(bytes((0, 0, 8, 1)) + struct.pack(">i", 5) + zeros))
    refused_in_little_memory(lambda: read_idx(path, 1), "holds more than 5 values, its header says")
    write_h5(tmp_path / "a.h5", {"a": np.frombuffer(zeros, np.uint8)})
    refused_in_little_memory(lambda: read_h5(tmp_path / "a.h5", ["a"]), "a promises")


def test_idx_sizes_below_zero(tmp_path: Path):
    (tmp_path / "a").write_bytes(bytes((0, 0, 8, 2)) + struct.pack(">ii", -2, -3) + bytes(6))
    with pytest.raises(InputError, match="no idx file of unsigned bytes in 2 dimensions"):
        read_idx(tmp_path / "a", 2)


def test_a_pickle_gets_no_memory_for_the_asking(tmp_path: Path):
    memo = b"\x80\x02}r" + struct.pack("<I", 2**31) + b"."  # C's unpickler makes room for 2^32 objects
    (tmp_path / "data_batch_1").write_bytes(memo)
    refused_in_little_memory(lambda: load_cifar10(tmp_path), "data_batch_1")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: file.create_dataset("a", (10**13,), "f4", chunks=(1000,)), "promises 40,000.0 GB"),
        (lambda file: file.create_dataset("a", (10**13,), "f4"), "promises 40,000.0 GB"),
        (lambda file: file.create_dataset("a", (10,), "f4"), "never written whole"),
        (lambda file: file.create_dataset("a", (10,), "f4", chunks=(5,)).__setitem__(0, 1.0), "1 chunks are missing"),
        (lambda file: file.create_dataset("a", data=["x", "y"]), "no array of numbers"),
        (lambda file: file.create_dataset("a", data=h5py.Empty("f4")), "no array of numbers"),
        (lambda file: file.create_dataset("a", (4,), "u1", external=[("/etc/passwd", 0, 4)]), "in this file itself"),
        (lambda file: file.__setitem__("a", h5py.ExternalLink("other.h5", "a")), "link to another place"),
        (lambda file: file.__setitem__("a", h5py.SoftLink("/nowhere")), "link to another place"),
        (lambda file: file.create_group("a"), "has no data set 'a'"),
    ],
)
def test_h5_files_that_promise_more_than_they_hold(tmp_path: Path, make: Callable[[h5py.File], object], message: str):
    write_h5(tmp_path / "other.h5", {"a": np.arange(3)})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file)
    with pytest.raises(InputError, match=message):
        read_h5(tmp_path / "a.h5", ["a"])


def test_no_flip_of_a_written_h5_changes_what_is_read(tmp_path: Path):
    path, right = tmp_path / "a.h5", np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    write_h5(path, {"a": right})
    whole = path.read_bytes()
    refused = 0
    for at in range(0, len(whole), 13):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            assert np.array_equal(read_h5(path, ["a"])["a"], right), at
        except InputError:
            refused += 1
    assert refused > right.nbytes / 13 / 2


def edit_h5(name: str, key: str, at: tuple[int, ...], value: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        with h5py.File(folder / name, "r+") as file:
            file[key][at] = value

    return damage


def edit_vocabulary(change: Callable[[list], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "coco2014_vocab.json"
        words = json.loads(path.read_text())["idx_to_word"]
        change(words)
        numbers = {word: number for number, word in enumerate(words) if isinstance(word, str)}
        path.write_text(json.dumps({"idx_to_word": words, "word_to_idx": numbers}))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit_h5("coco2014_captions.h5", "val_captions", (3, 0), 4), r"val_captions: number 3 is \[4, .*expected <STA"),
        (edit_h5("coco2014_captions.h5", "val_captions", (3, 4), 1), "val_captions: number 3"),
        (edit_h5("coco2014_captions.h5", "val_captions", (3, 4), 0), "val_captions: number 3"),
        (edit_h5("coco2014_captions.h5", "val_captions", (3, 4), 2), "val_captions: number 3"),
        (edit_h5("coco2014_captions.h5", "val_captions", (3, 16), 4), "val_captions: number 3"),
        (edit_h5("coco2014_captions.h5", "val_captions", (3,), 4), "val_captions: number 3"),
        (edit_h5("coco2014_captions.h5", "val_captions", (3,), 0), "val_captions: number 3"),
        (edit_h5("train2014_vgg16_fc7_pca.h5", "features", (3, 4), np.nan), "features holds NaN or infinite"),
        (edit_h5("train2014_vgg16_fc7_pca.h5", "features", (3, 4), -np.inf), "features holds NaN or infinite"),
        (edit_vocabulary(lambda words: words.append(words.pop(0))), r"begins with <START>, <END>, .*expected <NULL>"),
        (edit_vocabulary(lambda words: words.append(["a"])), "its words are not all strings"),
        (edit_vocabulary(lambda words: words.append(7)), "its words are not all strings"),
        (edit_vocabulary(lambda words: words.insert(5, words[9])), "contradict each other"),
    ],
)
def test_captions_that_cannot_be(folder: Path, damage: Callable[[Path], None], message: str):
    damage(folder)
    with pytest.raises(InputError, match=message):
        load_coco(folder)


def test_a_caption_that_fills_its_row_may_be_cut(folder: Path):
    with h5py.File(folder / "coco2014_captions.h5", "r+") as file:
        file["val_captions"][3, 1:] = 4
    assert load_coco(folder)["val_captions"][3].tolist() == [1, *[4] * 16]
