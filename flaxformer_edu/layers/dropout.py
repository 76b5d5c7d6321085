"""Dropout whose masks come from whatever source the caller hands in: a key, PyTorch's generator, or a recording.

A layer never stores randomness. It receives `rngs`: None means evaluation, `nnx.Rngs` means fresh masks from a key,
anything else is a `MaskSource`, which hands out the masks itself, one per call, in the order of the calls.
"""

import math
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt32

from flaxformer_edu.errors import InputError
from flaxformer_edu.layers.masks import Mask


@runtime_checkable
class MaskSource(Protocol):
    """Hands out dropout masks, as `reference.TorchGenerator` and `RecordedMasks` do."""

    def keep(self, shape: tuple[int, ...], probability: float) -> Mask:
        """The next mask: True with this probability, where an element is kept."""
        ...


Randomness = nnx.Rngs | MaskSource


def dropout(
    x: Float[Array, "..."], rate: float, rngs: Randomness | None = None, *, mask_shape: tuple[int, ...] | None = None
) -> Float[Array, "..."]:
    """Zero elements of `x` with probability `rate` and scale the others by 1 / (1 - rate); without `rngs`, return `x`.

    A `mask_shape` that is 1 where `x` is longer makes whole slices live or die together.
    Source: Srivastava et al. 2014, in the "inverted" form that all frameworks use.
    """
    if not 0 <= rate < 1:
        raise InputError(f"dropout rate {rate} is outside [0, 1)")
    if rngs is None or rate == 0:
        return x
    shape = x.shape if mask_shape is None else mask_shape
    keep = hashed_mask(rngs.dropout(), shape, 1 - rate) if isinstance(rngs, nnx.Rngs) else rngs.keep(shape, 1 - rate)
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


def drop_path(x: Float[Array, "batch ..."], rate: float, rngs: Randomness | None = None) -> Float[Array, "batch ..."]:
    """Stochastic depth: zero whole examples of a residual branch, so that each trains a network of random depth.

    Source: Huang et al. 2016, "Deep networks with stochastic depth", with the scaling of `dropout`.
    """
    return dropout(x, rate, rngs, mask_shape=(x.shape[0], *[1] * (x.ndim - 1)))


def hashed_mask(key: PRNGKeyArray, shape: tuple[int, ...], probability: float) -> Bool[Array, "..."]:
    """A mask of `shape`, True with `probability`, from an integer hash of (key, position).

    It takes a dozen integer operations per element, which XLA fuses into the multiplication that uses the mask, so that
    nothing is written to memory; drawn by threefry, the same mask takes some 80 times as long on a CPU.
    `key` may be typed or raw.
    """
    words = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    position = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    bits = position * jnp.uint32(0x9E3779B9)  # 2**32 / golden ratio: neighbours start far apart
    for word in jnp.ravel(words):
        bits = _avalanche(bits ^ word)
    return bits < jnp.uint32(min(round(probability * 2**32), 2**32 - 1))


def _avalanche(bits: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """Make every output bit depend on every input bit (the "lowbias32" constants of C. Wellons' hash prospector)."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
    return bits ^ (bits >> 16)
