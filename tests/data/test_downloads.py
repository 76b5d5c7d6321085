"""Downloads from a server of our own, and what is made of them: all or nothing."""

import gzip
import hashlib
import io
import shutil
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Server
from test_image_classes import MNIST, RANDOM, idx

from flaxformer_edu.data import Batches, evaluation_batches, load_cifar10, load_coco, load_mnist
from flaxformer_edu.data.captions.coco_download import fetch_coco, unpack
from flaxformer_edu.data.image_sets.mnist import MNIST_FILES
from flaxformer_edu.data.image_sets.prepared import manual_folder, prepared_folder, prepared_records
from flaxformer_edu.download import RemoteFile, check, download
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx


def offered(server: Server, name: str, content: bytes) -> RemoteFile:
    server.files[f"/{name}"] = content
    return RemoteFile(url=f"{server.url}/{name}", size=len(content), sha256=hashlib.sha256(content).hexdigest())


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_is_downloaded_once(server: Server, tmp_path: Path):
    remote = offered(server, "a.bin", b"content")
    assert download(remote, tmp_path / "new").read_bytes() == b"content"
    assert download(remote, tmp_path / "new") == tmp_path / "new" / "a.bin"
    assert server.asked == ["/a.bin"]


def test_a_download_that_fails_leaves_nothing(server: Server, tmp_path: Path):
    remote = offered(server, "a.bin", b"content")
    server.files["/a.bin"] = b"changed"
    with pytest.raises(InputError, match=r"a\.bin has SHA-256 .*, expected .*; delete it"):
        download(remote, tmp_path)
    server.files["/a.bin"] = b"longer than was said"
    with pytest.raises(InputError, match=r"a\.bin has 20 bytes, expected 7 at most; the server holds another"):
        download(remote, tmp_path)
    server.short = {"/a.bin"}
    with pytest.raises(InputError, match=r"cannot download .*a\.bin \(IncompleteRead"):
        download(RemoteFile(url=remote.url, size=None, sha256=None), tmp_path)
    server.silent = {"/a.bin"}
    with pytest.raises(InputError, match=r"cannot download .* \(.*timed out\); get the file in another way, put it at"):
        download(remote, tmp_path, timeout=0.2)
    server.silent = set()
    del server.files["/a.bin"]
    with pytest.raises(InputError, match=r"cannot download .* \(HTTP Error 404"):
        download(remote, tmp_path)
    assert tree(tmp_path) == []


def test_no_more_is_written_than_was_expected(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    remote = offered(server, "a.bin", bytes(1_000_000))
    server.unannounced = {"/a.bin"}
    with pytest.raises(InputError, match=r"a\.bin goes on after the 300,000 bytes expected at most"):
        download(replace(remote, size=300_000), tmp_path)
    monkeypatch.setattr("flaxformer_edu.download.LARGEST_FILE", 300_000)
    with pytest.raises(InputError, match=r"a\.bin goes on after the 300,000 bytes expected at most"):
        download(replace(remote, size=None, sha256=None), tmp_path)
    assert [path for path in tree(tmp_path) if "lock" not in path] == []
    assert download(remote, tmp_path).stat().st_size == 1_000_000


def test_a_zip_member_that_fills_the_disk_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flaxformer_edu.data.formats.checks.FREE_BYTES", 100_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("deep/../../a.h5", bytes(10_000_000))
        archive.writestr("../b.h5", b"b")
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match=r"a\.zip: deep/\.\./\.\./a\.h5 promises 0\.0 GB, but"):
        unpack(tmp_path / "a.zip", {"a.h5": None}, tmp_path / "in")
    unpack(tmp_path / "a.zip", {"b.h5": None}, tmp_path / "in")
    assert tree(tmp_path) == ["a.zip", "in/b.h5"]


def test_a_file_put_there_by_hand_is_checked(server: Server, tmp_path: Path):
    remote = offered(server, "a.bin", b"content")
    (tmp_path / "a.bin").write_bytes(b"cont")
    with pytest.raises(InputError, match=r"a\.bin has 4 bytes, expected 7; delete it"):
        download(remote, tmp_path)
    assert server.asked == []


def mnist_files(server: Server) -> tuple[RemoteFile, ...]:
    names = {f"{stem}-idx{array.ndim}-ubyte.gz": array for stem, array in MNIST.items()}
    return tuple(offered(server, name, gzip.compress(idx(array))) for name, array in names.items())


def test_mnist_is_downloaded_prepared_and_kept(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch):
    from flaxformer_edu.data.image_sets.builders import FlaxformerMnist

    monkeypatch.setattr(FlaxformerMnist, "FILES", mnist_files(server))
    for _ in range(2):
        splits = load_mnist()
        assert np.array_equal(splits["train"]["images"][..., 0], MNIST["train-images"])
        assert np.array_equal(splits["test"]["labels"], MNIST["t10k-labels"])
        assert splits["test"]["images"].dtype == np.uint8
    assert len(server.asked) == 4
    assert "tensorflow" not in sys.modules


