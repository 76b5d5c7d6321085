"""Images on the device: flipped, shifted and mixed at random. Pure functions, for the jitted step."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Shaped


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


def cutmix(
    key: Key[Array, ""], images: Shaped[Array, "batch height _width channel"]
) -> tuple[Shaped[Array, "batch height _width channel"], Float[Array, "batch"]]:
    """CutMix (Yun et al. 2019): a box of each image's predecessor in the batch is pasted into it.

    Returns the images, and the share of each that is its own.

    The predecessor of the first is the last. The box's area is drawn evenly from 0 to that of the image, its centre
    from all places (what lies beyond the edge is cut off); every second image, by chance, stays whole.
    """
    batch, height, width, _ = images.shape
    chosen, area, place = jax.random.split(key, 3)
    size = jnp.array([height, width])
    mixed = jax.random.bernoulli(chosen, shape=(batch, 1))
    half = jnp.where(mixed, jnp.sqrt(jax.random.uniform(area, (batch, 1))), 0) * size / 2
    centre = jax.random.uniform(place, (batch, 2)) * size
    first, last = jnp.round(centre - half), jnp.round(centre + half)
    rows = (first[:, :1] <= jnp.arange(height)) & (jnp.arange(height) < last[:, :1])
    columns = (first[:, 1:] <= jnp.arange(width)) & (jnp.arange(width) < last[:, 1:])
    inside = rows[:, :, None] & columns[:, None, :]
    return jnp.where(inside[..., None], jnp.roll(images, 1, axis=0), images), 1 - inside.mean(axis=(1, 2))
