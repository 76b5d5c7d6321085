"""CS231n's assignment, both editions: the course's own module names."""

from flax import nnx

from flaxformer_edu.convert.layouts.common import layer_norm, linear, separate_qkv
from flaxformer_edu.convert.rules import Layout, Rule, within
from flaxformer_edu.layers import DecoderBlock, EncoderBlock, FeedForward, MultiHeadAttention, PatchEmbedding
from flaxformer_edu.models import CaptioningTransformer, VisionTransformer

ATTENTION = (
    *separate_qkv("query", "key", "value"),
    *linear("proj", "out"),
)
FEED_FORWARD = (*linear("fc1", "up"), *linear("fc2", "down"))
ENCODER_BLOCK = (
    *within("self_attn", "attention", ATTENTION),
    *within("ffn", "mlp", FEED_FORWARD),
    *layer_norm("norm_self", "norm1"),
    *layer_norm("norm_ffn", "norm2"),
)
DECODER_BLOCK = (
    *within("self_attn", "attention", ATTENTION),
    *within("cross_attn", "cross_attention", ATTENTION),
    *within("ffn", "mlp", FEED_FORWARD),
    *layer_norm("norm_self", "norm1"),
    *layer_norm("norm_cross", "norm2"),
    *layer_norm("norm_ffn", "norm3"),
)
PATCH_EMBEDDING = (
    Rule("proj.weight", "projection.kernel", "width (channel row column) -> row column channel width"),
    Rule("proj.bias", "projection.bias"),
)
VISION_TRANSFORMER = (
    *within("patch_embed", "patch_embedding", PATCH_EMBEDDING),
    *within("transformer.layers.{i}", "encoder.blocks.{i}", ENCODER_BLOCK),
    *linear("head", "head"),
)
CAPTIONING = (
    *linear("visual_projection", "image"),
    Rule("embedding.weight", "words.embedding"),
    *within("transformer.layers.{i}", "decoder.blocks.{i}", DECODER_BLOCK),
    *linear("output", "output"),
)

LAYOUTS: dict[type[nnx.Module], Layout] = {
    MultiHeadAttention: Layout(ATTENTION),
    FeedForward: Layout(FEED_FORWARD),
    EncoderBlock: Layout(ENCODER_BLOCK),
    DecoderBlock: Layout(DECODER_BLOCK),
    PatchEmbedding: Layout(PATCH_EMBEDDING),
    # The course saves its table of sinusoids; we compute it.
    VisionTransformer: Layout(VISION_TRANSFORMER, ignore=("positional_encoding.pe",)),
    CaptioningTransformer: Layout(CAPTIONING, ignore=("positional_encoding.pe",)),
}