def test_damaged_records_are_named(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch):
    from flaxformer_edu.data.image_sets.builders import FlaxformerMnist

    monkeypatch.setattr(FlaxformerMnist, "FILES", mnist_files(server))
    load_mnist()
    (file,) = prepared_folder("mnist").glob("*-train.array_record-*")
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"records of mnist.* are .*; delete .*flaxformer_mnist/1\.0\.0 and run again"):
        load_mnist()
    shutil.rmtree(prepared_folder("mnist"))
    assert len(load_mnist()["train"]) == 5
    shutil.rmtree(prepared_folder("mnist"))
    prepared_folder("mnist").mkdir()
    with pytest.raises(InputError, match=r"records of mnist are incomplete; delete .* and run again"):
        load_mnist()


def test_mnist_needs_no_network_where_the_files_are(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch):
    from flaxformer_edu.data.image_sets.builders import FlaxformerMnist

    files = mnist_files(server)
    monkeypatch.setattr(FlaxformerMnist, "FILES", files)
    manual_folder().mkdir(parents=True)
    for file in files:
        (manual_folder() / file.name).write_bytes(server.files.pop(f"/{file.name}"))
    assert len(load_mnist()["train"]) == 5
    assert server.asked == []


def test_a_server_out_of_reach_is_reported_at_once(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch):
    from flaxformer_edu.data.image_sets.builders import FlaxformerMnist

    monkeypatch.setattr(FlaxformerMnist, "FILES", mnist_files(server))
    server.close()
    with pytest.raises(InputError, match=r"cannot download .*train-images.*refused.*put it at .*manual"):
        load_mnist()
    assert tree(cache) == []


def cifar10_archive(rows: dict[str, np.ndarray]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, array in rows.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = array.size
            archive.addfile(member, io.BytesIO(array.tobytes()))
    return content.getvalue()


def test_cifar10_is_downloaded_and_prepared(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch):
    from flaxformer_edu.data.image_sets.builders import FlaxformerCifar10

    rows = {name: RANDOM.integers(0, 10, (3, 3073), dtype=np.uint8) for name in ("data_batch_1", "test_batch")}
    rows |= {f"data_batch_{number}": rows["data_batch_1"] for number in range(2, 6)}
    remote = offered(server, "cifar-10-binary.tar.gz", cifar10_archive(rows))
    monkeypatch.setattr(FlaxformerCifar10, "FILES", (remote,))
    splits = load_cifar10()
    assert len(splits["train"]) == 15
    assert splits["test"]["labels"].tolist() == rows["test_batch"][:, 0].tolist()
    blue = splits["test"]["images"][2, :, :, 2]
    assert np.array_equal(blue, rows["test_batch"][2, 1 + 2048 :].reshape(32, 32))


def test_records_are_batched_from_the_disk(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch):
    from flaxformer_edu.data.image_sets.builders import FlaxformerMnist

    monkeypatch.setattr(FlaxformerMnist, "FILES", mnist_files(server))
    records = prepared_records("mnist", "train")
    batch = Batches(records, 2, seed=0)(7)
    assert batch["images"].shape == (2, 28, 28, 1)
    assert np.array_equal(batch["images"][..., 0], MNIST["train-images"][batch["labels"]])
    (whole,) = evaluation_batches(records, 8)
    assert np.array_equal(whole["labels"][whole["mask"]], MNIST["train-labels"])


def zipped(folder: Path, leave_out: str = "") -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in sorted(folder.iterdir()):
            if path.name not in ("pictures.zip", leave_out):
                archive.write(path, f"coco_captioning/{path.name}")
    return content.getvalue()


def test_the_courses_zip_is_unpacked_and_checked(server: Server, cache: Path, drawn: Path, tmp_path: Path):
    names = [path.name for path in drawn.iterdir() if path.name != "pictures.zip"]
    members = {name: hashlib.sha256((drawn / name).read_bytes()).hexdigest() for name in names}
    remote = offered(server, "coco_captioning.zip", zipped(drawn))
    target = fetch_coco(tmp_path / "coco", remote, members)
    assert tree(target) == sorted(names)
    assert len(load_coco(target)["train_captions"]) == 40
    assert tree(cache) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content, drawn: content[:-100], r"coco_captioning\.zip is truncated or no zip file"),
        (lambda content, drawn: zipped(drawn, "coco2014_vocab.json"), r"coco_captioning\.zip holds no coco2014_vocab"),
        (lambda content, drawn: content, r"holds a coco2014_vocab\.json of another SHA-256 than published"),
    ],
)
def test_a_zip_that_is_not_the_courses_is_refused(server, cache, drawn, tmp_path, spoil, message):
    remote = offered(server, "coco_captioning.zip", spoil(zipped(drawn), drawn))
    members = {"coco2014_captions.h5": None, "coco2014_vocab.json": "0" * 64}
    with pytest.raises(InputError, match=message):
        fetch_coco(tmp_path / "coco", remote, members)
    assert not (tmp_path / "coco").exists()
    assert [path for path in tmp_path.iterdir() if path != cache] == []


def test_the_real_files_have_the_published_checksums(real_data: Path):
    for remote in MNIST_FILES:
        check(real_data / "mnist" / remote.name, remote)
