"""Learned positions for images of another size: the three ways in which libraries resample them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from einops import einsum, rearrange
from flax import nnx
from jaxtyping import Array, Float

from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import LearnedPositions, SinusoidalPositions, SinusoidalPositions2D
from flaxformer_edu.models import VisionTransformer

Grid = Float[Array | np.ndarray, "row column width"]
Resampled = Float[Array | np.ndarray, "side side width"]
Convention = Literal["antialiased", "plain", "linear"]


def resize_positions(
    model: VisionTransformer, image_size: int, *, convention: Convention = "antialiased"
) -> VisionTransformer:
    """A model with the same weights for images of another size; learned positions are resampled as a picture would be.

    The positions of class and distillation token stay as they are. Libraries resample in different ways, which differ
    most where the image shrinks:

    - "antialiased": bicubic, Keys' kernel, widened where the image shrinks: timm's `resample_abs_pos_embed`;
    - "plain": bicubic, PyTorch's kernel, never widened: transformers' `interpolate_pos_encoding`;
    - "linear": linear, with the corners kept in place: Google's loader (Dosovitskiy et al. 2020, section 3.2).

    Raises InputError for another convention, and where the patches do not tile such an image.
    """
    if convention not in RESAMPLERS:
        raise InputError(f"convention is {convention!r}, expected one of {', '.join(RESAMPLERS)}")
    resized = nnx.merge(*nnx.split(model))
    resized.config = config = replace(model.config, image_size=image_size)
    side, prefix = image_size // config.patch_size, 0 if config.positions_of_patches_only else config.prefix
    positions = resized.positions
    if isinstance(positions, LearnedPositions):
        table = jnp.asarray(positions.embedding[...])
        patches = _resample(table[prefix:], side, RESAMPLERS[convention])
        positions.embedding = nnx.Param(jnp.concatenate([table[:prefix], patches]))
        positions.max_length = prefix + side**2
    elif isinstance(positions, SinusoidalPositions):
        resized.positions = SinusoidalPositions(prefix + side**2, config.width)
    elif isinstance(positions, SinusoidalPositions2D):
        resized.positions = SinusoidalPositions2D(side, config.width)
    return resized


def _resample(
    table: Float[Array, "patch width"], side: int, resample: Callable[[Grid, int], Resampled]
) -> Float[Array, "resampled width"]:
    """The table of a square of `side` x `side` patches, computed in float32 at least."""
    given = round(len(table) ** 0.5)
    if given == side:
        return table
    grid = rearrange(table, "(row column) width -> row column width", row=given)
    resampled = resample(np.asarray(grid, np.promote_types(table.dtype, np.float32)), side)
    return jnp.asarray(rearrange(resampled, "row column width -> (row column) width"), table.dtype)


def _antialiased(grid: Grid, side: int) -> Resampled:
    return jax.image.resize(grid, (side, side, grid.shape[-1]), "bicubic", antialias=True)


def _plain(grid: Grid, side: int) -> Resampled:
    weights = _bicubic_weights(len(grid), side)
    return einsum(weights, weights, grid, "new row, across column, row column width -> new across width")


def _linear(grid: Grid, side: int) -> Resampled:
    from scipy.ndimage import zoom

    return np.asarray(zoom(grid, (side / len(grid), side / len(grid), 1), order=1))


def _bicubic_weights(given: int, wanted: int, a: float = -0.75) -> Float[np.ndarray, "wanted given"]:
    """What each of `wanted` points takes from `given` ones: Keys 1981, equation 4, with PyTorch's `a`.

    Points stand in the middle of their pixels; beyond the border, the outermost one is repeated.
    """
    centre = (np.arange(wanted) + 0.5) * given / wanted - 0.5
    weights = np.zeros((wanted, given))
    for offset in (-1, 0, 1, 2):
        tap = np.floor(centre).astype(int) + offset
        d = np.abs(centre - tap)
        near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4)
        np.add.at(weights, (np.arange(wanted), np.clip(tap, 0, given - 1)), np.where(d <= 1, near, far))
    return weights


RESAMPLERS: dict[str, Callable[[Grid, int], Resampled]] = {
    "antialiased": _antialiased,
    "plain": _plain,
    "linear": _linear,
}
