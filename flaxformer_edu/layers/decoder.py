"""Decoder blocks, which attend to a memory as well, and stacks of them, for whole sequences and token by token."""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flaxformer_edu.errors import InputError
from flaxformer_edu.layers.attention import KeysValues
from flaxformer_edu.layers.dropout import Randomness
from flaxformer_edu.layers.embedding import Position
from flaxformer_edu.layers.encoder import Block, BlockConfig, Tokens, make_attention
from flaxformer_edu.layers.linear import LinearOptions, layer_norm
from flaxformer_edu.layers.masks import Mask, causal_mask

Cache = list[KeysValues]  # one entry per block
Memory = Float[Array, "batch memory width"]


class DecoderBlock(Block):
    """Self-attention, attention to an encoder's output (the memory), then the feed-forward network.

    Raises InputError for a config with merged projections, which would be computed twice, for sequence and memory.
    """

    def __init__(self, config: BlockConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        if config.merged_qkv:
            raise InputError(
                "merged_qkv is True, but a decoder's queries and its keys and values come from two inputs, the "
                "sequence and the memory: set merged_qkv=False"
            )
        super().__init__(config, rngs=rngs, **options)
        self.cross_attention = make_attention(config, rngs=rngs, **options)
        self.norm3 = layer_norm(config.width, config.norm_epsilon, rngs=rngs, **options)

    def __call__(
        self,
        x: Tokens,
        memory: Memory | KeysValues,
        mask: Mask | None = None,
        memory_mask: Mask | None = None,
        *,
        sequence: KeysValues | None = None,
        start: Position = 0,
        rngs: Randomness | None = None,
    ) -> Tokens:
        """`mask` is for the sequence itself (`causal_mask`, say), `memory_mask` for the memory.

        Where `x` is but a part of a sequence, from position `start` on, `sequence` holds the keys and values of it all.
        """
        h = self.attention(self.pre(self.norm1, x), sequence, mask=mask, start=start, rngs=rngs)
        x = self.post(self.norm1, x + self.drop(h, rngs))
        h = self.cross_attention(self.pre(self.norm2, x), memory, mask=memory_mask, rngs=rngs)
        x = self.post(self.norm2, x + self.drop(h, rngs))
        h = self.mlp(self.pre(self.norm3, x), rngs=rngs)
        return self.post(self.norm3, x + self.drop(h, rngs))

    def keys_values(self, x: Tokens, start: Position = 0) -> KeysValues:
        """What later tokens see of the block's input, whose first token stands at position `start`."""
        return self.attention.keys_values(self.pre(self.norm1, x), start=start)

    def memory_weights(
        self, x: Tokens, memory: Memory, mask: Mask | None = None
    ) -> Float[Array, "batch head length memory"]:
        """What each position of the block's input looks at in the memory; `mask` is for the sequence itself."""
        x = self.post(self.norm1, x + self.attention(self.pre(self.norm1, x), mask=mask))
        return self.cross_attention.with_weights(self.pre(self.norm2, x), memory)[1]


class Decoder(nnx.Module):
    """A stack of decoder blocks, normalised at the end if `final_norm`."""

    def __init__(
        self,
        config: BlockConfig,
        layers: int,
        *,
        final_norm: bool = False,
        rngs: nnx.Rngs,
        **options: Unpack[LinearOptions],
    ):
        self.blocks = nnx.List([DecoderBlock(block, rngs=rngs, **options) for block in config.by_depth(layers)])
        self.norm = layer_norm(config.width, config.norm_epsilon, rngs=rngs, **options) if final_norm else None

    def __call__(
        self,
        x: Tokens,
        memory: Memory,
        mask: Mask | None = None,
        memory_mask: Mask | None = None,
        *,
        rngs: Randomness | None = None,
    ) -> Tokens:
        """Apply the blocks one after the other, each to the same memory."""
        for block in self.blocks:
            x = block(x, memory, mask, memory_mask, rngs=rngs)
        return x if self.norm is None else self.norm(x)

    def attention_to_memory(
        self, x: Tokens, memory: Memory, mask: Mask | None = None
    ) -> Float[Array, "layer batch head length memory"]:
        """The weights of every block's attention to the memory, in evaluation; `mask` is for the sequence itself."""
        maps = []
        for block in self.blocks:
            maps.append(block.memory_weights(x, memory, mask))
            x = block(x, memory, mask)
        return jnp.stack(maps)

    def start(self, memory: Memory, length: int) -> tuple[Cache, Cache]:
        """What decoding begins with: the memory's keys and values, and room for those of `length` tokens.

        Both have an entry per block.
        """
        memories = [block.cross_attention.keys_values(memory) for block in self.blocks]
        room = [jax.tree.map(lambda x: jnp.zeros((*x.shape[:2], length, x.shape[3]), x.dtype), m) for m in memories]
        return memories, room

    def step(
        self,
        x: Float[Array, "batch 1 width"],
        memories: Cache,
        cache: Cache,
        position: Position,
        mask: Mask | None = None,
        memory_mask: Mask | None = None,
    ) -> tuple[Float[Array, "batch 1 width"], Cache]:
        """The output at one position, given what `cache` holds of those before it; and the cache with this one.

        `mask` may hide some of the positions before it.
        """
        causal, filled = causal_mask(cache[0].key.shape[2])[position, None], []
        mask = causal if mask is None else causal & mask
        for block, memory, past in zip(self.blocks, memories, cache, strict=True):
            sequence = past.insert(block.keys_values(x, position), position)
            x = block(x, memory, mask, memory_mask, sequence=sequence, start=position)
            filled.append(sequence)
        return x if self.norm is None else self.norm(x), filled
