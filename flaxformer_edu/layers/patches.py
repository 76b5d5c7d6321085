"""Images as sequences of patches."""

from typing import Unpack

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
    if images.shape[1] % patch_size or images.shape[2] % patch_size:
        raise InputError(
            f"an image of {images.shape[1]} x {images.shape[2]} pixels is not divisible into patches of {patch_size} x "
            f"{patch_size}: resize or crop it, or choose a patch size that divides both sides"
        )
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
