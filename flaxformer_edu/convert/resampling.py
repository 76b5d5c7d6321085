"""The ways in which a square of vectors is resampled to another size, each as a matrix.

All are linear, and the same along rows and columns: a table of m x m becomes W table W^T, one of n x n.
"""

from collections.abc import Callable
from functools import cache, partial

import jax
import numpy as np
from einops import einsum
from jaxtyping import Float

Grid = Float[np.ndarray, "row column width"]
Resampled = Float[np.ndarray, "side side width"]
Matrix = Float[np.ndarray, "wanted given"]


def resample(grid: Grid, side: int, convention: str) -> Resampled:
    """The grid at `side` x `side` points, by one of `CONVENTIONS`; computed in float64, in the grid's type."""
    return along_both(matrix(convention, len(grid), side), grid).astype(grid.dtype)


@cache
def matrix(convention: str, given: int, wanted: int) -> Matrix:
    """What each of `wanted` points in a row takes from `given` ones."""
    return CONVENTIONS[convention](given, wanted)


def along_both(weights: Matrix, grid: Grid) -> Resampled:
    """W grid W^T, for each feature."""
    rows = einsum(weights, grid, "wanted row, row column width -> wanted column width")
    return einsum(weights, rows, "wanted column, row column width -> row wanted width")


def _antialiased(given: int, wanted: int) -> Matrix:
    """Keys' kernel with -0.5 (1981, equation 4), widened where the row shrinks, and summing to one at the border."""
    with jax.enable_x64(True):
        return np.asarray(jax.image.resize(np.eye(given), (wanted, given), "bicubic", antialias=True))


def _sampled(kernel: Callable[[np.ndarray], np.ndarray], corners: bool, given: int, wanted: int) -> Matrix:
    """A kernel around each point; the corners stay in place, or the pixels' borders do; the border is repeated."""
    points = np.arange(wanted)
    centre = points * (given - 1) / max(1, wanted - 1) if corners else (points + 0.5) * given / wanted - 0.5
    weights = np.zeros((wanted, given))
    for offset in (-1, 0, 1, 2):
        tap = np.floor(centre).astype(int) + offset
        np.add.at(weights, (points, np.clip(tap, 0, given - 1)), kernel(np.abs(centre - tap)))
    return weights


def _linear(d: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - d)


def _cubic(d: np.ndarray, a: float = -0.75) -> np.ndarray:
    """Keys 1981, equation 4, with PyTorch's `a`."""
    near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


CONVENTIONS: dict[str, Callable[[int, int], Matrix]] = {
    "antialiased": _antialiased,  # timm
    "plain": partial(_sampled, _cubic, False),  # transformers
    "linear": partial(_sampled, _linear, True),  # Google
    "plain, corners kept": partial(_sampled, _cubic, True),  # torchvision
    "linear, corners moved": partial(_sampled, _linear, False),
}
