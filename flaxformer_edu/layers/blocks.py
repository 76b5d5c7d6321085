"""Encoder and decoder blocks, and stacks of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flaxformer_edu.errors import InputError
from flaxformer_edu.layers.attention import KeysValues, MultiHeadAttention
from flaxformer_edu.layers.dropout import Randomness, drop_path, dropout
from flaxformer_edu.layers.feed_forward import FeedForward
from flaxformer_edu.layers.masks import Mask, causal_mask
from flaxformer_edu.layers.options import LinearOptions, layer_norm
from flaxformer_edu.layers.positions import Multiplied, Position, Rotary

Cache = list[KeysValues]  # one entry a block


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """What encoder and decoder blocks have in common.

    `norm` says where layer normalisation stands: "post", norm(x + sublayer(x)), as in Vaswani et al. 2017, or "pre",
    x + sublayer(norm(x)), as in ViT and GPT-2. `dropout` is the rate on each sublayer's output, and, unless
    `attention_dropout` and `hidden_dropout` say otherwise, on attention weights and on the feed-forward network's
    hidden features. `drop_path` is the rate of stochastic depth in the last block; it rises to that from 0 in the
    first. `qkv_bias`, `merged_qkv`, `output_projection` and `rotary` are what `MultiHeadAttention` calls bias, merged,
    output and rotary.
    """

    width: int
    heads: int
    hidden: int
    dropout: float = 0.0
    attention_dropout: float | None = None
    hidden_dropout: float | None = None
    drop_path: float = 0.0
    norm: Literal["pre", "post"] = "post"
    activation: str = "gelu"
    norm_epsilon: float = 1e-5
    qkv_bias: bool = True
    merged_qkv: bool = False
    output_projection: bool = True
    rotary: Rotary | Multiplied | None = None

    def __post_init__(self):
        if self.norm not in ("pre", "post"):
            raise InputError(f"norm is {self.norm!r}, expected 'pre' or 'post'")


class Block(nnx.Module):
    """What encoder and decoder blocks share: attention to the sequence itself, and residual connections."""

    def __init__(self, config: BlockConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        self.config = config
        c = config
        self.attention = MultiHeadAttention(
            c.width,
            c.heads,
            dropout=_rate(c.attention_dropout, c),
            bias=c.qkv_bias,
            merged=c.merged_qkv,
            output=c.output_projection,
            rotary=c.rotary,
            rngs=rngs,
            **options,
        )
        self.mlp = FeedForward(
            c.width, c.hidden, activation=c.activation, dropout=_rate(c.hidden_dropout, c), rngs=rngs, **options
        )
        self.norm1 = layer_norm(c.width, c.norm_epsilon, rngs=rngs, **options)
        self.norm2 = layer_norm(c.width, c.norm_epsilon, rngs=rngs, **options)

    def residual(
        self,
        x: Float[Array, "batch length width"],
        norm: nnx.LayerNorm,
        sublayer: Callable[[Array], Array],
        rngs: Randomness | None,
    ) -> Float[Array, "batch length width"]:
        """x + dropout(sublayer(norm(x))) for pre-norm, norm(x + dropout(sublayer(x))) for post-norm."""
        c = self.config
        branch = dropout(sublayer(self.sublayer_input(norm, x)), c.dropout, rngs)
        x = x + drop_path(branch, c.drop_path, rngs)
        return x if c.norm == "pre" else norm(x)

    def attention_weights(
        self, x: Float[Array, "batch length width"], mask: Mask | None = None
    ) -> Float[Array, "batch head length length"]:
        """What each position of the block's input looks at."""
        return self.attention.with_weights(self.sublayer_input(self.norm1, x), mask=mask)[1]

    def keys_values(self, x: Float[Array, "batch length width"], start: Position = 0) -> KeysValues:
        """What later tokens see of the block's input, whose first token stands at position `start`."""
        return self.attention.keys_values(self.sublayer_input(self.norm1, x), start=start)

    def sublayer_input(
        self, norm: nnx.LayerNorm, x: Float[Array, "batch length width"]
    ) -> Float[Array, "batch length width"]:
        """What a sublayer is given: norm(x) for pre-norm, x itself for post-norm."""
        return norm(x) if self.config.norm == "pre" else x


class EncoderBlock(Block):
    """Self-attention, then the feed-forward network, each with a residual connection and layer normalisation."""

    def __call__(
        self,
        x: Float[Array, "batch length width"],
        mask: Mask | None = None,
        *,
        rngs: Randomness | None = None,
    ) -> Float[Array, "batch length width"]:
        """`mask` says what may be attended to: boolean, broadcastable to `batch head query key`."""
        x = self.residual(x, self.norm1, lambda h: self.attention(h, mask=mask, rngs=rngs), rngs)
        return self.residual(x, self.norm2, lambda h: self.mlp(h, rngs=rngs), rngs)


