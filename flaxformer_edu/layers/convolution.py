"""Two-dimensional convolution written out, to be read; `jax.lax.conv_general_dilated` is the one to compute with."""

import functools
import itertools

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaxformer_edu.errors import InputError


def convolve(
    image: Float[Array, "height _width"], kernel: Float[Array, "rows columns"]
) -> Float[Array, "out_height out_width"]:
    """Slide `kernel` over `image`; every output is the sum of the products where the two lie on each other.

    What neural networks call a convolution is, in mathematics, a cross-correlation: the kernel is not flipped. There
    is no padding ("valid"), so the output has height - rows + 1 rows and width - columns + 1 columns:

        output[y, x] = sum over r, c of kernel[r, c] * image[y + r, x + c]

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
