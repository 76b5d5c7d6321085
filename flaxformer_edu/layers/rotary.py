"""Rotated queries and keys: positions that attention sees as distances, and a mistake often taken for them."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from flaxformer_edu.errors import InputError, check_shape
from flaxformer_edu.layers.embedding import Position


def apply_rope(
    x: Float[Array, "batch length head dim"],
    positions: Int[Array, "length"] | None = None,
    *,
    base: float = 10_000.0,
    interleaved: bool = False,
) -> Float[Array, "batch length head dim"]:
    """Turn each pair of features by an angle proportional to the position (Su et al. 2021, "RoFormer", equation 34).

    The product of a query and a key so turned depends on their distance alone. Pair k turns by
    `position / base^(2k/dim)`; it is made of features (k, k + dim/2), or (2k, 2k + 1) if `interleaved`: the two layouts
    in use, which differ by a fixed permutation of the features. Angles are computed in float32 at least.
    Positions default to 0, 1, 2, ... Raises InputError for an odd dim.
    """
    check_shape("x", x.shape, "batch length head dim")
    positions = jnp.arange(x.shape[1]) if positions is None else positions
    angles = rotary_angles(positions, x.shape[-1], base, x.dtype)[:, None, :]  # the same for all heads
    layout = "... (pair two)" if interleaved else "... (two pair)"
    first, second = rearrange(x.astype(angles.dtype), f"{layout} -> two ... pair", two=2)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    turned = jnp.stack([first * cos - second * sin, first * sin + second * cos])
    return rearrange(turned, f"two ... pair -> {layout}").astype(x.dtype)


def rotary_angles(
    positions: Int[Array, "length"], dim: int, base: float, dtype: DTypeLike
) -> Float[Array, "length pair"]:
    """position / base^(2k/dim) for each pair k of features, in float32 at least. Raises InputError for an odd dim."""
    if dim % 2:
        raise InputError(
            f"rotary positions turn pairs of features, but a head has {dim}: choose an even width per head"
        )
    dtype = jnp.promote_types(dtype, jnp.float32)
    return positions.astype(dtype)[:, None] * jnp.asarray(base ** (-np.arange(0, dim, 2) / dim), dtype)


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """The settings of `apply_rope`, to be handed to an attention layer; calling it applies them."""

    base: float = 10_000.0
    interleaved: bool = False

    def __call__(
        self, x: Float[Array, "batch length head dim"], start: Position = 0
    ) -> Float[Array, "batch length head dim"]:
        """`apply_rope` at positions start, start + 1, ..."""
        return apply_rope(x, start + jnp.arange(x.shape[1]), base=self.base, interleaved=self.interleaved)


@dataclass(frozen=True, kw_only=True)
class Multiplied:
    """Multiplies queries and keys, feature by feature, by `sinusoidal_positions`: a mistake often taken for RoPE.

    It is here for comparison: it turns nothing, so scores depend on both positions, not on their distance, and
    features whose sine is near zero are lost. Source: seen in homework on the Vision Transformer.
    """

    base: float = 10_000.0

    def __call__(
        self, x: Float[Array, "batch length head dim"], start: Position = 0
    ) -> Float[Array, "batch length head dim"]:
        """`x` stands at positions start, start + 1, ..."""
        angles = rotary_angles(start + jnp.arange(x.shape[1]), x.shape[-1], self.base, x.dtype)
        table = rearrange(jnp.stack([jnp.sin(angles), jnp.cos(angles)]), "two length pair -> length 1 (pair two)")
        return (x * table).astype(x.dtype)
