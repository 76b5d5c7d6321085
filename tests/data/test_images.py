"""Pictures from a server of our own, from paths and from zip files; whatever is wrong with one is said."""

import contextlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import Server, png
from hypothesis import given
from hypothesis import strategies as st

from flaxformer_edu.data import PictureReader, read_images, resize_image
from flaxformer_edu.data.formats.pictures import decode_image
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
PNG = png(IMAGE)


def test_a_picture_comes_from_a_url(server: Server):
    server.files["/a.png"] = PNG
    with PictureReader() as reader:
        assert np.array_equal(reader.read(f"{server.url}/a.png"), IMAGE)


def test_a_server_that_fails_is_named(server: Server):
    server.files = {"/page.html": b"<html>not a picture</html>", "/short.png": PNG}
    server.silent, server.short = {"/silent.png"}, {"/short.png"}
    with PictureReader(timeout=0.2) as reader:
        with pytest.raises(InputError, match=rf"cannot fetch {server.url}/none\.png .*404"):
            reader.read(f"{server.url}/none.png")
        with pytest.raises(InputError, match=r"cannot fetch .*silent\.png within 0\.2 s.*timed out"):
            reader.read(f"{server.url}/silent.png")
        with pytest.raises(InputError, match=r"cannot fetch .*short\.png .*IncompleteRead"):
            reader.read(f"{server.url}/short.png")
        with pytest.raises(InputError, match=r"page\.html is no picture"):
            reader.read(f"{server.url}/page.html")
    server.close()
    with pytest.raises(InputError, match=r"cannot fetch .*refused"):
        PictureReader().read(f"{server.url}/a.png")


def test_what_is_too_large_for_a_picture_is_not_read(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flaxformer_edu.data.images._LARGEST_FILE", len(PNG) - 1)
    server.files["/a.png"] = PNG
    with pytest.raises(InputError, match=r"a\.png is larger than"):
        PictureReader().read(f"{server.url}/a.png")


def test_a_picture_comes_from_a_path_or_a_zip_beside(tmp_path: Path):
    (tmp_path / "loose.png").write_bytes(PNG)
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.writestr("1.png", PNG)
        archive.writestr("deep/2.png", PNG)
    with PictureReader(tmp_path) as reader:
        for name in ("loose.png", str(tmp_path / "loose.png"), "1.png", "pictures/1.png", "deep/2.png"):
            assert np.array_equal(reader.read(name), IMAGE)
        with pytest.raises(InputError, match=r"no picture .*3\.png, nor in a zip file in"):
            reader.read("pictures/3.png")


def test_a_truncated_zip_is_named(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.writestr("1.png", PNG)
    (tmp_path / "pictures.zip").write_bytes((tmp_path / "pictures.zip").read_bytes()[:-30])
    with PictureReader(tmp_path) as reader, pytest.raises(InputError, match=r"pictures\.zip is truncated"):
        reader.read("1.png")


@given(cut=st.integers(0, len(PNG)), where=st.integers(0, len(PNG) - 1), byte=st.integers(0, 255))
def test_a_damaged_picture_is_refused_in_one_line(cut: int, where: int, byte: int):
    damaged = bytearray(PNG)
    damaged[where] = byte
    with contextlib.suppress(InputError):
        assert decode_image(bytes(damaged[:cut]), "a.png").dtype == np.uint8


def test_a_square_from_the_middle():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 2:6] = 200
    assert (resize_image(image, 4) == 200).all()
    assert resize_image(image, 9).shape == (9, 9, 3)


def test_missing_pictures_are_skipped_with_a_message(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.png").write_bytes(b"no picture")
    messages: list[str] = []
    images, found = read_images(tmp_path, ["a.png", "b.png", "c.png"], 4, on_missing=messages.append)
    assert found.tolist() == [True, False, False]
    assert images.shape == (3, 4, 4, 3)
    assert images[0].any()
    assert not images[1:].any()
    assert ["b.png is no picture" in messages[0], "c.png" in messages[1], len(messages)] == [True, True, 2]
    with pytest.raises(InputError, match=r"no picture .*c\.png"):
        read_images(tmp_path, ["a.png", "c.png"], 4)


def test_pictures_of_a_captioning_folder(drawn: Path):
    names = (drawn / "val2014_urls.txt").read_text().split()
    images, found = read_images(drawn, names, 64)
    assert found.all()
    assert images.shape == (12, 64, 64, 3)
    assert len(np.unique(images.reshape(12, -1), axis=0)) == 12
