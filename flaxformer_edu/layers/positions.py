"""Three ways to say where a token stands: added sinusoids, added learned vectors, rotated queries and keys."""

from dataclasses import dataclass
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from flaxformer_edu.errors import InputError, check_shape
from flaxformer_edu.layers.options import LinearOptions

Position = int | Int[Array, ""]


def sinusoidal_positions(length: int, width: int, base: float = 10_000.0) -> Float[np.ndarray, "length width"]:
    """P[i, 2k] = sin(i / base^(2k/width)), P[i, 2k+1] = cos of the same, in float64 (Vaswani et al. 2017, section 3.5).

    Computed in NumPy, hence once, when the function around it is traced.
    """
    angles = np.arange(length)[:, None] * base ** (-np.arange(0, width, 2) / width)
    return rearrange([np.sin(angles), np.cos(angles)], "function length pair -> length (pair function)")[:, :width]


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

    It is here to be compared: it turns nothing, so scores depend on both positions, not on their distance, and
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
