"""Which token comes next: the most likely one, or one drawn at random."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def most_likely(logits: Float[Array, "batch vocab"], key: Key[Array, ""] | None) -> Int[Array, "batch"]:
    """The token with the largest logit, the first of several."""
    del key
    return logits.argmax(axis=-1)


def drawn(
    logits: Float[Array, "batch vocab"],
    key: Key[Array, ""],
    *,
    temperature: Float[Array, ""],
    top_k: Int[Array, ""] | None,
    top_p: Float[Array, ""] | None,
) -> Int[Array, "batch"]:
    """A token drawn from softmax(logits / temperature), of the `top_k` and then the `top_p` most likely ones."""
    logits = logits / temperature
    logits = logits if top_k is None else keep_top_k(logits, top_k)
    logits = logits if top_p is None else keep_top_p(logits, top_p)
    return jax.random.categorical(key, logits)


def keep_top_k(logits: Float[Array, "*batch vocab"], k: int | Int[Array, ""]) -> Float[Array, "*batch vocab"]:
    """The logits with all but the `k` largest, and those equal to the k-th, at minus infinity (Fan et al. 2018)."""
    ordered = jnp.sort(logits, axis=-1, descending=True)
    smallest = jnp.take(ordered, jnp.minimum(k, logits.shape[-1]) - 1, axis=-1)
    return jnp.where(logits >= smallest[..., None], logits, -jnp.inf)


def keep_top_p(logits: Float[Array, "*batch vocab"], p: float | Float[Array, ""]) -> Float[Array, "*batch vocab"]:
    """The logits with all but the most likely tokens, as many as have probability `p` together, at minus infinity.

    The most likely one is always kept. Source: Holtzman et al. 2020, section 3.1 ("nucleus").
    """
    ordered = jnp.sort(logits, axis=-1, descending=True)
    probabilities = jax.nn.softmax(ordered)
    more_likely = jnp.cumsum(probabilities, axis=-1) - probabilities
    smallest = jnp.where(more_likely < p, ordered, jnp.inf).min(axis=-1, keepdims=True)
    return jnp.where(logits >= smallest, logits, -jnp.inf)
