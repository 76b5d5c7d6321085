"""Preprocessing equals Pillow's, torchvision's, transformers' and timm's: no level differs, on pictures of any kind."""

import json
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from data.strange_pictures import strange_picture
from parity.vit_libraries import library
from PIL import Image, ImageOps

from flaxformer_edu.data.formats.pictures import to_rgb
from flaxformer_edu.data.preprocessing import Preprocessing, assumed_for, read_timm, read_transformers, resize_picture
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx

FEW, MANY = 18, 1000
UNSMOOTHED = {"size": 3, "arithmetic": "torch", "antialias": False}
NUMBERS = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
RAW = {"do_rescale": False, "do_normalize": False}
PROCESSORS = {
    "ViT": {"size": {"height": 24, "width": 24}, **NUMBERS},
    "DeiT": {"size": {"height": 29, "width": 29}, "crop_size": {"height": 24, "width": 24}, **NUMBERS},
    "Beit": {"size": {"height": 24, "width": 24}, "resample": 2},
    "CLIP": {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}},
    "Bit": {"size": {"shortest_edge": 27}, "crop_size": {"height": 24, "width": 24}, "resample": 3},
    "Siglip": {"size": {"height": 24, "width": 24}, "resample": 1},
    "DINOv3ViT": {"size": {"height": 24, "width": 24}},
}
COUNTS = [FEW, pytest.param(MANY, marks=pytest.mark.slow)]


def rgb(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    return np.asarray(to_rgb(image, preprocessing.colours))


def worst(expected: Any, ours: Any) -> float:
    return float(np.abs(np.asarray(expected, np.float64) - ours).max())



def pictures(count: int, most: float = 60):
    """Upright pictures, and the same as files hold them. Longer strips would grow beyond any library's memory."""
    for number in range(count):
        image = strange_picture(number)
        if max(image.size) / min(image.size) <= most:
            yield ImageOps.exif_transpose(image), image


@pytest.mark.parametrize("kind", PROCESSORS)
@pytest.mark.parametrize("count", COUNTS)
def test_transformers(kind: str, count: int):
    transformers = library("transformers")
    described = PROCESSORS[kind]
    processor = getattr(transformers, f"{kind}ImageProcessor")(**described)
    ours = read_transformers("a.json", json.loads(processor.to_json_string()), size=24)
    kept = read_transformers("a.json", {"image_processor_type": f"{kind}ImageProcessor", **described}, size=24)
    assert ours == kept, "a file that says less means the same"
    raw = read_transformers("a.json", {"image_processor_type": f"{kind}ImageProcessor", **described, **RAW}, size=24)
    silent = read_transformers("a.json", {"image_processor_type": f"{kind}ImageProcessor"}, size=224)
    default = getattr(transformers, f"{kind}ImageProcessor")().to_json_string()
    assert silent == read_transformers("a.json", json.loads(default), size=224), "nor does one that says nothing"
    for upright, image in pictures(count):
        squares = ours.square(rgb(image, ours))[None]
        assert squares.shape == (1, 24, 24, 3)
        options = {"return_tensors": "np", "do_convert_rgb": True}
        levels = processor(images=upright, **options, **RAW)["pixel_values"].transpose(0, 2, 3, 1)
        assert worst(levels, raw.square(rgb(image, raw))) == 0, image
        values = processor(images=upright, **options)["pixel_values"].transpose(0, 2, 3, 1)
        largest = np.abs(values).max() if kind == "DINOv3ViT" else 1  # resized in float32, it rounds in between
        assert worst(values, ours.normalise(squares)) <= 1e-6 * largest, image


@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("count", COUNTS)
def test_timm(mode: str, count: int):
    timm = library("timm.data")
    for name, share in (("bicubic", 0.9), ("bilinear", 0.875), ("lanczos", 1.0), ("nearest", 0.95)):
        described = {"input_size": (3, 24, 24), "interpolation": name, "crop_pct": share, "crop_mode": mode}
        config = timm.resolve_data_config({}, pretrained_cfg=described)
        transform = timm.create_transform(**config, is_training=False)
        ours = read_timm("a.json", described)
        for upright, image in pictures(count):
            values = transform(upright.convert("RGB")).numpy().transpose(1, 2, 0)
            assert worst(values, ours.normalise(ours.square(rgb(image, ours))[None])[0]) <= 1e-6, image


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("kind", ["pillow", "torch"])
@pytest.mark.parametrize("count", COUNTS)
def test_torchvision(kind: str, antialias: bool, count: int):
    v2, modes = library("torchvision.transforms.v2"), library("torchvision.transforms").InterpolationMode
    for name in ("bilinear", "bicubic") if antialias or kind == "torch" else ():
        mode = modes(name)
        to_square = v2.Compose([v2.Resize(28, mode, antialias=antialias), v2.CenterCrop(24)])
        options = {"interpolation": name, "arithmetic": kind, "antialias": antialias, "colours": "kept"}
        ours = Preprocessing(size=24, resize="shortest", resize_to=28, **options)
        for upright, image in pictures(count):
            theirs = upright.convert("RGB")
            theirs = theirs if kind == "pillow" else torch.from_numpy(np.array(theirs).transpose(2, 0, 1).copy())
            levels = np.asarray(to_square(theirs))
            levels = levels if kind == "pillow" else levels.transpose(1, 2, 0)
            assert worst(levels, ours.square(rgb(image, ours))) == 0, image


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("antialias", [True, False])
def test_torchvision_of_floats(antialias: bool, count: int):
    functional = library("torchvision.transforms.v2.functional")
    modes = library("torchvision.transforms").InterpolationMode
    names = ("bilinear", "bicubic", "lanczos")[: 3 if antialias else 2]
    for number in range(count):
        random = np.random.default_rng(number)
        image = random.integers(0, 256, (*random.integers(1, 99, 2), 3), dtype=np.uint8)
        height, width = (int(side) for side in random.integers(2, 99, 2))  # of one column PyTorch's are wrong
        floats = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))
        for name in names:
            options = {"interpolation": modes(name), "antialias": antialias}
            theirs = functional.resize(floats, [height, width], **options).numpy().transpose(1, 2, 0)
            ours = resize_picture(image, height, width, name, "torch_float", antialias)
            assert worst(theirs, ours) <= 2e-6 * 255, (name, image.shape, height, width)


