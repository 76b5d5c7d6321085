"""A small file of every kind that the package reads, in parts, and what reads it."""

import gzip
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxformer_edu import compare, convert
from flaxformer_edu.data import load_coco, load_lang_id, load_mnist
from flaxformer_edu.data.captions.caption_files import read_captions
from flaxformer_edu.data.captions.coco import read_vocabulary
from flaxformer_edu.data.formats.pictures import decode_image
from flaxformer_edu.data.image_sets.cifar10 import read_batch
from flaxformer_edu.data.image_sets.mnist import read_idx
from flaxformer_edu.models import MLP, MLPConfig
from flaxformer_edu.runs import read_rows

WORDS = ["<NULL>", "<START>", "<END>", "<UNK>", "red", "square"]
RANDOM = np.random.default_rng(0)
Parts = Mapping[str, bytes]


@dataclass(frozen=True)
class Kind:
    """The parts of a file, how they are joined, and the reader of the path.

    Faults within a part, before it is packed, get past the checksum of the package.
    """

    parts: Parts
    join: Callable[[Parts], bytes]
    read: Callable[[Path], Any]


def single(content: bytes, read: Callable[[Path], Any], pack: Callable[[bytes], bytes] = bytes) -> Kind:
    return Kind({"": content}, lambda parts: pack(parts[""]), read)


def zipped(content: bytes, read: Callable[[Path], Any]) -> Kind:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return Kind({name: archive.read(name) for name in archive.namelist()}, zip_of, read)


def zip_of(parts: Parts) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


def written(write: Callable[[Path], object], folder: Path, name: str) -> bytes:
    write(folder / name)
    return (folder / name).read_bytes()


def beside(path: Path, name: str, read: Callable[[Path], Any]) -> Any:
    """Read the folder of the file, in which it has a name of its own."""
    path.replace(path.with_name(name))
    return read(path.parent)


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def h5(**arrays: Any) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as target:
        for name, values in arrays.items():
            target[name] = values
    return file.getvalue()


def lang_id() -> bytes:
    splits = {}
    for split in ("train", "dev", "test"):
        splits |= {f"{split}_x": [[0, 1, -1], [1, 2, 3]], f"{split}_y": [0, 1], f"{split}_buckets": [[0, 1], [1, 2]]}
    names = np.array(["English", "Finnish"])
    return npz(chars=np.array(list("abcd")), language_codes=np.array(["en", "fi"]), language_names=names, **splits)


def mnist() -> bytes:
    splits = {f"{split}_images": RANDOM.random((3, 784), np.float32) for split in ("train", "test")}
    return npz(**splits, **{f"{split}_labels": np.arange(3) for split in ("train", "test")})


def captions_h5() -> bytes:
    rows = np.array([[1, 4, 5, 2, 0]] * 3, np.int32)
    parts = {f"{split}_captions": rows for split in ("train", "val")}
    return h5(**parts, **{f"{split}_image_idxs": np.arange(3) for split in ("train", "val")})


def coco(path: Path) -> Any:
    (path.parent / "coco2014_vocab.json").write_text(json.dumps(VOCABULARY))
    for split in ("train", "val"):
        (path.parent / f"{split}2014_urls.txt").write_text("http://a/1.jpg\nhttp://a/2.jpg\nhttp://a/3.jpg\n")
    return beside(path, "coco2014_captions.h5", partial(load_coco, features=False))


VOCABULARY = {"idx_to_word": WORDS, "word_to_idx": {word: number for number, word in enumerate(WORDS)}}


def picture(kind: str) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(RANDOM.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(file, format=kind)
    return file.getvalue()


def kinds(folder: Path) -> Iterator[tuple[str, Kind]]:
    """Each with the name that its file is to have."""
    weights = {"a": np.arange(12.0, dtype=np.float32).reshape(3, 4), "b": np.ones(2, np.float16)}
    yield "w.pth", zipped(written(partial(convert.write, weights=weights), folder, "w.pth"), convert.read)
    yield "w.npz", zipped(written(partial(convert.write, weights=weights), folder, "w.npz"), convert.read)
    yield "w.safetensors", single(
        written(partial(convert.write, weights=weights), folder, "w.safetensors"), convert.read
    )
    model = MLP(MLPConfig(widths=(2, 3, 2)), rngs=nnx.Rngs(0))
    run = written(lambda path: compare.record(path, model, jnp.ones((1, 2))), folder, "run.npz")
    yield "run.npz", zipped(run, compare.Recorded.load)
    yield "lang_id.npz", zipped(lang_id(), load_lang_id)
    yield "mnist.npz", zipped(mnist(), load_mnist)
    yield "captions.h5", single(captions_h5(), coco)
    yield "images-idx3-ubyte", single(b"\0\0\x08\3\0\0\0\2\0\0\0\3\0\0\0\4" + bytes(24), partial(read_idx, rank=3))
    yield "images-idx3-ubyte.gz", single(
        b"\0\0\x08\3\0\0\0\2\0\0\0\3\0\0\0\4" + bytes(24), partial(read_idx, rank=3), gzip.compress
    )
    batch = {b"labels": [1, 2], b"data": RANDOM.integers(0, 256, (2, 3072), dtype=np.uint8)}
    yield "data_batch_1", single(pickle.dumps(batch, protocol=2), read_batch)
    yield "vocab.json", single(json.dumps(VOCABULARY).encode(), read_vocabulary)
    yield "metrics.jsonl", single(b'{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 1e-3}\n', read_rows)
    yield "captions.tsv", single(b"a.png\tA red square\nb.png\tNothing\n", read_captions)
    yield "captions.json", single(b'{"a.png": ["A red square"], "b.png": ["Nothing", "at all"]}', read_captions)
    for kind in ("PNG", "JPEG", "GIF", "TIFF"):
        yield f"picture.{kind.lower()}", single(picture(kind), lambda path: decode_image(path.read_bytes(), str(path)))
