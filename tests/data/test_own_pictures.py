"""One's own pictures, in subfolders or in a CSV: of any kind, split evenly, and named where they cannot be used."""

from pathlib import Path

import numpy as np
import pytest
from data.strange_pictures import strange_picture
from PIL import Image

from flaxformer_edu.data import has_pictures, load_pictures, measure_pixels
from flaxformer_edu.data.image_sets import own
from flaxformer_edu.data.preprocessing import Preprocessing
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx

SMALL = Preprocessing(size=8)


def fill(folder: Path, count: int, first: int = 0) -> Path:
    """Every kind of picture, in a folder."""
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        image = strange_picture(number, largest=30)
        Path(folder / f"{number:03}{'.tif' if image.format == 'TIFF' else '.png'}").write_bytes(image.fp.getvalue())
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name, count in (("dogs", 10), ("cats", 20)):
        fill(tmp_path / "set" / name, count)
    (tmp_path / "set" / "cats" / "notes.txt").write_text("not a picture, and not taken for one")
    (tmp_path / "set" / ".hidden").mkdir()
    return tmp_path / "set"


def test_subfolders_are_classes(pictures: Path):
    parts = load_pictures(pictures, SMALL, val=0.2, seed=3)
    assert [(split, len(part)) for split, part in parts.items()] == [("train", 24), ("val", 6)]
    for part, counts in zip(parts.values(), ([16, 8], [4, 2]), strict=True):
        assert part.class_names == ("cats", "dogs")
        assert part["images"].shape[1:] == (8, 8, 3)
        assert np.bincount(part["labels"]).tolist() == counts
    again, other = (load_pictures(pictures, SMALL, val=0.2, seed=seed)["val"]["images"] for seed in (3, 4))
    assert np.array_equal(parts["val"]["images"], again)
    assert not np.array_equal(again, other)


def test_folders_of_their_own_are_splits(tmp_path: Path):
    for split, count in (("train", 3), ("val", 2)):
        for name in ("cats", "dogs"):
            fill(tmp_path / split / name, count)
    assert has_pictures(tmp_path)
    parts = load_pictures(tmp_path, SMALL)
    assert [len(part) for part in parts.values()] == [6, 4]
    fill(tmp_path / "val" / "owls", 1)
    with pytest.raises(InputError, match="none of the pictures to train on is owls"):
        load_pictures(tmp_path, SMALL)


def test_a_table_names_files_and_labels(pictures: Path):
    table = pictures / "all.csv"
    rows = [f"dogs/{n:03}{'.tif' if n % 9 in (5, 7) else '.png'},{'odd' if n % 2 else 'even'}" for n in range(10)]
    table.write_text("file,label\n" + "\n".join(rows))
    assert has_pictures(table)
    parts = load_pictures(table, SMALL, val=0.4)
    assert [part.class_names for part in parts.values()] == [("even", "odd")] * 2
    assert [len(part) for part in parts.values()] == [6, 4]
    for content, message in (
        ("name,label\na.png,1", "line 2: there is no file or no label: the first line is file,label"),
        ("file,label\na.png,", "line 2: there is no file or no label"),
        ("file,label\n", "names no pictures"),
        ("file,label\n../../a.png,1\ndogs/000.png,2\n" * 3, "leads out of"),
    ):
        table.write_text(content)
        with pytest.raises(InputError, match=message):
            load_pictures(table, SMALL, val=0.4)
    with pytest.raises(InputError, match=r"none\.csv cannot be read"):
        load_pictures(pictures / "none.csv", SMALL)


def test_what_cannot_be_used_is_named(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for number in range(7):
        (pictures / "cats" / f"bad{number}.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"cannot be used: .*bad\d\.jpg is no picture .*: replace them, or take"):
        load_pictures(pictures, SMALL)
    for number in range(7):
        (pictures / "cats" / f"bad{number}.jpg").unlink()
    with pytest.raises(InputError, match=r"held_out is 1\.5, expected a share"):
        load_pictures(pictures, SMALL, val=1.5)
    with pytest.raises(InputError, match="too few pictures of each class to hold out 1%"):
        load_pictures(pictures, SMALL, val=0.01)
    with pytest.raises(InputError, match=r"no folder .*gone, expected a folder with a subfolder"):
        load_pictures(tmp_path / "gone", SMALL)
    with pytest.raises(InputError, match="has no pictures in subfolders"):
        load_pictures(pictures / "cats", SMALL)
    fill(tmp_path / "one" / "cats", 5)
    with pytest.raises(InputError, match="has pictures of cats alone"):
        load_pictures(tmp_path / "one", SMALL)
    monkeypatch.setattr(own, "LARGEST", 1000)
    with pytest.raises(InputError, match=r"the 30 pictures in .* would take 0\.0 GB of memory at 8 x 8 pixels"):
        load_pictures(pictures, SMALL)
    assert not has_pictures(pictures / "cats")
    assert not has_pictures(tmp_path / "gone")


def test_pixels_are_measured():
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    pixels = measure_pixels(images)
    np.testing.assert_allclose(pixels.mean, (images / 255).mean(axis=(0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(pixels.std, (images / 255).std(axis=(0, 1, 2)), atol=1e-4)
    assert measure_pixels(np.zeros((2, 3, 3, 1), np.uint8)).std[0] > 0


def test_a_turned_and_a_deep_picture_are_seen_rightly(tmp_path: Path):
    deep = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(2):
            exif = Image.Exif()
            exif[274] = 3
            Image.fromarray(deep).save(tmp_path / name / f"{number}.png", exif=exif)
    images = load_pictures(tmp_path, SMALL, val=0.5)["train"]["images"]
    assert images[0, 0, 0].tolist() == [255] * 3
    assert images[0, 7, 7].tolist() == [0] * 3
