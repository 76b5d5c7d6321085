"""Learned positions for images of another size: the four ways in which libraries resample them."""

from dataclasses import replace
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from flaxformer_edu.data.resampling import resample
from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import LearnedPositions, SinusoidalPositions, SinusoidalPositions2D
from flaxformer_edu.models import VisionTransformer

Convention = Literal["antialiased", "plain", "corners", "linear"]
LAYOUTS: dict[str, Convention] = {"torchvision": "corners", "google_npz": "linear"}


def convention_of(layout: str | None) -> Convention:
    """How the library in whose layout a model was published resamples its positions: of our own, as timm's."""
    if layout is not None and layout.startswith("hf_"):
        return "plain"
    return LAYOUTS.get(layout or "", "antialiased")


def resize_positions(
    model: VisionTransformer, image_size: int, *, convention: Convention = "antialiased"
) -> VisionTransformer:
    """A model with the same weights for images of another size; learned positions are resampled as a picture would be.

    The positions of class and distillation token stay as they are. Libraries resample in different ways, which differ
    most where the image shrinks:

    - "antialiased": bicubic, Keys' kernel, widened where the image shrinks: timm's `resample_abs_pos_embed`;
    - "plain": bicubic, PyTorch's kernel, never widened: transformers' `interpolate_pos_encoding`;
    - "corners": the same, with the corners kept in place: torchvision's `interpolate_embeddings`;
    - "linear": linear, with the corners kept in place: Google's loader (Dosovitskiy et al. 2020, section 3.2).

    Raises InputError for another convention, and where the patches do not tile such an image.
    """
    if convention not in get_args(Convention):
        raise InputError(f"convention is {convention!r}, expected one of {', '.join(get_args(Convention))}")
    resized = nnx.merge(*nnx.split(model))
    resized.config = config = replace(model.config, image_size=image_size)
    side, prefix = image_size // config.patch_size, 0 if config.positions_of_patches_only else config.prefix
    positions = resized.positions
    if isinstance(positions, LearnedPositions):
        table = jnp.asarray(positions.embedding[...])
        patches = _resample(table[prefix:], side, convention)
        positions.embedding = nnx.Param(jnp.concatenate([table[:prefix], patches]))
        positions.max_length = prefix + side**2
    elif isinstance(positions, SinusoidalPositions):
        resized.positions = SinusoidalPositions(prefix + side**2, config.width)
    elif isinstance(positions, SinusoidalPositions2D):
        resized.positions = SinusoidalPositions2D(side, config.width)
    return resized


def _resample(
    table: Float[Array, "patch width"], side: int, convention: Convention
) -> Float[Array, "resampled width"]:
    """The table of a square of `side` x `side` patches."""
    given = round(len(table) ** 0.5)
    if given == side:
        return table
    grid = rearrange(table, "(row column) width -> row column width", row=given)
    resampled = resample(np.asarray(grid, np.promote_types(table.dtype, np.float32)), side, convention)
    return jnp.asarray(rearrange(resampled, "row column width -> (row column) width"), table.dtype)
