"""Models without a cache: what cached decoding is compared with, and a model that follows a script."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array


class WholePrefix(nnx.Module):
    """Decodes `model` in the course's way, the whole prefix again for every token; the cache holds the tokens."""

    def __init__(self, model: Any):
        self.model = model

    @property
    def config(self) -> Any:
        return self.model.config

    def start(self, inputs: Array, length: int) -> tuple[Any, Array]:
        return inputs, jnp.full((inputs.shape[0], length), self.config.padding_id)

    def step(self, tokens: Array, position: Array, inputs: Array, prefix: Array) -> tuple[Array, Array]:
        prefix = prefix.at[:, position].set(tokens)
        return self.model(inputs, prefix)[:, position], prefix


@dataclass(frozen=True)
class Tokens:
    vocab: int = 9
    max_length: int = 6
    padding_id: int = 0
    start_id: int = 1
    end_id: int = 2


class Scripted(nnx.Module):
    """Gives the logits that it is handed as inputs, `batch length vocab`, whatever the tokens; says when it steps."""

    def __init__(self, *, traced: Callable[[], None] = lambda: None, stepped: Callable[[Any], None] = lambda _: None):
        self.config, self.traced, self.stepped = Tokens(), traced, stepped

    def start(self, inputs: Array, length: int) -> tuple[Array, Array]:
        self.traced()
        return inputs, jnp.zeros((inputs.shape[0], length))

    def step(self, tokens: Array, position: Array, inputs: Array, cache: Array) -> tuple[Array, Array]:
        jax.debug.callback(self.stepped, position)
        return inputs[:, position], cache


def script(*rows: list[int]) -> Array:
    """Inputs for `Scripted` that make it write these rows."""
    return 10.0 * jax.nn.one_hot(jnp.array(rows), Tokens.vocab)
