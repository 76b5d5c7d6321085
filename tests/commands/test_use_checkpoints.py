"""`flaxformer-edu caption` and `classify`: tables, files, pictures, and errors that name the remedy."""

import json
import tracemalloc

import numpy as np
import pytest
from flax import nnx
from parity.vit_libraries import library
from PIL import Image

from flaxformer_edu import convert
from flaxformer_edu.commands.caption import caption
from flaxformer_edu.commands.checkpoint import check_probabilities, picture_batches
from flaxformer_edu.commands.classify import classify
from flaxformer_edu.data import write_pictures
from flaxformer_edu.data.preprocessing import Preprocessing
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import (
    CaptioningConfig,
    CaptioningTransformer,
    VisionTransformer,
    ViTCaptioner,
    ViTCaptionerConfig,
    ViTConfig,
)
from flaxformer_edu.runs import open_model, save_model

AUTO = ("AutoImageProcessor", "AutoModelForImageClassification")
WORDS = ("<NULL>", "<START>", "<END>", "<UNK>", "a", "red", "ball")
PIXELS = {"mean": (0.5,), "std": (0.25,)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Three checkpoints, a picture, a file that is none, and a captioning folder."""
    folder = tmp_path_factory.mktemp("place")
    vit = VisionTransformer(ViTConfig.digits(classes=3), rngs=nnx.Rngs(0))
    vit.head.bias[...] = np.array([0.0, 9.0, 4.0])
    save_model(folder / "vit", vit, notes={"class_names": ("zero", "one", "two"), **PIXELS})
    save_model(folder / "bare", vit)
    captioner = CaptioningTransformer(
        CaptioningConfig.cs231n(vocab=7, features=30, width=8, max_length=4), rngs=nnx.Rngs(0)
    )
    save_model(folder / "features", captioner, notes={"idx_to_word": WORDS, **PIXELS})
    seeing = ViTCaptioner(ViTCaptionerConfig.small(vocab=7, image_size=16, max_length=4), rngs=nnx.Rngs(0))
    seeing.output.bias[...] = np.array([0, 0, 0, 0, 0, 50.0, 0])
    save_model(folder / "pixels", seeing, notes={"idx_to_word": WORDS, **PIXELS})
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(folder / "picture.png")
    (folder / "text.png").write_text("no picture")
    write_pictures(folder / "data", seed=1, train=30, val=12)
    return folder


def test_classify(place, tmp_path, capsys):
    out, file = tmp_path / "sheet.png", tmp_path / "rows.json"
    assert classify((place / "picture.png",) * 2, checkpoint=place / "vit", out=out, json=file) == 0
    assert "one 0." in capsys.readouterr().out
    rows = json.loads(file.read_text())
    assert [row["classes"][0]["class"] for row in rows] == ["one", "one"]
    assert sum(entry["probability"] for entry in rows[0]["classes"]) == pytest.approx(1)
    assert np.asarray(Image.open(out).convert("L")).min() < 100


def test_names_of_classes_are_handed_in(place, tmp_path, capsys):
    model, _ = open_model(place / "vit")
    save_model(tmp_path / "vit", model, notes=PIXELS)
    (tmp_path / "names.txt").write_text("eins\nzwei\n\ndrei\n")
    picture = (place / "picture.png",)
    for given, expected in ((("a", "b", "c"), "b 0."), ((str(tmp_path / "names.txt"),), "zwei 0.")):
        classify(picture, checkpoint=tmp_path / "vit", classes=given)
        assert expected in capsys.readouterr().out
    with pytest.raises(InputError, match=r"there are 2 names of classes, but .*vit has 3 classes"):
        classify(picture, checkpoint=tmp_path / "vit", classes=("a", "b"))
    with pytest.raises(InputError, match=r"none\.txt cannot be read as a text file"):
        classify(picture, checkpoint=tmp_path / "vit", classes=("none.txt",))


def test_published_models_classify_as_their_libraries_do(place, tmp_path, capsys):
    config = {"image_size": 8, "patch_size": 4, "width": 8, "layers": 1, "heads": 2, "hidden": 12, "classes": 3}
    model = VisionTransformer(ViTConfig.b16(**config, norm_epsilon=1e-12), rngs=nnx.Rngs(0))
    model.head.kernel[...] = np.random.default_rng(0).normal(size=(8, 3))
    kept = Preprocessing(size=8, resize="exact", interpolation="bilinear", arithmetic="torch", centre="floor")
    convert.save_huggingface(tmp_path / "hf", model, {"class_names": ("x", "y", "z"), **kept.notes()})
    transformers = library("transformers")
    opened = {name: getattr(transformers, name).from_pretrained(tmp_path / "hf") for name in AUTO}
    picture = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 20, 4), dtype=np.uint8)).save(picture)
    pixels = opened[AUTO[0]](images=Image.open(picture), return_tensors="pt", do_convert_rgb=True)
    expected = opened[AUTO[1]](**pixels).logits.softmax(-1).detach().numpy()[0]
    classify((picture,), checkpoint=str(tmp_path / "hf"), json=tmp_path / "rows.json")
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    ours = {entry["class"]: entry["probability"] for entry in row["classes"]}
    np.testing.assert_allclose([ours[name] for name in "xyz"], expected, atol=1e-6)


def test_photographs_are_let_go_one_after_the_other(tmp_path, monkeypatch):
    photograph = tmp_path / "photograph.png"
    Image.new("1", (2000, 1500)).save(photograph)  # 9 MB in colour
    monkeypatch.setattr("flaxformer_edu.commands.checkpoint.PICTURES_PER_CALL", 6)
    tracemalloc.start()
    try:
        (batch,) = (squares for squares, _ in picture_batches([photograph] * 6, Preprocessing(size=16)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert batch.shape == (6, 16, 16, 3)
    assert peak < 3.5 * 2000 * 1500 * 3


def test_weights_that_are_no_numbers_are_refused(place, tmp_path):
    model, notes = open_model(place / "vit")
    kernel = model.head.kernel
    for wrong in (np.nan, np.inf):
        kernel[...] = kernel[...].at[0, 0].set(wrong)
        save_model(tmp_path / f"{wrong}", model, notes=notes)
        with pytest.raises(InputError, match=r"parameter head\.kernel holds NaN or infinite"):
            classify((place / "picture.png",), checkpoint=tmp_path / f"{wrong}")
    with pytest.raises(InputError, match="probabilities for b are no numbers"):
        check_probabilities(np.array([[0.5, 0.5], [np.nan, 1]]), ["a", "b"])


def test_caption_from_pixels(place, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert caption((place / "picture.png",), checkpoint=place / "pixels", out=out) == 0
    assert "red red red red" in capsys.readouterr().out
    assert out.stat().st_size > 1000
    assert caption(checkpoint=place / "pixels", data=place / "data", index=(3,)) == 0
    assert "val_00003.png" in capsys.readouterr().out


def test_caption_from_features(place, tmp_path):
    out, file = tmp_path / "sheet.pdf", tmp_path / "rows.json"
    options = {"checkpoint": place / "features", "data": place / "data", "split": "train", "index": (0, 29)}
    assert caption(**options, out=out, json=file) == 0
    named = [row["picture"] for row in json.loads(file.read_text())]
    assert named == ["pictures/train_00000.png", "pictures/train_00029.png"]
    assert caption(**options, beam=3, json=file) == 0
    assert len(json.loads(file.read_text())) == 2
    with pytest.raises(InputError, match="beam is 0, expected 1"):
        caption(**options, beam=0)
    assert out.read_bytes().startswith(b"%PDF")


def test_what_cannot_be_done_is_said(place, tmp_path):
    picture, data = (place / "picture.png",), place / "data"
    with pytest.raises(InputError, match=r"no checkpoint .*none: hand in the folder that training wrote to"):
        classify(picture, checkpoint=place / "none")
    with pytest.raises(InputError, match="holds no model"):
        classify(picture, checkpoint=data)
    with pytest.raises(InputError, match=r"holds a CaptioningTransformer, .* use `flaxformer-edu caption`"):
        classify(picture, checkpoint=place / "features")
    with pytest.raises(InputError, match=r"holds a VisionTransformer, .* use `flaxformer-edu classify`"):
        caption(picture, checkpoint=place / "vit")
    with pytest.raises(InputError, match="bare has 3 classes without names: hand them in with --classes"):
        classify(picture, checkpoint=place / "bare")
    with pytest.raises(InputError, match="saved without preprocessing, or mean and std"):
        classify(picture, checkpoint=place / "bare", classes=("a", "b", "c"))
    with pytest.raises(InputError, match=r"text\.png is no picture"):
        classify((place / "text.png",), checkpoint=place / "vit")
    with pytest.raises(InputError, match=r"no picture .*gone\.png"):
        caption((place / "gone.png",), checkpoint=place / "pixels")
    with pytest.raises(InputError, match="sees features, not pictures: hand in --data"):
        caption(picture, checkpoint=place / "features")
    with pytest.raises(InputError, match=r"index 12 is outside .* pictures 0 to 11"):
        caption(checkpoint=place / "features", data=data, index=(3, 12))
    wide = write_pictures(tmp_path / "wide", seed=1, train=40, val=12)
    with pytest.raises(InputError, match=r"features has shape .* features=30"):
        caption(checkpoint=place / "features", data=wide, index=(0,))
    with pytest.raises(InputError, match="name at least one image file"):
        classify((), checkpoint=place / "vit")
    for wrong in ({}, {"index": (1,)}, {"data": data}, {"pictures": picture, "index": (1,), "data": data}):
        with pytest.raises(InputError, match="nothing to caption"):
            caption(**wrong, checkpoint=place / "pixels")
    with pytest.raises(InputError, match=r"sheet\.txt does not end in a kind of picture"):
        classify(picture, checkpoint=place / "vit", out=tmp_path / "sheet.txt")
