"""Encoder blocks and stacks of them; and what every block has, an encoder's or a decoder's."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flaxformer_edu.errors import InputError
from flaxformer_edu.layers.attention import MultiHeadAttention, Turn
from flaxformer_edu.layers.dropout import Randomness, drop_path, dropout
from flaxformer_edu.layers.linear import Linear, LinearOptions, layer_norm
from flaxformer_edu.layers.masks import Mask

Tokens = Float[Array, "batch length width"]
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": partial(jax.nn.gelu, approximate=False),  # exact, as in PyTorch
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
}


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """What encoder and decoder blocks have in common.

    norm: where layer normalisation stands: "post", norm(x + sublayer(x)), as in Vaswani et al. 2017, or "pre",
        x + sublayer(norm(x)), as in ViT and GPT-2.
    dropout: rate on each sublayer's output, and, unless `attention_dropout` and `hidden_dropout` say otherwise, on
        attention weights and on the feed-forward network's hidden features.
    drop_path: rate of stochastic depth in the last block; it rises to that from 0 in the first.
    qkv_bias, output_projection: as of `MultiHeadAttention`, in every attention of a block.
    merged_qkv: as of `MultiHeadAttention`; for encoders, as merging saves nothing in attention to a memory.
    rotary: as of `MultiHeadAttention`, in attention of a sequence to itself: between its positions and those of a
        memory there is no distance.
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
    rotary: Turn | None = None

    def __post_init__(self):
        if self.norm not in ("pre", "post"):
            raise InputError(f"norm is {self.norm!r}, expected 'pre' or 'post'")

    def by_depth(self, layers: int) -> "list[BlockConfig]":
        """Each block's configuration in a stack: stochastic depth drops more, the deeper the block stands."""
        if self.drop_path == 0:
            return [self] * layers
        return [replace(self, drop_path=self.drop_path * i / max(1, layers - 1)) for i in range(layers)]


class FeedForward(nnx.Module):
    """Two linear maps with an activation between them, applied to each position (Vaswani et al. 2017, equation 2).

    Args:
        hidden: features between the two maps.
        activation: "gelu" (exact: x Phi(x)), "gelu_tanh" (its approximation) or "relu".
        dropout: rate after the activation.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        activation: str = "gelu",
        dropout: float = 0.0,
        rngs: nnx.Rngs,
        **options: Unpack[LinearOptions],
    ):
        if activation not in ACTIVATIONS:
            raise InputError(f"unknown activation {activation!r}: choose one of {', '.join(ACTIVATIONS)}")
        self.activation, self.dropout = activation, dropout
        self.up = Linear(width, hidden, rngs=rngs, **options)
        self.down = Linear(hidden, width, rngs=rngs, **options)

    def __call__(
        self, x: Float[Array, "*batch width"], *, rngs: Randomness | None = None
    ) -> Float[Array, "*batch width"]:
        """down(dropout(activation(up(x))))."""
        h = ACTIVATIONS[self.activation](self.up(x))
        return self.down(dropout(h, self.dropout, rngs))


class Block(nnx.Module):
    """What encoder and decoder blocks share: their sublayers, and what stands around each of these."""

    def __init__(self, config: BlockConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        self.config = c = config
        hidden_dropout = c.dropout if c.hidden_dropout is None else c.hidden_dropout
        self.attention = make_attention(c, rotary=c.rotary, rngs=rngs, **options)
        self.mlp = FeedForward(c.width, c.hidden, activation=c.activation, dropout=hidden_dropout, rngs=rngs, **options)
        self.norm1 = layer_norm(c.width, c.norm_epsilon, rngs=rngs, **options)
        self.norm2 = layer_norm(c.width, c.norm_epsilon, rngs=rngs, **options)

    def pre(self, norm: nnx.LayerNorm, x: Tokens) -> Tokens:
        """What a sublayer is given: norm(x) where normalisation stands before the sublayers, else x."""
        return norm(x) if self.config.norm == "pre" else x

    def post(self, norm: nnx.LayerNorm, x: Tokens) -> Tokens:
        """What leaves a residual connection: norm(x) where normalisation follows it, else x."""
        return norm(x) if self.config.norm == "post" else x

    def drop(self, x: Tokens, rngs: Randomness | None) -> Tokens:
        """A sublayer's output; in training some features are zeroed (dropout), and some examples (stochastic depth)."""
        return drop_path(dropout(x, self.config.dropout, rngs), self.config.drop_path, rngs)

    def attention_weights(self, x: Tokens, mask: Mask | None = None) -> Float[Array, "batch head length length"]:
        """What each position of the block's input looks at."""
        return self.attention.with_weights(self.pre(self.norm1, x), mask=mask)[1]


def make_attention(
    config: BlockConfig, *, rotary: Turn | None = None, rngs: nnx.Rngs, **options: Unpack[LinearOptions]
) -> MultiHeadAttention:
    """An attention layer of a block, as its config says; positions turn queries and keys if `rotary`."""
    return MultiHeadAttention(
        config.width,
        config.heads,
        dropout=config.dropout if config.attention_dropout is None else config.attention_dropout,
        qkv_bias=config.qkv_bias,
        merged_qkv=config.merged_qkv,
        output_projection=config.output_projection,
        rotary=rotary,
        rngs=rngs,
        **options,
    )


class EncoderBlock(Block):
    """Self-attention, then the feed-forward network, each with a residual connection and layer normalisation."""

    def __call__(self, x: Tokens, mask: Mask | None = None, *, rngs: Randomness | None = None) -> Tokens:
        """`mask` says what may be attended to: boolean, broadcastable to `batch head query key`."""
        h = self.attention(self.pre(self.norm1, x), mask=mask, rngs=rngs)
        x = self.post(self.norm1, x + self.drop(h, rngs))
        h = self.mlp(self.pre(self.norm2, x), rngs=rngs)
        return self.post(self.norm2, x + self.drop(h, rngs))


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
        self.blocks = nnx.List([EncoderBlock(block, rngs=rngs, **options) for block in config.by_depth(layers)])
        self.norm = layer_norm(config.width, config.norm_epsilon, rngs=rngs, **options) if final_norm else None

    def __call__(self, x: Tokens, mask: Mask | None = None, *, rngs: Randomness | None = None) -> Tokens:
        """Apply the blocks one after the other."""
        for block in self.blocks:
            x = block(x, mask, rngs=rngs)
        return x if self.norm is None else self.norm(x)

    def attention_maps(self, x: Tokens, mask: Mask | None = None) -> Float[Array, "layer batch head length length"]:
        """The attention weights of every block, in evaluation."""
        maps = []
        for block in self.blocks:
            maps.append(block.attention_weights(x, mask))
            x = block(x, mask)
        return jnp.stack(maps)
