"""What the first block is given: an image as a sequence of patches, and where each token stands."""

from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int

from flaxformer_edu.errors import InputError, check_shape
from flaxformer_edu.layers.linear import LinearOptions

Position = int | Int[Array, ""]


def patchify(
    images: Float[Array | np.ndarray, "batch height _width channel"], patch_size: int
) -> Float[Array, "batch patch row column channel"]:
    """Cut images into squares of `patch_size` pixels, row by row from the top left.

    Raises InputError where the patches do not tile the image.
    """
    check_shape("images", images.shape, "batch height width channel")
    check_tiling(images.shape, patch_size)
    return rearrange(
        jnp.asarray(images),
        "batch (down row) (across column) channel -> batch (down across) row column channel",
        row=patch_size,
        column=patch_size,
    )


class PatchEmbedding(nnx.Module):
    """One linear map from each patch's pixels to a vector (Dosovitskiy et al. 2020, equation 1).

    The kernel is stored as `row column channel width`, the shape of the equivalent convolution.
    """

    def __init__(self, patch_size: int, channels: int, width: int, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        self.patch_size, self.channels = patch_size, channels
        pixels = (patch_size, patch_size, channels)
        self.projection = nnx.LinearGeneral(pixels, width, axis=(-3, -2, -1), rngs=rngs, **options)

    def __call__(
        self, images: Float[Array | np.ndarray, "batch height _width channel"]
    ) -> Float[Array, "batch patch width"]:
        """Raises InputError for images that the patches do not tile, or of another number of channels."""
        check_shape("images", images.shape, "batch height width channel", channel=self.channels)
        return self.projection(patchify(images, self.patch_size))


def check_tiling(shape: tuple[int, ...], patch_size: int) -> None:
    """Raise InputError where squares of `patch_size` pixels do not tile images of that shape, batch first"""
    if shape[1] % patch_size or shape[2] % patch_size:
        raise InputError(
            f"an image of {shape[1]} x {shape[2]} pixels is not divisible into patches of {patch_size} x "
            f"{patch_size}: resize or crop it, or choose a patch size that divides both sides"
        )


def sinusoidal_positions(length: int, width: int, base: float = 10_000.0) -> Float[np.ndarray, "length width"]:
    """P[i, 2k] = sin(i / base^(2k/width)), P[i, 2k+1] = cos of the same, in float64 (Vaswani et al. 2017, section 3.5).

    Computed in NumPy, hence once, when the function around it is traced.
    """
    angles = np.arange(length)[:, None] * base ** (-np.arange(0, width, 2) / width)
    return rearrange([np.sin(angles), np.cos(angles)], "function length pair -> length (pair function)")[:, :width]


class SinusoidalPositions(nnx.Module):
    """Adds `sinusoidal_positions` to a sequence of at most `max_length` tokens. It has no parameters."""

    def __init__(self, max_length: int, width: int):
        self.max_length, self.width = max_length, width

    def __call__(
        self, x: Float[Array, "batch length width"], start: Position = 0
    ) -> Float[Array, "batch length width"]:
        """`x` stands at positions start, start + 1, ... Raises InputError for a sequence longer than `max_length`."""
        check_length(x.shape, self.max_length, self.width)
        table = jnp.asarray(sinusoidal_positions(self.max_length, self.width), x.dtype)
        return x + jax.lax.dynamic_slice_in_dim(table, start, x.shape[1])


class SinusoidalPositions2D(nnx.Module):
    """Adds sinusoids to a square of `side` x `side` tokens: half of the features tell the row, half the column.

    It has no parameters. Source: Chen et al. 2021, "MoCo v3", section 4, with the pairs of `sinusoidal_positions`.
    Raises InputError for a width that is not divisible by 4.
    """

    def __init__(self, side: int, width: int):
        if width % 4:
            raise InputError(f"width {width} is not divisible by 4: rows and columns need sines and cosines each")
        self.side, self.width = side, width

    def __call__(self, x: Float[Array, "batch length width"]) -> Float[Array, "batch length width"]:
        """`x` holds the tokens row by row. Raises InputError for a sequence of another length."""
        check_shape("the sequence", x.shape, "batch length width", length=self.side**2, width=self.width)
        axis = sinusoidal_positions(self.side, self.width // 2)
        table = np.concatenate([np.repeat(axis, self.side, axis=0), np.tile(axis, (self.side, 1))], axis=1)
        return x + jnp.asarray(table, x.dtype)


class LearnedPositions(nnx.Module):
    """Adds one learned vector per position, drawn from N(0, 0.02^2), to at most `max_length` tokens."""

    def __init__(self, max_length: int, width: int, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        self.max_length, self.width, self.dtype = max_length, width, options.get("dtype")
        param_dtype = options.get("param_dtype", jnp.float32)
        self.embedding = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (max_length, width), param_dtype))

    def __call__(self, x: Float[Array, "batch length width"]) -> Float[Array, "batch length width"]:
        """Raises InputError for a sequence longer than `max_length`."""
        check_length(x.shape, self.max_length, self.width)
        table = self.embedding[: x.shape[1]]
        dtype = self.dtype or jnp.result_type(x, table)
        return x.astype(dtype) + table.astype(dtype)


def check_length(shape: tuple[int, ...], max_length: int, width: int) -> None:
    """Raise InputError unless `shape` is `batch length width` and the position table is long enough for it."""
    check_shape("the sequence", shape, "batch length width", width=width)
    if shape[1] > max_length:
        raise InputError(
            f"a sequence of {shape[1]} tokens is longer than the position table of {max_length}: "
            "shorten it, or build the layer with a larger max_length"
        )
