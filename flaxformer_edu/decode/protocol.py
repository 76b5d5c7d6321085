"""What a model must offer to be decoded, and what the decoding functions share."""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from flaxformer_edu.errors import InputError, check_shape

Tokens = Int[Array, "batch length"]
Prompt = Int[Array | np.ndarray, "batch prompt"]


@runtime_checkable
class SequenceConfig(Protocol):
    """The configuration of a model that writes sequences: its special tokens, and how many tokens it can write."""

    @property
    def vocab(self) -> int:
        """How many tokens there are."""
        ...

    @property
    def max_length(self) -> int:
        """How many tokens it can write."""
        ...

    @property
    def padding_id(self) -> int:
        """What follows the end."""
        ...

    @property
    def start_id(self) -> int:
        """What stands before the first token."""
        ...

    @property
    def end_id(self) -> int:
        """What it writes last."""
        ...


@runtime_checkable
class CachedDecoder(Protocol):
    """A model that can be run one token at a time. It must be a pytree, as every `nnx.Module` is."""

    @property
    def config(self) -> SequenceConfig:
        """Its configuration."""
        ...

    def start(self, inputs: PyTree, length: int, /) -> tuple[PyTree, PyTree]:
        """The encoded inputs, which every step reads and none changes, and an empty cache for `length` tokens.

        The batch is the first axis of every array in both.
        """
        ...

    def step(
        self, tokens: Int[Array, "batch"], position: Int[Array, ""], memory: PyTree, cache: PyTree, /
    ) -> tuple[Float[Array, "batch vocab"], PyTree]:
        """The logits of the tokens that follow those at `position`, and the cache with these in it.

        Position 0 is the start token's.
        """
        ...


def first_tokens(model: CachedDecoder, inputs: PyTree, prompt: Prompt | None, max_length: int | None) -> Tokens:
    """The start token, the prompt, and padding, `max_length` tokens after the first.

    Raises InputError for a length that the model cannot write, and for a prompt that does not fit.
    """
    config, batch = model.config, jax.tree.leaves(inputs)[0].shape[0]
    length = config.max_length if max_length is None else max_length
    if not 1 <= length <= config.max_length:
        raise InputError(f"max_length is {length}, but the model can write 1 to {config.max_length} tokens")
    tokens = np.full((batch, 1 + length), config.padding_id, np.int32)
    tokens[:, 0] = config.start_id
    if prompt is not None:
        check_prompt(np.asarray(prompt), batch, length, config)
        tokens[:, 1 : 1 + prompt.shape[1]] = prompt
    return jnp.asarray(tokens)


def check_prompt(prompt: Prompt, batch: int, length: int, config: SequenceConfig) -> None:
    """Raise InputError unless the prompt holds words of the vocabulary, padded on the right, `length` at most."""
    check_shape("prompt", prompt.shape, "batch length", batch=batch)
    if prompt.shape[1] > length:
        raise InputError(f"the prompt's {prompt.shape[1]} tokens leave no room: max_length is {length}")
    if prompt.size and not 0 <= prompt.min() <= prompt.max() < config.vocab:
        raise InputError(
            f"prompt holds ids from {prompt.min()} to {prompt.max()}, but the vocabulary has {config.vocab} words"
        )
    padding = prompt == config.padding_id
    if (padding[:, :-1] & ~padding[:, 1:]).any():
        raise InputError(f"prompt has padding (id {config.padding_id}) before a word: pad its rows on the right")
