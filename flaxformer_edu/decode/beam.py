"""Beam search: several sequences per row are extended at a time, and the best are kept."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int, PyTree

from flaxformer_edu.decode.protocol import CachedDecoder, Prompt, Tokens, first_tokens
from flaxformer_edu.errors import InputError


class Beams(NamedTuple):
    """The sequences found, the best first, and their scores; a score of minus infinity marks a place left empty."""

    tokens: Int[Array, "batch beam length"]
    scores: Float[Array, "batch beam"]


def beam_search(
    model: CachedDecoder,
    inputs: PyTree,
    *,
    width: int = 4,
    length_penalty: float = 0.0,
    prompt: Prompt | None = None,
    max_length: int | None = None,
) -> Beams:
    """Extend `width` sequences per row by every token, keep the `width` best results, and repeat.

    A sequence is scored by log p / ((5 + n) / 6)^length_penalty, where p is the probability that the model gives to its
    n tokens, the end token among them and the prompt's not: at 0 the score is log p itself, which favours short
    sequences; with 0.6 or 1 longer ones get their chance. Sequences that have ended keep their place for as long as
    their score does. Width 1 is greedy decoding. The other arguments are as in `greedy`.

    Source: Wu et al. 2016, equation 14 (without coverage).
    """
    if width < 1:
        raise InputError(f"width is {width}, expected 1 or more")
    return search(model, inputs, first_tokens(model, inputs, prompt, max_length), length_penalty, width)


class _State(NamedTuple):
    """A row's beams lie one after the other along the axis `beams`, as in the cache."""

    position: Int[Array, ""]
    tokens: Int[Array, "beams length"]
    log_probs: Float[Array, "beams"]
    lengths: Float[Array, "beams"]
    ended: Bool[Array, "beams"]
    cache: PyTree


@partial(jax.jit, static_argnames="width")
def search(
    model: CachedDecoder, inputs: PyTree, tokens: Tokens, length_penalty: float | Float[Array, ""], width: int
) -> Beams:
    """`beam_search` from the start token and the prompt on, the padding after which makes room."""
    c, (batch, length) = model.config, tokens.shape

    def penalty(lengths: Float[Array, "beams"]) -> Float[Array, "beams"]:
        return ((5 + lengths) / 6) ** length_penalty

    def unfinished(state: _State) -> Bool[Array, ""]:
        return (state.position < length - 1) & ~(state.ended | jnp.isneginf(state.log_probs)).all()

    def advance(state: _State) -> _State:
        position = state.position
        logits, cache = model.step(state.tokens[:, position], position, memory, state.cache)
        given = state.tokens[:, position + 1]
        free = (given == c.padding_id) & ~state.ended
        as_given = jnp.where(jnp.arange(c.vocab) == given[:, None], 0, -jnp.inf)
        log_probs = state.log_probs[:, None] + jnp.where(free[:, None], log_softmax(logits), as_given)
        lengths = state.lengths + free
        scores = log_probs / penalty(lengths)[:, None]

        best = jax.lax.top_k(rearrange(scores, "(batch beam) vocab -> batch (beam vocab)", batch=batch), width)[1]
        best = (best + width * c.vocab * jnp.arange(batch)[:, None]).ravel()
        parent, token = best // c.vocab, (best % c.vocab).astype(state.tokens.dtype)
        tokens, lengths, ended, cache = jax.tree.map(lambda x: x[parent], (state.tokens, lengths, state.ended, cache))
        tokens = tokens.at[:, position + 1].set(token)
        return _State(position + 1, tokens, log_probs[parent, token], lengths, ended | (token == c.end_id), cache)

    memory, cache = jax.tree.map(lambda x: jnp.repeat(x, width, axis=0), model.start(inputs, length - 1))
    first = jnp.arange(batch * width) % width == 0  # a row starts with one beam: equal ones would stay equal
    state = _State(
        position=jnp.zeros((), jnp.int32),
        tokens=jnp.repeat(tokens, width, axis=0),
        log_probs=jnp.where(first, 0.0, -jnp.inf),
        lengths=jnp.zeros(batch * width),
        ended=jnp.zeros(batch * width, bool),
        cache=cache,
    )
    state = jax.lax.while_loop(unfinished, advance, state)
    return Beams(
        rearrange(state.tokens[:, 1:], "(batch beam) length -> batch beam length", beam=width),
        rearrange(state.log_probs / penalty(state.lengths), "(batch beam) -> batch beam", beam=width),
    )


def log_softmax(logits: Float[Array, "*batch vocab"]) -> Float[Array, "*batch vocab"]:
    """log softmax, computed in float32 at least."""
    return jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
