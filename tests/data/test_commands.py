"""`flaxformer-edu data`: the table, the fetching, and sheets that show something."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxformer_edu.commands.data import fetch, list_sources, show
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx


def ink(path: Path, box: tuple[float, float, float, float]) -> float:
    """The share of pixels that are not white in a part of a picture: left, top, right, bottom from 0 to 1."""
    pixels = np.asarray(Image.open(path).convert("L"))
    height, width = pixels.shape
    left, top, right, bottom = box
    part = pixels[int(top * height) : int(bottom * height), int(left * width) : int(right * width)]
    return float((part < 250).mean())


def test_the_list_says_what_is_there(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert list_sources(json=tmp_path / "list.json") == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "list.json").read_text())}
    assert set(rows) == {"digits", "pictures", "mnist", "cifar10", "coco", "lang_id"}
    assert [name for name, row in rows.items() if row["ready"]] == ["digits"]
    assert rows["cifar10"]["megabytes"] == 170
    assert rows["pictures"]["place"] == str(cache / "pictures")
    (cache / "pictures").mkdir(parents=True)
    (cache / "pictures" / "file").write_bytes(bytes(2_000_000))
    assert list_sources(json=tmp_path / "list.json") == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "list.json").read_text())}
    assert rows["pictures"]["ready"]
    assert rows["pictures"]["megabytes"] == 2
    assert "lang_id" in capsys.readouterr().out


def test_a_sheet_of_digits(tmp_path: Path):
    assert show("digits", tmp_path / "digits.png", split="test", count=7) == 0
    assert ink(tmp_path / "digits.png", (0, 0, 1, 1)) > 0.3
    assert ink(tmp_path / "digits.png", (0.2, 0.6, 1, 1)) == 0  # one digit in the second row


def test_a_sheet_of_pictures_with_captions(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert show("pictures", tmp_path / "sheet.png", folder=drawn, split="val", count=6) == 0
    assert "6 examples drawn" in capsys.readouterr().out
    assert ink(tmp_path / "sheet.png", (0, 0, 1, 1)) > 0.2


def test_pictures_that_are_missing_are_left_out(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    urls = (folder / "val2014_urls.txt").read_text().split()
    (folder / "val2014_urls.txt").write_text("\n".join([*urls[:-1], "gone.png"]))
    show("coco", tmp_path / "sheet.png", folder=folder, split="val", count=12)
    output = capsys.readouterr()
    assert "11 examples drawn" in output.out
    assert "gone.png" in output.err
    (folder / "pictures.zip").unlink()
    with pytest.raises(InputError, match=r"no example could be read"):
        show("coco", tmp_path / "none.png", folder=folder)
    assert not (tmp_path / "none.png").exists()


def test_words_are_written_large(real_data: Path, tmp_path: Path):
    show("lang_id", tmp_path / "words.png", folder=real_data / "lang_id", split="dev", count=6)
    assert 0.005 < ink(tmp_path / "words.png", (0, 0.2, 1, 1)) < 0.2


def test_what_cannot_be_done_is_said(cache: Path, drawn: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"no data set is called 'cifar'; there are digits, pictures"):
        show("cifar", tmp_path / "a.png")
    with pytest.raises(InputError, match=r"digits has no split 'val'; it has train, test"):
        show("digits", tmp_path / "a.png", split="val")
    with pytest.raises(InputError, match=r"pictures has no split 'test'; it has train, val"):
        show("pictures", tmp_path / "a.png", folder=drawn, split="test")
    with pytest.raises(InputError, match=r"a\.txt does not end in a kind of picture"):
        show("digits", tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"count is 0"):
        show("digits", tmp_path / "a.png", count=0)
    with pytest.raises(InputError, match=r"seed is -1, expected 0 or more"):
        show("digits", tmp_path / "sheet.png", seed=-1)
    with pytest.raises(InputError, match=r"is a folder"):
        show("digits", tmp_path)
    with pytest.raises(InputError, match=r"digits cannot be fetched: it comes with an installed package"):
        fetch("digits")
    with pytest.raises(InputError, match=r"lang_id cannot be fetched: copy it from your course to .*lang_id\.npz"):
        fetch("lang_id")
    with pytest.raises(InputError, match=r"mnist is always kept in"):
        fetch("mnist", out=tmp_path / "mnist")
    with pytest.raises(InputError, match=r"no folder .*coco_captioning"):
        show("coco", tmp_path / "a.png")
    assert [path for path in tmp_path.iterdir() if path != cache] == []


def test_pictures_are_fetched_once(cache: Path, drawn: Path, capsys: pytest.CaptureFixture[str]):
    cache.mkdir()
    (cache / "pictures").symlink_to(drawn)
    assert fetch("pictures") == 0
    assert "there already" in capsys.readouterr().out
    with pytest.raises(InputError, match="already exists"):
        fetch("pictures", out=drawn)
