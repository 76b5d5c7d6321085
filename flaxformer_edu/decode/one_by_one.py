"""Greedy and sampled decoding: each row takes one token after the other."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Int, Key, PyTree

from flaxformer_edu.decode.choices import drawn, most_likely
from flaxformer_edu.decode.protocol import CachedDecoder, Prompt, Tokens, first_tokens
from flaxformer_edu.errors import InputError


def greedy(
    model: CachedDecoder, inputs: PyTree, *, prompt: Prompt | None = None, max_length: int | None = None
) -> Tokens:
    """Take the most likely token at each position.

    `inputs` are what the model's sequences depend on, `batch ...`: features of images, a sentence to translate. A
    `prompt` holds the tokens that each row begins with, without the start token; rows that begin with fewer are padded
    on the right. `max_length` (default: the model's) counts the prompt's tokens too.

    Returns the rows without the start token; after its end token, which is included, a row is padding. Compiled once
    per batch shape. Raises InputError for a length that the model cannot write, and for a prompt that does not fit.
    """
    return generate(model, inputs, first_tokens(model, inputs, prompt, max_length), Partial(most_likely), None)


def sample(
    model: CachedDecoder,
    inputs: PyTree,
    *,
    key: Key[Array, ""],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    prompt: Prompt | None = None,
    max_length: int | None = None,
) -> Tokens:
    """Draw each token from softmax(logits / temperature), of the `top_k` or the `top_p` most likely ones if given.

    `top_k` counts tokens; `top_p` is the probability that the tokens kept have together, at the least. With both,
    `top_k` comes first. The rest is as in `greedy`, which is the limit of low temperatures.
    """
    if temperature <= 0:
        raise InputError(f"temperature is {temperature}, expected more than 0: decode.greedy is its limit at 0")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k is {top_k}, expected 1 or more")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p is {top_p}, expected a probability above 0")
    choose = Partial(drawn, temperature=temperature, top_k=top_k, top_p=top_p)
    return generate(model, inputs, first_tokens(model, inputs, prompt, max_length), choose, key)


class _State(NamedTuple):
    position: Int[Array, ""]
    tokens: Tokens
    ended: Bool[Array, "batch"]
    cache: PyTree


@jax.jit
def generate(
    model: CachedDecoder, inputs: PyTree, tokens: Tokens, choose: Partial, key: Key[Array, ""] | None
) -> Int[Array, "batch generated"]:
    """What follows the first token: the tokens given and, in place of the padding, what `choose(logits, key)` says."""
    c, (batch, length) = model.config, tokens.shape
    memory, cache = model.start(inputs, length - 1)

    def unfinished(state: _State) -> Bool[Array, ""]:
        return (state.position < length - 1) & ~state.ended.all()

    def advance(state: _State) -> _State:
        position, tokens, ended, cache = state
        logits, cache = model.step(tokens[:, position], position, memory, cache)
        chosen = choose(logits, None if key is None else jax.random.fold_in(key, position))
        given = tokens[:, position + 1]
        token = jnp.where((given == c.padding_id) & ~ended, chosen.astype(given.dtype), given)
        return _State(position + 1, tokens.at[:, position + 1].set(token), ended | (token == c.end_id), cache)

    state = _State(jnp.zeros((), jnp.int32), tokens, jnp.zeros(batch, bool), cache)
    return jax.lax.while_loop(unfinished, advance, state).tokens[:, 1:]
