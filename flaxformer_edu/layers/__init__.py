"""The parts of a Transformer: pure functions where there are no parameters, and thin NNX modules around them."""

from flaxformer_edu.layers.attention import KeysValues, MultiHeadAttention, Turn, dot_product_attention
from flaxformer_edu.layers.attention_maps import attention_rollout, patch_shares
from flaxformer_edu.layers.convolution import ConvStem, convolve
from flaxformer_edu.layers.decoder import Cache, Decoder, DecoderBlock
from flaxformer_edu.layers.dropout import MaskSource, Randomness, drop_path, dropout, hashed_mask
from flaxformer_edu.layers.embedding import (
    LearnedPositions,
    PatchEmbedding,
    Position,
    SinusoidalPositions,
    SinusoidalPositions2D,
    patchify,
    sinusoidal_positions,
)
from flaxformer_edu.layers.encoder import ACTIVATIONS, Block, BlockConfig, Encoder, EncoderBlock, FeedForward
from flaxformer_edu.layers.linear import Linear, LinearOptions, layer_norm
from flaxformer_edu.layers.masks import Mask, RecordedMasks, causal_mask, padding_mask
from flaxformer_edu.layers.recurrent import GRU, scan_states
from flaxformer_edu.layers.rotary import Multiplied, Rotary, apply_rope

__all__ = [
    "ACTIVATIONS",
    "GRU",
    "Block",
    "BlockConfig",
    "Cache",
    "ConvStem",
    "Decoder",
    "DecoderBlock",
    "Encoder",
    "EncoderBlock",
    "FeedForward",
    "KeysValues",
    "LearnedPositions",
    "Linear",
    "LinearOptions",
    "Mask",
    "MaskSource",
    "MultiHeadAttention",
    "Multiplied",
    "PatchEmbedding",
    "Position",
    "Randomness",
    "RecordedMasks",
    "Rotary",
    "SinusoidalPositions",
    "SinusoidalPositions2D",
    "Turn",
    "apply_rope",
    "attention_rollout",
    "causal_mask",
    "convolve",
    "dot_product_attention",
    "drop_path",
    "dropout",
    "hashed_mask",
    "layer_norm",
    "padding_mask",
    "patch_shares",
    "patchify",
    "scan_states",
    "sinusoidal_positions",
]
