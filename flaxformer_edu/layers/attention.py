"""Scaled dot-product attention, with one head and with many."""

import math
from collections.abc import Callable
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from flaxformer_edu.errors import InputError, check_shape
from flaxformer_edu.layers.dropout import Randomness, dropout
from flaxformer_edu.layers.embedding import Position
from flaxformer_edu.layers.linear import Linear, LinearOptions
from flaxformer_edu.layers.masks import Mask, check_mask

Heads = Float[Array, "batch length head dim"]
Turn = Callable[[Heads, Position], Heads]  # changes queries and keys by their positions: start, start + 1, ...


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

    Returns the result and the weights before dropout. Rows of the weights add up to 1; a row whose mask
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

    Only here do heads come before positions, the order in which the matrix products read them. A cache in the other
    order would be copied into this one at every decoded token: XLA on a CPU then takes half as long again to decode.
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
        qkv_bias: whether the query, key and value projections have one.
        merged_qkv: keep the three projections in one, `qkv`: the same numbers, by one matrix product instead of three.
            That holds for self-attention: where `key` is another sequence, both are projected in full.
        output_projection: whether the heads are mixed by a last projection.
        rotary: what is done to queries and keys, by their positions, before they meet: `Rotary()`, or any function of
            the heads and the position of the first token.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        dropout: float = 0.0,
        qkv_bias: bool = True,
        merged_qkv: bool = False,
        output_projection: bool = True,
        rotary: Turn | None = None,
        rngs: nnx.Rngs,
        **options: Unpack[LinearOptions],
    ):
        if width % heads:
            raise InputError(f"width {width} is not divisible by {heads} heads: choose a multiple of {heads}")
        self.width, self.heads, self.dropout, self.rotary = width, heads, dropout, rotary
        self.merged_qkv = merged_qkv
        if merged_qkv:
            self.qkv = Linear(width, 3 * width, use_bias=qkv_bias, rngs=rngs, **options)
        else:
            self.query = Linear(width, width, use_bias=qkv_bias, rngs=rngs, **options)
            self.key = Linear(width, width, use_bias=qkv_bias, rngs=rngs, **options)
            self.value = Linear(width, width, use_bias=qkv_bias, rngs=rngs, **options)
        self.out = Linear(width, width, rngs=rngs, **options) if output_projection else None

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

        `key` may also be what `keys_values` made of both. `start` is the position of the first query.
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
        q, k, v = self.project(query, key, value, start=start)
        heads, weights = dot_product_attention(q, k, v, mask, dropout_rate=self.dropout, rngs=rngs)
        mixed = rearrange(heads, "batch query head dim -> batch query (head dim)")
        return mixed if self.out is None else self.out(mixed), weights

    def project(
        self,
        query: Float[Array, "batch query width"],
        key: Float[Array, "batch key width"] | KeysValues | None = None,
        value: Float[Array, "batch key width"] | None = None,
        *,
        start: Position = 0,
    ) -> tuple[
        Float[Array, "batch query head dim"], Float[Array, "batch key head dim"], Float[Array, "batch key head dim"]
    ]:
        """Queries, keys and values cut into heads, as `dot_product_attention` takes them; arguments as of a call."""
        check_shape("query", query.shape, "batch length width", width=self.width)
        if key is None and value is None:
            q, k, v = self._heads(query, "query", "key", "value")
            return self._turned(q, start), self._turned(k, start), v
        if isinstance(key, KeysValues):
            k, v = (rearrange(x, "batch head key dim -> batch key head dim") for x in key)
        else:
            k, v = self._project_keys(query if key is None else key, value)
        check_shape("the keys", k.shape, "batch length head dim", batch=query.shape[0])
        (q,) = self._heads(query, "query")
        return self._turned(q, start), k, v

    def keys_values(
        self,
        key: Float[Array, "batch key width"],
        value: Float[Array, "batch key width"] | None = None,
        *,
        start: Position = 0,
    ) -> KeysValues:
        """Keys and values of a sequence whose first token stands at `start`, to be attended to later, or often."""
        heads = self._project_keys(key, value, start)
        return KeysValues(*(rearrange(x, "batch key head dim -> batch head key dim") for x in heads))

    def _project_keys(
        self, key: Float[Array, "batch key width"], value: Float[Array, "batch key width"] | None, start: Position = 0
    ) -> tuple[Heads, Heads]:
        check_shape("key", key.shape, "batch length width", width=self.width)
        if value is None:
            k, v = self._heads(key, "key", "value")
        else:
            batch, length, width = key.shape
            check_shape("value", value.shape, "batch length width", batch=batch, length=length, width=width)
            (k,), (v,) = self._heads(key, "key"), self._heads(value, "value")
        return self._turned(k, start), v

    def _heads(self, x: Float[Array, "batch length width"], *names: str) -> list[Heads]:
        """The projections of these names, cut into heads; where they are merged, one product gives them all."""
        if self.merged_qkv:
            parts = jnp.split(self.qkv(x), 3, axis=-1)
            projected = [parts[("query", "key", "value").index(name)] for name in names]
        else:
            projected = [getattr(self, name)(x) for name in names]
        return [rearrange(y, "batch length (head dim) -> batch length head dim", head=self.heads) for y in projected]

    def _turned(self, heads: Heads, start: Position) -> Heads:
        return heads if self.rotary is None else self.rotary(heads, start)
