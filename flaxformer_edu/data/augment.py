"""Images on the device: from uint8 to floats, flipped and shifted at random. Pure functions, for the jitted step."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Shaped

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
MNIST_MEAN, MNIST_STD = (0.1307,), (0.3081,)


def normalise(
    images: Shaped[Array | np.ndarray, "batch height width channel"], mean: Sequence[float], std: Sequence[float]
) -> Float[Array, "batch height width channel"]:
    """`(images / 255 - mean) / std` in float32, of pixels from 0 to 255, one mean and std per channel (or for all)."""
    return (jnp.asarray(images, jnp.float32) / 255 - jnp.asarray(mean)) / jnp.asarray(std)


def random_flip(
    key: Key[Array, ""], images: Shaped[Array | np.ndarray, "batch height width channel"]
) -> Shaped[Array, "batch height width channel"]:
    """Each image mirrored left to right with probability one half."""
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def random_crop(
    key: Key[Array, ""], images: Shaped[Array | np.ndarray, "batch height width channel"], padding: int
) -> Shaped[Array, "batch height width channel"]:
    """Each image shifted by -`padding` to `padding` pixels in both directions, zeros (black) moving in at the edges.

    The same as a random crop of the original size from the image padded on all sides (He et al. 2016, section 4.2).
    """
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * padding + 1)
    return jax.vmap(lambda image, corner: jax.lax.dynamic_slice(image, (*corner, 0), images.shape[1:]))(padded, corners)
