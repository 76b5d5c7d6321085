"""Images as sequences of patches."""

from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from flaxformer_edu.errors import InputError, check_shape
from flaxformer_edu.layers.options import LinearOptions


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


class ConvStem(nnx.Module):
    """Overlapping patches: convolutions of 3 x 3 pixels, which know an image's edges before attention sees it.

    The first keeps the image's size; each of the others halves it and doubles the channels, up to `width`, so that
    there are as many patches as squares of `patch_size` pixels. Between them stands a ReLU.
    Source: Xiao et al. 2021, "Early convolutions help transformers see better", here without batch normalisation.
    """

    def __init__(self, patch_size: int, channels: int, width: int, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        halvings = patch_size.bit_length() - 1
        if patch_size != 2**halvings or width % patch_size:
            raise InputError(
                f"patch_size is {patch_size}, expected a power of 2 that divides the width {width}: "
                "the convolutions of the stem halve the image again and again"
            )
        self.patch_size, self.channels = patch_size, channels
        sizes = [channels, *(width >> (halvings - i) for i in range(halvings + 1))]
        self.convolutions = nnx.List(
            nnx.Conv(sizes[i], sizes[i + 1], (3, 3), strides=1 if i == 0 else 2, padding=1, rngs=rngs, **options)
            for i in range(halvings + 1)
        )

    def __call__(
        self, images: Float[Array | np.ndarray, "batch height _width channel"]
    ) -> Float[Array, "batch patch width"]:
        """Raises InputError for images that the patches do not tile, or of another number of channels."""
        check_shape("images", images.shape, "batch height width channel", channel=self.channels)
        check_tiling(images.shape, self.patch_size)
        x = self.convolutions[0](jnp.asarray(images))
        for convolution in self.convolutions[1:]:
            x = convolution(jax.nn.relu(x))
        return rearrange(x, "batch row column width -> batch (row column) width")


def check_tiling(shape: tuple[int, ...], patch_size: int) -> None:
    """Raise InputError where squares of `patch_size` pixels do not tile images of that shape, batch first"""
    if shape[1] % patch_size or shape[2] % patch_size:
        raise InputError(
            f"an image of {shape[1]} x {shape[2]} pixels is not divisible into patches of {patch_size} x "
            f"{patch_size}: resize or crop it, or choose a patch size that divides both sides"
        )
