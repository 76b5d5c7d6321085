"""Pictures resized as Pillow does it, and as PyTorch does: of bytes in whole numbers, or of floats."""

from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from flaxformer_edu.data.resampling import KEPT, KERNELS, SHARP_KERNELS, Matrix, sampled, smoothed

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Arithmetic = Literal["pillow", "torch", "torch_float"]
Picture = Shaped[np.ndarray, "height width channel"]
Resized = Shaped[np.ndarray, "wanted_height wanted_width channel"]
Rows = Shaped[np.ndarray, "given across channel"]
Fewer = Shaped[np.ndarray, "wanted across channel"]
WEIGHT_BITS, MOST_BITS = 15, 22  # PyTorch's weights fit a signed number of 16 bits


def resize_picture(
    picture: Picture,
    height: int,
    width: int,
    interpolation: Interpolation,
    arithmetic: Arithmetic = "pillow",
    antialias: bool = True,
) -> Resized:
    """The whole picture at another size.

    - "pillow": `PIL.Image.resize`, which always smooths before it shrinks;
    - "torch": torchvision's of a uint8 tensor: weights of 16 bits, and whole levels between rows and columns;
    - "torch_float": torchvision's of a float32 tensor; nothing is rounded, and values may overshoot.
    """
    if picture.shape[:2] == (height, width):
        return picture.astype(np.float32) if arithmetic == "torch_float" else picture
    if arithmetic == "pillow":
        return _by_pillow(picture, height, width, interpolation)
    if interpolation == "nearest":
        rows, columns = _nearest(picture.shape[0], height), _nearest(picture.shape[1], width)
        nearest = picture[rows[:, None], columns]
        return nearest.astype(np.float32) if arithmetic == "torch_float" else nearest
    one_axis = _whole_levels if arithmetic == "torch" else _floats
    result = picture if arithmetic == "torch" else picture.astype(np.float32)
    if width != result.shape[1]:  # columns first, as PyTorch does
        result = one_axis(result.swapaxes(0, 1), width, interpolation, antialias).swapaxes(0, 1)
    return one_axis(result, height, interpolation, antialias) if height != len(result) else result


def _by_pillow(picture: Picture, height: int, width: int, interpolation: Interpolation) -> Resized:
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling[interpolation.upper()]))


def _nearest(given: int, wanted: int) -> Int[np.ndarray, "wanted"]:
    """Where each point is taken from: the pixel in which its middle lies."""
    middles = ((np.arange(wanted) + 0.5) * np.float64(np.float32(given) / np.float32(wanted))).astype(np.float32)
    return np.minimum(middles.astype(np.int64), given - 1)


@lru_cache(KEPT)
def _taps(
    given: int, wanted: int, interpolation: str, antialias: bool, single: bool
) -> tuple[Int[np.ndarray, "wanted tap"], Float[np.ndarray, "wanted tap"]]:
    """The points that each of `wanted` ones is made of, in order, and their weights, in float32 or float64."""
    make, kernels = (smoothed, KERNELS) if antialias else (sampled, SHARP_KERNELS)
    weights: Matrix = make(kernels[interpolation], given, wanted, np.float32 if single else np.float64)
    counted = weights != 0
    first, last = counted.argmax(axis=1), given - counted[:, ::-1].argmax(axis=1)
    points = first[:, None] + np.arange((last - first).max())
    inside = points < given
    points = np.minimum(points, given - 1)
    return points, np.where(inside, np.take_along_axis(weights, points, axis=1), 0)


def _whole_levels(rows: Rows, wanted: int, interpolation: str, antialias: bool) -> Fewer:
    """One axis of a uint8 tensor: weights are rounded to as many bits as 16 can hold, and levels to whole ones."""
    points, weights = _taps(len(rows), wanted, interpolation, antialias, False)
    largest = float(weights.max())
    bits = next((b for b in range(MOST_BITS) if int(0.5 + largest * 2 ** (b + 1)) >= 2**WEIGHT_BITS), MOST_BITS)
    whole = np.trunc(weights * 2**bits + np.copysign(0.5, weights)).astype(np.int32)
    total = np.full((wanted, *rows.shape[1:]), 1 << (bits - 1), np.int32)
    for tap in range(points.shape[1]):
        total += whole[:, tap, None, None] * rows[points[:, tap]].astype(np.int32)
    return np.clip(total >> bits, 0, 255).astype(np.uint8)


def _floats(rows: Rows, wanted: int, interpolation: str, antialias: bool) -> Fewer:
    """One axis of a float32 tensor: rounded after each fused multiplication and addition, as processors do it."""
    points, weights = _taps(len(rows), wanted, interpolation, antialias, True)
    total = np.zeros((wanted, *rows.shape[1:]), np.float32)
    for tap in range(points.shape[1]):
        total = (total + weights[:, tap, None, None] * rows[points[:, tap]].astype(np.float64)).astype(np.float32)
    return total
