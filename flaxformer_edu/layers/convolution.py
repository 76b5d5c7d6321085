"""Convolutions: one written out, to be read, and the stem of them that makes patches of an image."""

import functools
import itertools
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from flaxformer_edu.errors import InputError, check_shape
from flaxformer_edu.layers.embedding import check_tiling
from flaxformer_edu.layers.linear import LinearOptions


def convolve(
    image: Float[Array, "height _width"], kernel: Float[Array, "rows columns"]
) -> Float[Array, "out_height out_width"]:
    """Slide `kernel` over `image`; every output is the sum of the products where the two lie on each other.

    What neural networks call a convolution is, in mathematics, a cross-correlation: the kernel is not flipped. There
    is no padding ("valid"), so the output has height - rows + 1 rows and width - columns + 1 columns:

        output[y, x] = sum over r, c of kernel[r, c] * image[y + r, x + c]

    It is written to be read: `jax.lax.conv_general_dilated` is the one to compute with.
    Raises InputError where the kernel is empty or does not fit into the image.

    >>> convolve(jnp.array([[1., 2, 3], [4, 5, 6], [7, 8, 9]]), jnp.array([[1., 0], [0, 1]]))
    Array([[ 6.,  8.], [12., 14.]])
    """
    rows, columns = kernel.shape
    height, width = image.shape[0] - rows + 1, image.shape[1] - columns + 1
    if kernel.size == 0 or height < 1 or width < 1:
        raise InputError(
            f"kernel has shape {kernel.shape}, expected (1, 1) at least and the image's {image.shape} at most"
        )
    shifts = itertools.product(range(rows), range(columns))
    return functools.reduce(jnp.add, (kernel[r, c] * image[r : r + height, c : c + width] for r, c in shifts))


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
