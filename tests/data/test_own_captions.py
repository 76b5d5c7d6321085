"""One's own pictures with captions: a folder that the recipes read, or an error that names the picture or the row."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from flaxformer_edu.commands.data import make_captions, show
from flaxformer_edu.data import decode_captions, load_coco, read_images, write_caption_folder
from flaxformer_edu.data.captions.caption_files import read_captions, words_of
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx

CAPTIONS = {f"deep/{number}.png": [f"A ball, number {number}!", "a BALL"] for number in range(9)}
CAPTIONS["wide.png"] = ["a café"]
COCO = {
    "images": [{"id": number, "file_name": name} for number, name in enumerate(CAPTIONS)],
    "annotations": [
        {"image_id": number, "id": 0, "caption": text} for number, its in enumerate(CAPTIONS.values()) for text in its
    ],
}
TABLE = "".join(f"{name}\t{text}\n" for name, its in CAPTIONS.items() for text in its)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "pictures" / "deep").mkdir(parents=True)
    for number in range(10):
        Image.new("RGB", (9, 8), (20 * number, 0, 0)).save(tmp_path / "pictures" / "deep" / f"{number}.png")
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (800, 400), "blue").save(tmp_path / "pictures" / "wide.png", exif=exif)
    (tmp_path / "captions.json").write_text(json.dumps(CAPTIONS))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", json.dumps(CAPTIONS)), ("b.json", json.dumps(COCO)), ("a.tsv", TABLE), ("a.txt", f"\ufeff{TABLE}\n")],
)
def test_captions_in_every_form(tmp_path: Path, name: str, content: str):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_captions(tmp_path / name) == CAPTIONS


def test_words():
    assert words_of("A man's well-known “café”, 2 x—y_z!") == ["a", "man's", "well-known", "café", "2", "x", "y", "z"]
    assert words_of("一只 Katze") == ["一", "只", "katze"]
    assert words_of("नमस्ते दुनिया") == ["नमस्ते", "दुनिया"]
    assert words_of("Cafe\u0301 <START>") == ["café", "start"]
    assert words_of(" -- ' !") == []


def test_the_folder_is_what_the_recipes_read(place: Path, capsys: pytest.CaptureFixture[str]):
    assert make_captions(place / "pictures", place / "captions.json", place / "set", 0.2, 5000, 1) == 0
    assert "10 pictures with 19 captions are in" in capsys.readouterr().out
    data = load_coco(place / "set", features=False)
    names = {split: (place / "set" / f"{split}2014_images.txt").read_text().split() for split in ("train", "val")}
    assert {split: len(its) for split, its in names.items()} == {"train": 8, "val": 2}
    assert sorted(names["train"] + names["val"]) == sorted(CAPTIONS)
    assert data["train_captions"].shape[1] == 6
    known = set(data["idx_to_word"])
    for split, its in names.items():
        for caption, picture in zip(data[f"{split}_captions"], data[f"{split}_image_idxs"], strict=True):
            written = [
                " ".join(["<START>", *(word if word in known else "<UNK>" for word in words_of(text)), "<END>"])
                for text in CAPTIONS[its[picture]]
            ]
            assert decode_captions(caption, data["idx_to_word"]) in written
        images, _ = read_images(place / "set", data[f"{split}_urls"], 8)
        for name, image in zip(its, images, strict=True):
            red = 20 * int(Path(name).stem) if name != "wide.png" else 0
            assert (image[..., 0] == red).all()
    assert show("coco", place / "sheet.png", folder=place / "set", count=3) == 0


def test_pictures_are_kept_upright_and_small(place: Path):
    made = write_caption_folder(place / "pictures", place / "captions.json", place / "set", words=2)
    assert (made.vocabulary, made.length) == (6, 6)
    assert made.unknown == pytest.approx(19 / 56)
    with zipfile.ZipFile(place / "set" / "pictures.zip") as archive:
        sizes = {Image.open(io.BytesIO(archive.read(name))).size for name in archive.namelist()}
    assert sizes == {(9, 8), (256, 512)}


def test_the_split_is_by_picture_and_seed(place: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_caption_folder(place / "pictures", place / "captions.json", place / name, val=0.3, seed=seed)
    held = [(place / name / "val2014_images.txt").read_text() for name in "abc"]
    assert held[0] == held[1] != held[2]
    assert len(held[0].split()) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[1]", r"a\.json holds a list, expected \{"),
        ("a.json", "{}", r"a\.json holds no captions"),
        ("a.json", "{", r"a\.json is not valid JSON"),
        ("a.json", '{"x.png": 3}', r"'x\.png' has 3 for captions"),
        ("a.json", '{"x.png": []}', r"'x\.png' has \[\] for captions"),
        ("a.json", '{"x.png": ["a", 3]}', r"'x\.png' has \['a', 3\] for captions"),
        ("a.json", '{"x.png": "?!"}', r"a caption of 'x\.png' has no words \('\?!'\)"),
        ("a.json", '{"annotations": []}', "images is None, expected a list of objects"),
        ("a.json", '{"annotations": [3], "images": []}', r"annotations is \[3\], expected a list"),
        ("a.json", '{"annotations": [{"image_id": 7}], "images": []}', r"annotations\[0\] is .*image_id': 7"),
        ("a.json", '{"annotations": [{"image_id": [7]}], "images": []}', r"annotations\[0\] is"),
        ("a.json", '{"annotations": [], "images": [{"id": 1}]}', r"images\[0\] is .*expected an id"),
        ("a.tsv", "x.png\ta\n\nx.png a\n", r"a\.tsv, line 3: 'x\.png a' has 0 tabs"),
        ("a.tsv", "x.png\ta\tb\n", "line 1: .* has 2 tabs"),
        ("a.tsv", "\ta\n", "line 1"),
        ("a.tsv", "", "holds no captions"),
    ],
)
def test_captions_that_cannot_be_understood(tmp_path: Path, name: str, content: str, message: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_captions(tmp_path / name)


def test_what_is_missing_is_named(place: Path):
    def make(captions: object, **options: float) -> None:
        (place / "captions.json").write_text(json.dumps(captions))
        write_caption_folder(place / "pictures", place / "captions.json", place / "set", **options)  # pyright: ignore

    with pytest.raises(InputError, match=r"no picture .*deep/77\.png"):
        make({**CAPTIONS, "deep/77.png": ["a"]})
    with pytest.raises(InputError, match=r"picture \.\./captions\.json leads out of"):
        make({**CAPTIONS, "../captions.json": ["a"]})
    with pytest.raises(InputError, match=r"http://a/b\.png is a place in the web"):
        make({**CAPTIONS, "http://a/b.png": ["a"]})
    (place / "pictures" / "text.png").write_text("no picture")
    with pytest.raises(InputError, match=r"text\.png is no picture"):
        make({**CAPTIONS, "text.png": ["a"]})
    with pytest.raises(InputError, match=r"a caption of 'wide\.png' has 300 words, expected 254 at most"):
        make({**CAPTIONS, "wide.png": ["a " * 300]})
    with pytest.raises(InputError, match=r"val is 0\.1 of 1 pictures"):
        make({"wide.png": ["a"]})
    for options, message in (({"val": 1.0}, "val is 1"), ({"words": 0}, "words is 0"), ({"seed": -1}, "seed is -1")):
        with pytest.raises(InputError, match=message):
            make(CAPTIONS, **options)
    assert not (place / "set").exists()
    (place / "captions.json").unlink()
    for name in ("captions.json", "captions.tsv"):
        with pytest.raises(InputError, match=r"no file .*captions\."):
            write_caption_folder(place / "pictures", place / name, place / "set")
    (place / "captions.json").write_text(json.dumps(CAPTIONS))
    with pytest.raises(InputError, match=r"no folder .*nowhere: name the folder with the pictures"):
        write_caption_folder(place / "nowhere", place / "captions.json", place / "set")


def test_no_dead_end(place: Path):
    with pytest.raises(InputError, match=r"no file .*coco2014_captions\.h5; .* `flaxformer-edu data captions`"):
        load_coco(place / "pictures")
    write_caption_folder(place / "pictures", place / "captions.json", place / "set")
    with pytest.raises(InputError, match=r"no file .*fc7_pca\.h5; .*train on the pictures .*--preset pixels"):
        load_coco(place / "set")
    urls = place / "set" / "val2014_urls.txt"
    urls.write_text("")
    with pytest.raises(InputError, match=r"val_image_idxs runs from 0 to 0, but val2014_urls\.txt has 0 pictures"):
        load_coco(place / "set", features=False)
