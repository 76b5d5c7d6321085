"""Preprocessing as libraries write it down: transformers' preprocessor_config.json, timm's `pretrained_cfg`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from flaxformer_edu.data.preprocessing.steps import Preprocessing, Resize
from flaxformer_edu.errors import InputError

Described = Mapping[str, Any]
IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
HALF = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
OPENAI = {"image_mean": (0.48145466, 0.4578275, 0.40821073), "image_std": (0.26862954, 0.26130258, 0.27577711)}
# What transformers' image processors do where their file is silent; the first half of a processor's name.
SWITCHES = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
STRETCHED = {**SWITCHES, "size": 224, "default_to_square": True, "do_center_crop": False, "crop_size": 224}
CUT = {**STRETCHED, **OPENAI, "resample": 3, "default_to_square": False, "do_center_crop": True}
PROCESSORS: dict[str, dict[str, Any]] = {
    "ViT": {**STRETCHED, **HALF, "resample": 2},
    "DINOv3ViT": {**STRETCHED, **IMAGENET, "resample": 2},
    "Beit": {**STRETCHED, **HALF, "resample": 3},
    "DeiT": {**STRETCHED, **HALF, "resample": 3, "size": 256, "do_center_crop": True},
    "Siglip": {**STRETCHED, **HALF, "resample": 3, "size": (224, 224), "default_to_square": False},
    "CLIP": CUT,
    "Bit": CUT,
}
SUFFIXES = ("ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor")
RESAMPLE: dict[Any, Literal["nearest", "lanczos", "bilinear", "bicubic"]] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
}
HARMLESS = {  # names, and how pictures are handed in and out
    *("image_processor_type", "feature_extractor_type", "processor_class", "_valid_processor_keys", "data_format"),
    *("do_convert_rgb", "disable_grouping", "return_tensors", "device", "_name_or_path", "transformers_version"),
}
OFF = {  # without effect while they are null or false
    *("do_pad", "pad_size", "do_reduce_labels", "do_flip_channel_order", "input_data_format", "crop_pct"),
    *("size_divisor", "rescale_offset", "do_rescale_offset", "image_seq_length", "use_square_size", "do_thumbnail"),
}
TIMM_HARMLESS = {
    *("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "architecture", "tag", "custom_load"),
    *("test_input_size", "min_input_size", "fixed_input_size", "test_crop_pct", "num_classes", "label_offset"),
    *("label_names", "label_descriptions", "pool_size", "test_pool_size", "first_conv", "classifier", "license"),
    *("description", "origin_url", "paper_name", "paper_ids", "notes"),
}
TIMM_READ = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")


def read_transformers(where: object, described: Described, *, size: int, channels: int = 3) -> Preprocessing:
    """What transformers 5 does with a picture: torchvision's arithmetic, whichever processor wrote the file.

    A processor named in `described` has its defaults, and without a name ViT's. `size` is the model's, for files that
    name none, or leave pictures as large as they are. `where` is for messages.
    Raises InputError for another processor, a field that is not understood, and a value that cannot be.
    """
    kind = _processor(where, described)
    defaults = PROCESSORS[kind]
    unknown = [name for name in described if name not in {*defaults, *HARMLESS, *OFF}]
    on = [name for name in OFF if described.get(name) not in (None, False)]
    if strange := [*unknown, *sorted(on)]:
        raise InputError(
            f"{where} has {', '.join(f'{name:.60} = {described[name]!r:.40}' for name in strange[:5])}, which is not "
            "understood: if it does not change the pixels, take it out of the file"
        )
    values = defaults | {name: value for name, value in described.items() if name in defaults and value is not None}
    for name in ("do_resize", "do_rescale", "do_normalize", "do_center_crop", "default_to_square"):
        if not isinstance(values[name], bool):
            raise InputError(f"{where}: {name} is {values[name]!r:.40}, expected true or false")
    resize, resize_to = _size(where, values) if values["do_resize"] else ("none", size)
    final = _side(where, "crop_size", values["crop_size"]) if values["do_center_crop"] else resize_to
    if resize == "shortest" and not values["do_center_crop"]:
        raise InputError(
            f"{where}: pictures keep their shape (size {values['size']}, not cut), but the model sees squares: "
            "set do_center_crop and crop_size, or height and width"
        )
    if values["resample"] not in RESAMPLE or isinstance(values["resample"], bool):
        known = ", ".join(f"{number} ({name})" for number, name in RESAMPLE.items())
        raise InputError(f"{where}: resample is {values['resample']!r:.40}, expected one of {known}")
    normal = values["do_normalize"]
    made = _made(
        where,
        size=final,
        channels=channels,
        colours="white",
        resize=resize,
        resize_to=resize_to,
        interpolation=RESAMPLE[values["resample"]],
        arithmetic="torch_float" if kind == "DINOv3ViT" and values["do_rescale"] else "torch",  # it rescales first
        centre="floor",
        rescale=_number(where, "rescale_factor", values["rescale_factor"]) if values["do_rescale"] else 1.0,
        mean=_numbers(where, "image_mean", values["image_mean"], channels) if normal else (0.0,),
        std=_numbers(where, "image_std", values["image_std"], channels) if normal else (1.0,),
    )
    return made if "size" in described else made.at(size)


def describe_transformers(preprocessing: Preprocessing) -> dict[str, Any]:
    """preprocessor_config.json: what comes nearest. A largest middle square is cut out after resizing, not before."""
    p, side = preprocessing, preprocessing.resize_to or preprocessing.size
    shortest = p.resize in ("middle", "shortest")
    kind = "DINOv3ViT" if p.arithmetic == "torch_float" else "CLIP" if shortest else "DeiT"
    numbers = {name: [*values] * (p.channels // len(values)) for name, values in (("mean", p.mean), ("std", p.std))}
    return {
        "image_processor_type": f"{kind}ImageProcessor",
        "do_convert_rgb": p.channels == 3,
        "do_resize": p.resize != "none",
        "size": {"shortest_edge": side} if shortest else {"height": side, "width": side},
        "resample": next(number for number, name in RESAMPLE.items() if name == p.interpolation),
        "do_center_crop": shortest or p.resize == "none" or side != p.size,
        "crop_size": {"height": p.size, "width": p.size},
        "do_rescale": True,
        "rescale_factor": p.rescale,
        "do_normalize": True,
        "image_mean": numbers["mean"],
        "image_std": numbers["std"],
    }


def read_timm(where: object, described: Described) -> Preprocessing:
    """What timm does with a picture at evaluation, by its `pretrained_cfg`: Pillow's arithmetic.

    Raises InputError for a field that is not known, a `crop_mode` that pads, and a value that cannot be.
    """
    if unknown := [name for name in described if name not in {*TIMM_READ, *TIMM_HARMLESS}]:
        raise InputError(f"{where} has {', '.join(map(str, unknown[:5]))}, which timm's pretrained_cfg does not have")
    read = {name: described[name] for name in TIMM_READ if described.get(name) is not None}
    channels, height, width = _timm_size(where, read.get("input_size", (3, 224, 224)))
    if height != width:
        raise InputError(f"{where}: input_size is {height} x {width} pixels, and the models here see squares")
    modes: dict[str, Resize] = {"center": "shortest", "squash": "exact"}
    if (mode := read.get("crop_mode", "center")) not in modes:
        raise InputError(f"{where}: crop_mode is {mode!r:.40}, expected one of {', '.join(modes)}")
    share = _number(where, "crop_pct", read.get("crop_pct") or 0.875)
    return _made(
        where,
        size=height,
        channels=channels,
        colours="kept",
        resize=modes[mode],
        resize_to=int(height / share),
        interpolation=read.get("interpolation", "bicubic"),
        mean=_numbers(where, "mean", read.get("mean", IMAGENET["image_mean"]), channels),
        std=_numbers(where, "std", read.get("std", IMAGENET["image_std"]), channels),
    )


def assumed_for(layout: str, *, size: int, channels: int = 3) -> Preprocessing | None:
    """What most models in a layout expect, whose file says nothing; None for layouts whose models see no pictures."""
    if channels not in (1, 3):
        return None  # of no picture that could be opened
    half, imagenet = ((0.5,), (0.5,)), (IMAGENET["image_mean"], IMAGENET["image_std"])
    (mean, std) = imagenet if layout == "torchvision" and channels == 3 else half
    normal = Preprocessing(size=size, channels=channels, mean=mean, std=std)
    if layout == "torchvision":
        to = round(size * 256 / 224)
        return replace(normal, colours="kept", resize="shortest", resize_to=to, interpolation="bilinear")
    if layout == "timm":
        return replace(normal, colours="kept", resize="shortest", resize_to=int(size / 0.9))
    if layout.startswith("hf_"):
        stretched = replace(normal, colours="white", resize="exact", interpolation="bilinear")
        return replace(stretched, arithmetic="torch", centre="floor")
    if layout == "google_npz":
        return replace(normal, resize="exact", interpolation="bilinear")
    return None


def _processor(where: object, described: Described) -> str:
    named = described.get("image_processor_type") or described.get("feature_extractor_type") or "ViTImageProcessor"
    kind = str(named)
    for suffix in SUFFIXES:
        kind = kind.removesuffix(suffix)
    if kind not in PROCESSORS or kind == named:
        known = ", ".join(f"{name}ImageProcessor" for name in PROCESSORS)
        raise InputError(f"{where}: image_processor_type is {named!r:.60}, and those known here are {known}")
    return kind


def _size(where: object, values: Described) -> tuple[Resize, int]:
    """How the picture is resized, and to how many pixels; of older files the size is a number."""
    size = values["size"]
    if isinstance(size, int) and not isinstance(size, bool) and not values["default_to_square"]:
        size = {"shortest_edge": size}
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        return "shortest", _side(where, "size", size["shortest_edge"])
    return "exact", _side(where, "size", size)


def _side(where: object, name: str, value: Any) -> int:
    """The side of a square, however it is written."""
    if isinstance(value, Mapping) and set(value) == {"height", "width"}:
        value = (value["height"], value["width"])
    if isinstance(value, Sequence) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    if type(value) is not int:
        raise InputError(f"{where}: {name} is {value!r:.60}, expected a square: height and width that are equal")
    return value


def _timm_size(where: object, value: Any) -> tuple[int, int, int]:
    if not isinstance(value, Sequence) or len(value) != 3 or any(type(side) is not int for side in value):
        raise InputError(f"{where}: input_size is {value!r:.60}, expected channels, height and width")
    return value[0], value[1], value[2]


def _number(where: object, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < np.inf:
        raise InputError(f"{where}: {name} is {value!r:.40}, expected a number above 0")
    return float(value)


def _numbers(where: object, name: str, value: Any, channels: int) -> tuple[float, ...]:
    values = (value,) if isinstance(value, int | float) else value
    if not isinstance(values, list | tuple) or any(type(value) not in (int, float) for value in values):
        raise InputError(f"{where}: {name} is {value!r:.60}, expected a list of numbers")
    if channels == 1 and len(set(values)) == 1:
        values = values[:1]  # transformers hands three equal ones to grey pictures, too
    return tuple(map(float, values))


def _made(where: object, **values: Any) -> Preprocessing:
    try:
        return Preprocessing(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
