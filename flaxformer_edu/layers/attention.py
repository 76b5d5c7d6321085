"""Scaled dot-product attention, with one head and with many."""

import math
from typing import Literal, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from flaxformer_edu.errors import InputError, check_shape
from flaxformer_edu.layers.dropout import Randomness, dropout
from flaxformer_edu.layers.masks import Mask, check_mask
from flaxformer_edu.layers.options import LinearOptions
from flaxformer_edu.layers.positions import Multiplied, Position, Rotary


def dot_product_attention(
    query: Float[Array, "batch query head dim"],
    key: Float[Array, "batch key head dim"],
    value: Float[Array, "batch key head dim"],
    mask: Mask | None = None,
    *,
    dropout_rate: float = 0.0,
    rngs: Randomness | None = None,
) -> tuple[Float[Array, "batch query head dim"], Float[Array, "batch head query key"]]:
    """softmax(Q K^T / sqrt(dim)) V: every query gets the mean of the values, weighted by how well their keys match.

    Returns the result and the weights as they were before dropout. Rows of the weights add up to 1; a row whose mask
    leaves nothing to attend to is all zeros, and so is its result. The softmax is computed in float32 at least.
    Source: Vaswani et al. 2017, equation 1.
    """
    scores_dtype = jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=scores_dtype) / math.sqrt(query.shape[-1])
    if mask is not None:
        check_mask(mask, scores.shape)
        scores = jnp.where(mask, scores, jnp.finfo(scores_dtype).min)
    weights = jax.nn.softmax(scores)
    if mask is not None:
        weights = jnp.where(mask, weights, 0)  # changes only the rows that have nothing to attend to
    dropped = dropout(weights, dropout_rate, rngs).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", dropped, value), weights


class KeysValues(NamedTuple):
    """What queries attend to, projected and cut into heads: computed once, it serves every query that follows.

    Heads come before positions, as the matrix products want them: so nothing is moved when a query comes.
    """

    key: Float[Array, "batch head key dim"]
    value: Float[Array, "batch head key dim"]

    def insert(self, tokens: "KeysValues", start: Position) -> "KeysValues":
        """The same with the keys and values of `tokens` at positions start, start + 1, ..."""
        update = jax.lax.dynamic_update_slice_in_dim
        return KeysValues(*(update(old, new, start, axis=2) for old, new in zip(self, tokens, strict=True)))


class MultiHeadAttention(nnx.Module):
    """Several attentions side by side, each on its own projection of the input (Vaswani et al. 2017, section 3.2.2).

    Args:
        width: of inputs and outputs; each of the `heads` works on width / heads of it.
        dropout: rate on the attention weights.
        bias: whether the query, key and value projections have one.
        merged: keep the three projections in one, `qkv`: the same numbers, by one matrix product instead of three.
        output: whether the heads are mixed by a last projection.
        rotary: what is done to queries and keys, by their positions, before they meet (`apply_rope`).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        dropout: float = 0.0,
        bias: bool = True,
        merged: bool = False,
        output: bool = True,
        rotary: Rotary | Multiplied | None = None,
        rngs: nnx.Rngs,
        **options: Unpack[LinearOptions],
    ):
        if width % heads:
            raise InputError(f"width {width} is not divisible by {heads} heads: choose a multiple of {heads}")
        self.width, self.heads, self.dropout, self.rotary = width, heads, dropout, rotary
        self.merged = merged
        if merged:
            self.qkv = nnx.Linear(width, 3 * width, use_bias=bias, rngs=rngs, **options)
        else:
            self.query = nnx.Linear(width, width, use_bias=bias, rngs=rngs, **options)
            self.key = nnx.Linear(width, width, use_bias=bias, rngs=rngs, **options)
            self.value = nnx.Linear(width, width, use_bias=bias, rngs=rngs, **options)
        self.out = nnx.Linear(width, width, rngs=rngs, **options) if output else None

    def __call__(
        self,
        query: Float[Array, "batch query width"],
        key: Float[Array, "batch key width"] | KeysValues | None = None,
        value: Float[Array, "batch key width"] | None = None,
        mask: Mask | None = None,
        *,
        start: Position = 0,
        rngs: Randomness | None = None,
    ) -> Float[Array, "batch query width"]:
        """Attend from `query` to `key` (default: to itself) and gather `value` (default: `key`).

        `key` may also be what `keys_values` made of both; `start` is then the position of the first query.
        Raises InputError for inputs of another width or rank and for masks that do not fit.
        """
        return self.with_weights(query, key, value, mask, start=start, rngs=rngs)[0]

    def with_weights(
        self,
        query: Float[Array, "batch query width"],
        key: Float[Array, "batch key width"] | KeysValues | None = None,
        value: Float[Array, "batch key width"] | None = None,
        mask: Mask | None = None,
        *,
        start: Position = 0,
        rngs: Randomness | None = None,
    ) -> tuple[Float[Array, "batch query width"], Float[Array, "batch head query key"]]:
        """The same, and each head's attention weights, before dropout."""
        check_shape("query", query.shape, "batch length width", width=self.width)
        if not isinstance(key, KeysValues):
            key = self.keys_values(query if key is None else key, value)
        check_shape("the keys", key.key.shape, "batch head length dim", batch=query.shape[0])
        q = self._turned(self._heads("query", query), start)
        k, v = (rearrange(x, "batch head key dim -> batch key head dim") for x in key)
        heads, weights = dot_product_attention(q, k, v, mask, dropout_rate=self.dropout, rngs=rngs)
        mixed = rearrange(heads, "batch query head dim -> batch query (head dim)")
        return mixed if self.out is None else self.out(mixed), weights

    def keys_values(
        self,
        key: Float[Array, "batch key width"],
        value: Float[Array, "batch key width"] | None = None,
        *,
        start: Position = 0,
    ) -> KeysValues:
        """Keys and values of a sequence whose first token stands at `start`, to be attended to later, or often."""
        value = key if value is None else value
        batch, length, width = *key.shape[:2], self.width
        check_shape("key", key.shape, "batch length width", width=width)
        check_shape("value", value.shape, "batch length width", batch=batch, length=length, width=width)
        heads = self._turned(self._heads("key", key), start), self._heads("value", value)
        return KeysValues(*(rearrange(x, "batch key head dim -> batch head key dim") for x in heads))

    def _heads(
        self, name: Literal["query", "key", "value"], x: Float[Array, "batch length width"]
    ) -> Float[Array, "batch length head dim"]:
        if self.merged:  # compiled, one product serves all three
            projected = jnp.split(self.qkv(x), 3, axis=-1)[("query", "key", "value").index(name)]
        else:
            projected = getattr(self, name)(x)
        return rearrange(projected, "batch length (head dim) -> batch length head dim", head=self.heads)

    def _turned(
        self, heads: Float[Array, "batch length head dim"], start: Position
    ) -> Float[Array, "batch length head dim"]:
        return heads if self.rotary is None else self.rotary(heads, start)