class DecoderBlock(Block):
    """Self-attention, attention to an encoder's output (the memory), then the feed-forward network."""

    def __init__(self, config: BlockConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        super().__init__(config, rngs=rngs, **options)
        c = config
        self.cross_attention = MultiHeadAttention(
            c.width, c.heads, dropout=_rate(c.attention_dropout, c), bias=c.qkv_bias, rngs=rngs, **options
        )
        self.norm3 = layer_norm(c.width, c.norm_epsilon, rngs=rngs, **options)

    def __call__(
        self,
        x: Float[Array, "batch length width"],
        memory: Float[Array, "batch memory width"] | KeysValues,
        mask: Mask | None = None,
        memory_mask: Mask | None = None,
        *,
        sequence: KeysValues | None = None,
        start: Position = 0,
        rngs: Randomness | None = None,
    ) -> Float[Array, "batch length width"]:
        """`mask` is for the sequence itself (`causal_mask`, say), `memory_mask` for the memory.

        Where `x` is but a part of a sequence, from position `start` on, `sequence` holds the keys and values of it all.
        """
        x = self.residual(x, self.norm1, lambda h: self.attention(h, sequence, mask=mask, start=start, rngs=rngs), rngs)
        x = self.residual(x, self.norm2, lambda h: self.cross_attention(h, memory, mask=memory_mask, rngs=rngs), rngs)
        return self.residual(x, self.norm3, lambda h: self.mlp(h, rngs=rngs), rngs)

    def memory_weights(
        self,
        x: Float[Array, "batch length width"],
        memory: Float[Array, "batch memory width"],
        mask: Mask | None = None,
    ) -> Float[Array, "batch head length memory"]:
        """What each position of the block's input looks at in the memory; `mask` is for the sequence itself."""
        x = self.residual(x, self.norm1, lambda h: self.attention(h, mask=mask), None)
        return self.cross_attention.with_weights(self.sublayer_input(self.norm2, x), memory)[1]


class Encoder(nnx.Module):
    """A stack of encoder blocks, normalised at the end if `final_norm` (usual with pre-norm blocks)."""

    def __init__(
        self,
        config: BlockConfig,
        layers: int,
        *,
        final_norm: bool = False,
        rngs: nnx.Rngs,
        **options: Unpack[LinearOptions],
    ):
        self.blocks = nnx.List([EncoderBlock(block, rngs=rngs, **options) for block in _by_depth(config, layers)])
        self.norm = layer_norm(config.width, config.norm_epsilon, rngs=rngs, **options) if final_norm else None

    def __call__(
        self,
        x: Float[Array, "batch length width"],
        mask: Mask | None = None,
        *,
        rngs: Randomness | None = None,
    ) -> Float[Array, "batch length width"]:
        """Apply the blocks one after the other."""
        for block in self.blocks:
            x = block(x, mask, rngs=rngs)
        return x if self.norm is None else self.norm(x)

    def attention_maps(
        self, x: Float[Array, "batch length width"], mask: Mask | None = None
    ) -> Float[Array, "layer batch head length length"]:
        """The attention weights of every block, in evaluation."""
        maps = []
        for block in self.blocks:
            maps.append(block.attention_weights(x, mask))
            x = block(x, mask)
        return jnp.stack(maps)


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
        self.blocks = nnx.List([DecoderBlock(block, rngs=rngs, **options) for block in _by_depth(config, layers)])
        self.norm = layer_norm(config.width, config.norm_epsilon, rngs=rngs, **options) if final_norm else None

    def __call__(
        self,
        x: Float[Array, "batch length width"],
        memory: Float[Array, "batch memory width"],
        mask: Mask | None = None,
        memory_mask: Mask | None = None,
        *,
        rngs: Randomness | None = None,
    ) -> Float[Array, "batch length width"]:
        """Apply the blocks one after the other, each to the same memory."""
        for block in self.blocks:
            x = block(x, memory, mask, memory_mask, rngs=rngs)
        return x if self.norm is None else self.norm(x)

    def attention_to_memory(
        self,
        x: Float[Array, "batch length width"],
        memory: Float[Array, "batch memory width"],
        mask: Mask | None = None,
    ) -> Float[Array, "layer batch head length memory"]:
        """The weights of every block's attention to the memory, in evaluation; `mask` is for the sequence itself."""
        maps = []
        for block in self.blocks:
            maps.append(block.memory_weights(x, memory, mask))
            x = block(x, memory, mask)
        return jnp.stack(maps)

    def start(self, memory: Float[Array, "batch memory width"], length: int) -> tuple[Cache, Cache]:
        """What decoding begins with: the memory's keys and values, and room for those of `length` tokens.

        Both have an entry a block.
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


def _rate(rate: float | None, config: BlockConfig) -> float:
    """The rate itself, or, where it is not given, the block's."""
    return config.dropout if rate is None else rate


def _by_depth(config: BlockConfig, layers: int) -> list[BlockConfig]:
    """Each block's configuration: stochastic depth drops more, the deeper the block stands."""
    if config.drop_path == 0:
        return [config] * layers
    return [replace(config, drop_path=config.drop_path * i / max(1, layers - 1)) for i in range(layers)]
