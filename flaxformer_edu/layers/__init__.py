"""The parts Transformers are made of: pure functions where there are no parameters, thin NNX modules around them."""

from flaxformer_edu.layers.attention import MultiHeadAttention, dot_product_attention
from flaxformer_edu.layers.attention_maps import attention_rollout, patch_shares
from flaxformer_edu.layers.blocks import BlockConfig, Decoder, DecoderBlock, Encoder, EncoderBlock
from flaxformer_edu.layers.dropout import MaskSource, Randomness, RecordedMasks, drop_path, dropout, hashed_mask
from flaxformer_edu.layers.feed_forward import FeedForward
from flaxformer_edu.layers.masks import causal_mask, padding_mask
from flaxformer_edu.layers.patches import ConvStem, PatchEmbedding, patchify
from flaxformer_edu.layers.positions import (
    LearnedPositions,
    Multiplied,
    Rotary,
    SinusoidalPositions,
    SinusoidalPositions2D,
    apply_rope,
    sinusoidal_positions,
)

__all__ = [
    "BlockConfig",
    "ConvStem",
    "Decoder",
    "DecoderBlock",
    "Encoder",
    "EncoderBlock",
    "FeedForward",
    "LearnedPositions",
    "MaskSource",
    "MultiHeadAttention",
    "Multiplied",
    "PatchEmbedding",
    "Randomness",
    "RecordedMasks",
    "Rotary",
    "SinusoidalPositions",
    "SinusoidalPositions2D",
    "apply_rope",
    "attention_rollout",
    "causal_mask",
    "dot_product_attention",
    "drop_path",
    "dropout",
    "hashed_mask",
    "padding_mask",
    "patch_shares",
    "patchify",
    "sinusoidal_positions",
]