def test_a_kind_of_every_picture_is_there():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(FEW):
            image = strange_picture(number)
            for colours in ("shown", "white", "kept"):
                assert to_rgb(strange_picture(number), colours).mode == "RGB", image
    deep = Image.fromarray(np.array([[0, 128, 255, 4096, 65535]], np.uint16))
    assert np.asarray(to_rgb(deep, "kept"))[0, :, 0].tolist() == [0, 128, 255, 255, 255]
    assert np.asarray(to_rgb(deep))[0, :, 0].tolist() == [0, 0, 1, 16, 255]


def test_kept_as_json():
    whole = Preprocessing(
        size=24, channels=1, colours="kept", resize="shortest", resize_to=28, interpolation="bilinear",
        arithmetic="torch", antialias=False, centre="floor", rescale=1 / 127.5, mean=(1.0,), std=(0.5,),
    )  # fmt: skip
    for one in (whole, Preprocessing(size=7), Preprocessing(size=7, mean=(0.1, 0.2, 0.3))):
        assert Preprocessing.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert whole.at(48) == replace(whole, size=48, resize_to=56)
    assert Preprocessing(size=7).at(9) == Preprocessing(size=9)


def test_grey_and_sizes_that_stay():
    picture = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    cut = Preprocessing(size=5, resize="none", channels=1).square(picture)
    expected = np.asarray(Image.fromarray(picture).convert("L"))[2:7, 3:8, None]
    assert np.abs(cut.astype(int) - expected).max() <= 1
    padded = Preprocessing(size=12, resize="none").square(picture)
    assert np.array_equal(padded[1:10, 0:11], picture)
    assert not padded[0].any()


def test_floats_can_be_looked_at():
    picture = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    kept = Preprocessing(size=9, resize="none", arithmetic="torch_float")
    assert kept.square(picture).dtype == np.float32
    assert np.array_equal(kept.levels(kept.square(picture)), picture)
    assert np.allclose(kept.normalise(kept.square(picture)[None]), picture / 255, atol=1e-6)


def test_assumptions_follow_the_layout():
    assert assumed_for("torchvision", size=224).resize_to == 256
    assert assumed_for("timm", size=24).resize_to == 26
    assert assumed_for("hf_vit", size=24).arithmetic == "torch"
    assert assumed_for("cs231n", size=24) is None
    assert assumed_for("torchvision", size=24, channels=1).mean == (0.5,)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"do_shear": 3}, "a.json has do_shear = 3, which is not understood"),
        ({"do_pad": True}, "do_pad = True, which is not understood"),
        ({"image_processor_type": "FlavaImageProcessor"}, "image_processor_type is 'FlavaImageProcessor', and those"),
        ({"size": {"height": 24, "width": 30}}, "size is .*, expected a square"),
        ({"size": {"shortest_edge": 24}}, "pictures keep their shape"),
        ({"size": {"longest_edge": 24}}, "size is .*, expected a square"),
        ({"size": -3}, "a.json: size is -3, expected a whole number from 1"),
        ({"resample": 4}, r"resample is 4, expected one of 0 \(nearest\), 1 \(lanczos\)"),
        ({"do_resize": "yes"}, "do_resize is 'yes', expected true or false"),
        ({"image_mean": [1, 2]}, "mean is .*, expected 1 or 3 numbers"),
        ({"image_mean": "grey"}, "image_mean is 'grey', expected a list of numbers"),
        ({"image_std": [0, 1, 1]}, "expected numbers above 0"),
        ({"rescale_factor": 0}, "rescale_factor is 0, expected a number above 0"),
    ],
)
def test_what_is_not_understood_is_refused(described: dict, message: str):
    with pytest.raises(InputError, match=message):
        read_transformers("a.json", described, size=24)


@pytest.mark.usefixtures("unchecked")
def test_what_timm_cannot_mean_is_refused():
    for described, message in (
        ({"crop_mode": "border"}, "crop_mode is 'border', expected one of center, squash"),
        ({"crop": 1}, "a.json has crop, which timm's pretrained_cfg does not have"),
        ({"input_size": [3, 24, 30]}, "input_size is 24 x 30 pixels"),
        ({"interpolation": "random"}, "interpolation is 'random', expected one of nearest"),
        ({"crop_pct": "all"}, "crop_pct is 'all', expected a number above 0"),
    ):
        with pytest.raises(InputError, match=message):
            read_timm("a.json", described)


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_kept_is_refused():
    for described, message in (
        ({}, "expected fields, among them size"),
        ({"size": 3, "shear": 2}, "has the fields shear, which are not known"),
        ({"size": 3, "resize": "crop"}, "resize is 'crop', expected one of middle, shortest, exact, none"),
        ({"size": 3, "channels": 4}, "channels is 4"),
        ({"size": 3, "arithmetic": "torch"}, "choose shortest for other ways"),
        ({**UNSMOOTHED, "resize": "none", "interpolation": "lanczos"}, "lanczos without antialias"),
    ):
        with pytest.raises(InputError, match=message):
            Preprocessing.from_json(described)
