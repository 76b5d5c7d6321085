"""Every kind of picture file is seen as a viewer shows it, or refused by its name."""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flaxformer_edu.data import PictureReader, read_images
from flaxformer_edu.data.formats.pictures import decode_image
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx

COLOURS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
LEVELS = np.arange(0, 256, 5, dtype=np.uint8).reshape(4, 13)
EXIF_TURNS = {  # from the standard: what the viewer has to do with the rows and columns
    2: np.fliplr, 3: lambda image: np.rot90(image, 2), 4: np.flipud, 5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1), 7: lambda image: np.rot90(image.swapaxes(0, 1), 2), 8: np.rot90,
}  # fmt: skip


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(content, kind, **options)
    return content.getvalue()


@pytest.mark.parametrize("turn", EXIF_TURNS)
def test_a_turned_picture_stands_upright(turn: int):
    for image in (COLOURS, LEVELS, LEVELS.astype(np.uint16) * 257):
        exif = Image.Exif()
        exif[274] = turn
        upright = EXIF_TURNS[turn](image if image.ndim == 3 else np.stack([LEVELS] * 3, axis=-1))
        for kind in ("PNG", "TIFF"):
            assert np.array_equal(decode_image(encoded(image, kind, exif=exif), "a"), upright)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled(kind: str):
    shown = decode_image(encoded(LEVELS.astype(np.uint16) * 257, kind), "a")
    assert np.array_equal(shown, np.stack([LEVELS] * 3, axis=-1))


def test_tiff_says_how_its_numbers_are_meant():
    deep = LEVELS.astype(np.uint16) * 257
    assert np.array_equal(decode_image(encoded(deep, "TIFF", tiffinfo={262: 0}), "a")[..., 0], 255 - LEVELS)
    assert np.array_equal(decode_image(encoded(LEVELS / np.float32(255), "TIFF"), "a")[..., 0], LEVELS)
    for numbers in ([0, 255.0], [-0.1, 1], [0, np.nan], [0, np.inf]):
        with pytest.raises(InputError, match=r"a\.tif holds numbers from .*, expected 0 to 1"):
            decode_image(encoded(np.array([numbers], np.float32), "TIFF"), "a.tif")
    with pytest.raises(InputError, match=r"a\.tif holds signed or very large whole numbers"):
        decode_image(encoded(np.array([[0, 70_000]], np.int32), "TIFF"), "a.tif")


def test_what_is_transparent_is_white():
    blots = np.zeros((3, 3, 4), np.uint8)  # black is hidden below what is transparent
    blots[0, 0] = (200, 40, 60, 255)
    blots[1, 1] = (0, 0, 0, 128)
    expected = np.full((3, 3, 3), 255, np.uint8)
    expected[0, 0], expected[1, 1] = blots[0, 0, :3], 127
    assert np.array_equal(decode_image(encoded(blots), "a"), expected)
    expected[1, 1] = 255
    opaque = blots[..., :3] * (blots[..., 3:] == 255)
    for image, kind, options in (
        (Image.fromarray(opaque), "PNG", {"transparency": (0, 0, 0)}),
        (Image.fromarray(opaque).quantize(2), "PNG", {"transparency": 0}),
        (Image.fromarray(opaque).quantize(2), "GIF", {"transparency": 0}),
    ):
        if image.mode == "P":
            options["transparency"] = image.getpixel((2, 2))
        assert np.array_equal(decode_image(encoded(image, kind, **options), "a"), expected), (image.mode, kind)
    grey = Image.fromarray(opaque[..., 0])
    assert decode_image(encoded(grey, transparency=0), "a")[..., 0].tolist() == [[200, 255, 255], *[[255] * 3] * 2]
    assert decode_image(encoded(Image.fromarray(blots).convert("LA")), "a")[2, 2].tolist() == [255] * 3
    white = np.where([True, True, True, False], np.uint8(255), blots)
    for nothing in (np.zeros_like(blots), white):
        with pytest.raises(InputError, match=r"a\.png is transparent and shows nothing but white"):
            decode_image(encoded(nothing), "a.png")
    with pytest.raises(InputError, match=r"a\.png has 16 bits and a transparent colour"):
        decode_image(encoded(LEVELS.astype(np.uint16), transparency=0), "a.png")


def test_other_kinds():
    red = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):
        assert decode_image(encoded(red, kind), "a")[0, 0].tolist() == [255, 0, 0]
    assert decode_image(encoded(np.array([[True, False]])), "a")[..., 0].tolist() == [[255, 0]]
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "PNG", "TIFF"):
        moving = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert decode_image(moving, "a")[0, 0].tolist() == [255, 0, 0], kind


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_a_cut_picture_is_refused(kind: str):
    whole = encoded(np.repeat(np.repeat(COLOURS, 8, 0), 8, 1), kind)
    for share in (0, 0.3, 0.6, 0.9):
        with pytest.raises(InputError, match=r"a\.x is no picture that can be read, or damaged .*; replace it"):
            decode_image(whole[: int(share * len(whole))], "a.x")


def test_more_pixels_than_memory_are_refused():
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    for side in (10_000, 30_000, 2**31 - 1):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        with pytest.raises(InputError, match=r"a\.png has too many pixels .*; make it smaller"):
            decode_image(bomb, "a.png")


def test_names_of_others_stay_in_their_folder(tmp_path: Path):
    (tmp_path / "data").mkdir()
    for place in ("secret.png", "data/a.png"):
        (tmp_path / place).write_bytes(encoded(COLOURS))
    reader = PictureReader(tmp_path / "data")
    for name in ("a.png", "./a.png", str(tmp_path / "data" / "a.png")):
        assert np.array_equal(reader.read(name), COLOURS)
    for name in ("../secret.png", "a/../../secret.png", str(tmp_path / "secret.png")):
        with pytest.raises(InputError, match=r"picture .*secret\.png leads out of .*data"):
            reader.read(name)
    assert np.array_equal(PictureReader().read(str(tmp_path / "secret.png")), COLOURS), "named by the user"
    for name in ("a" * 5000, "a\0b"):
        with pytest.raises(InputError, match="picture"):
            reader.read(name)


def test_zip_files_that_fail_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "pictures.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", encoded(COLOURS))
        archive.writestr("bomb.png", bytes(300_000))
    whole = path.read_bytes()
    with PictureReader(tmp_path) as reader, monkeypatch.context() as patch:
        patch.setattr("flaxformer_edu.data.images._LARGEST_FILE", 200_000)
        with pytest.raises(InputError, match=r"bomb\.png in .*pictures\.zip is larger than"):
            reader.read("bomb.png")
    for at in range(0, 120, 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with PictureReader(tmp_path) as reader:
            try:
                assert np.array_equal(reader.read("1.png"), COLOURS)
            except InputError as error:
                assert "1.png" in str(error) or "pictures.zip" in str(error)  # noqa: PT017
    for damaged in (whole[: len(whole) // 2], b""):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"pictures\.zip is truncated or no zip file"):
            read_images(tmp_path, ["1.png"], 8)
    path.unlink()
    with pytest.raises(InputError, match=r"no picture .*1\.png, nor in a zip file"):
        read_images(tmp_path, ["1.png"], 8)
