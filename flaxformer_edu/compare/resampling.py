"""The ways in which a square of vectors is resampled to another size, each as a matrix.

All are linear, and the same along rows and columns: a table of m x m becomes W table W^T, one of n x n.
"""

from collections.abc import Callable
from functools import cache, partial

import jax
import numpy as np
from einops import einsum
from jaxtyping import Float

from flaxformer_edu.convert.resize import RESAMPLERS

Grid = Float[np.ndarray, "row column width"]
Matrix = Float[np.ndarray, "wanted given"]
FEATURES = 16  # as many tell one resampling from another
ZERO = 1e-3  # of what two unrelated grids would give: within the rounding of float32


def resample(grid: Grid, side: int, convention: str) -> Grid:
    """The grid at `side` x `side` points."""
    return _along_both(matrix(convention, len(grid), side), grid).astype(grid.dtype)


@cache
def matrix(convention: str, given: int, wanted: int) -> Matrix:
    """What each of `wanted` points in a row takes from `given` ones."""
    return CONVENTIONS[convention](given, wanted)


def same_source(first: Grid, second: Grid, to_first: Matrix, to_second: Matrix) -> bool:
    """Whether some grid gives `first` by the one matrix and `second` by the other.

    It need not be known: where U W1 = V W2, U (W1 grid W1^T) U^T is V (W2 grid W2^T) V^T. U and V have as many rows as
    twice the side of what is given exceeds the side of that grid: of a larger one, nothing can be told.
    """
    left, sizes, _ = np.linalg.svd(np.concatenate([to_first, -to_second]))
    free = left[:, np.count_nonzero(sizes > 1e-9 * sizes[0]) :].T
    u, v = np.split(free, 2, axis=1)
    apart = first[..., :FEATURES].astype(np.float64) - second[..., :FEATURES]
    both = [_along_both(x, grid[..., :FEATURES]) for x, grid in ((u, first), (v, second))]
    expected = np.linalg.norm(apart) * np.linalg.norm(u) ** 2 / len(first)
    return bool(np.linalg.norm(both[0] - both[1]) <= ZERO * expected)


def _along_both(weights: Matrix, grid: Grid) -> Grid:
    rows = einsum(weights, grid, "wanted row, row column width -> wanted column width")
    return einsum(weights, rows, "wanted column, row column width -> row wanted width")


def _of_resampler(name: str, given: int, wanted: int) -> Matrix:
    """That of one of `convert.resize`: what it makes of each point's being one, along a row."""
    points = np.broadcast_to(np.eye(given)[:, None], (given, given, given))
    with jax.enable_x64(True):
        return np.asarray(RESAMPLERS[name](points, wanted))[:, 0]


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
    "bicubic, antialiased (timm)": partial(_of_resampler, "antialiased"),
    "bicubic, not antialiased (transformers)": partial(_of_resampler, "plain"),
    "bicubic, corners kept (torchvision)": partial(_sampled, _cubic, True),
    "linear, corners kept (Google)": partial(_of_resampler, "linear"),
    "linear, not antialiased": partial(_sampled, _linear, False),
}
