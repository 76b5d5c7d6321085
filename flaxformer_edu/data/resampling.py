"""The ways in which libraries resample rows of numbers to another length, each as a matrix.

All are linear, and the same along rows and columns: a table of m x m becomes W table W^T, one of n x n. Pictures and
learned positions are resampled by the same ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from einops import einsum
from jaxtyping import Float

Grid = Float[np.ndarray, "row column width"]
Resampled = Float[np.ndarray, "side side width"]
Matrix = Float[np.ndarray, "wanted given"]
KEPT = 64  # matrices: every size of picture wants two of its own


@dataclass(frozen=True)
class Kernel:
    """How much a point `d` away counts, none being further away than `reach`."""

    weight: Callable[[np.ndarray], np.ndarray]
    reach: int


def linear(d: np.ndarray) -> np.ndarray:
    """Falls evenly to zero, one point away."""
    return np.maximum(0, 1 - np.abs(d))


def cubic(d: np.ndarray, a: float = -0.5) -> np.ndarray:
    """Keys 1981, equation 4: with -0.5 where libraries smooth, with -0.75 where they do not."""
    d = np.abs(d)
    near = _fused(_fused(a + 2, d, -(a + 3)) * d, d, 1)
    far = _fused(_fused(_fused(a, d, -5 * a), d, 8 * a), d, -4 * a)
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def sharp_cubic(d: np.ndarray) -> np.ndarray:
    """Keys 1981, equation 4, with PyTorch's -0.75."""
    return cubic(d, -0.75)


def lanczos(d: np.ndarray) -> np.ndarray:
    """sinc(d) sinc(d / 3) within three points (Duchon 1979)."""
    return np.where(np.abs(d) < 3, np.sinc(d) * np.sinc(d / 3), 0)


def _fused(a: np.ndarray | float, b: np.ndarray, c: float) -> np.ndarray:
    """a b + c in the type of `b`, rounded once, as processors compute it: in float32 it shows."""
    return (np.float64(a) * b.astype(np.float64) + c).astype(b.dtype)


KERNELS = {"bilinear": Kernel(linear, 1), "bicubic": Kernel(cubic, 2), "lanczos": Kernel(lanczos, 3)}
SHARP_KERNELS = {"bilinear": Kernel(linear, 1), "bicubic": Kernel(sharp_cubic, 2)}


def smoothed(kernel: Kernel, given: int, wanted: int, dtype: Any = np.float64) -> Matrix:
    """The kernel, widened where the row shrinks and summing to one at the border: "antialiased".

    As PyTorch and Pillow do it, in `dtype`: in float32, places are rounded to it.
    """
    scale = dtype(given) / dtype(wanted)
    narrowed = dtype(1) / scale if scale >= 1 else dtype(1)
    support = kernel.reach * max(scale, dtype(1))
    centre = (np.float64(scale) * (np.arange(wanted)[:, None] + 0.5)).astype(dtype)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), given)
    points = np.arange(given)
    away = ((points - centre).astype(dtype) + 0.5) * np.float64(narrowed)
    weights = np.where((first <= points) & (points < last), kernel.weight(away.astype(dtype)), 0).astype(dtype)
    return weights / weights.cumsum(axis=1, dtype=dtype)[:, -1:]  # a sum in order, as PyTorch's


def sampled(kernel: Kernel, given: int, wanted: int, dtype: Any = np.float64, *, corners: bool = False) -> Matrix:
    """The kernel around each point, never widened; the border is repeated.

    The pixels' borders stay in place, or the corners do.
    """
    points = np.arange(wanted)
    if corners:
        centre = (points * (dtype(given - 1) / dtype(max(1, wanted - 1)))).astype(dtype)
    else:
        centre = (dtype(given) / dtype(wanted) * (points + 0.5) - 0.5).astype(dtype)
    below = np.floor(centre).astype(int)
    weights = np.zeros((wanted, given), dtype)
    for offset in range(1 - kernel.reach, kernel.reach + 1):
        tap = below + offset
        np.add.at(weights, (points, np.clip(tap, 0, given - 1)), kernel.weight((centre - tap).astype(dtype)))
    return weights


CONVENTIONS: dict[str, Callable[[int, int], Matrix]] = {
    "antialiased": lambda given, wanted: smoothed(KERNELS["bicubic"], given, wanted),  # timm
    "plain": lambda given, wanted: sampled(SHARP_KERNELS["bicubic"], given, wanted),  # transformers
    "linear": lambda given, wanted: sampled(KERNELS["bilinear"], given, wanted, corners=True),  # Google
    "corners": lambda given, wanted: sampled(SHARP_KERNELS["bicubic"], given, wanted, corners=True),  # torchvision
    "linear, corners moved": lambda given, wanted: sampled(KERNELS["bilinear"], given, wanted),
}


def resample(grid: Grid, side: int, convention: str) -> Resampled:
    """The grid at `side` x `side` points, by one of `CONVENTIONS`; computed in float64, in the grid's type."""
    return along_both(matrix(convention, len(grid), side), grid).astype(grid.dtype)


@lru_cache(KEPT)
def matrix(convention: str, given: int, wanted: int) -> Matrix:
    """What each of `wanted` points in a row takes from `given` ones."""
    return CONVENTIONS[convention](given, wanted)


def along_both(weights: Matrix, grid: Grid) -> Resampled:
    """W grid W^T, for each feature."""
    rows = einsum(weights, grid, "wanted row, row column width -> wanted column width")
    return einsum(weights, rows, "wanted column, row column width -> row wanted width")
