"""PyTorch's own modules: torch.nn.Transformer, its encoder and decoder and their layers, torch.nn.MultiheadAttention.

A whole `Seq2SeqTransformer` has the names of PyTorch's translation tutorial (`src_tok_emb`, `generator`).
"""

from flax import nnx

from flaxformer_edu.convert.layouts.common import layer_norm, linear, packed_qkv
from flaxformer_edu.convert.rules import Layout, Rule, within
from flaxformer_edu.layers import Decoder, DecoderBlock, Encoder, EncoderBlock, MultiHeadAttention
from flaxformer_edu.models.seq2seq import Seq2SeqTransformer, Transformer

ATTENTION = (
    *packed_qkv("in_proj_weight", "in_proj_bias"),
    *linear("out_proj", "out"),
)
ENCODER_BLOCK = (
    *within("self_attn", "attention", ATTENTION),
    *linear("linear1", "mlp.up"),
    *linear("linear2", "mlp.down"),
    *layer_norm("norm1", "norm1"),
    *layer_norm("norm2", "norm2"),
)
DECODER_BLOCK = (
    *ENCODER_BLOCK,
    *within("multihead_attn", "cross_attention", ATTENTION),
    *layer_norm("norm3", "norm3"),
)
ENCODER = (*within("layers.{i}", "blocks.{i}", ENCODER_BLOCK), *layer_norm("norm", "norm"))
DECODER = (*within("layers.{i}", "blocks.{i}", DECODER_BLOCK), *layer_norm("norm", "norm"))
TRANSFORMER = (*within("encoder", "encoder", ENCODER), *within("decoder", "decoder", DECODER))
SEQ2SEQ = (
    *within("transformer", "transformer", TRANSFORMER),
    Rule("src_tok_emb.embedding.weight", "source_words.embedding"),
    Rule("tgt_tok_emb.embedding.weight", "target_words.embedding"),
    *linear("generator", "output"),
)

LAYOUTS: dict[type[nnx.Module], Layout] = {
    MultiHeadAttention: Layout(ATTENTION),
    EncoderBlock: Layout(ENCODER_BLOCK),
    DecoderBlock: Layout(DECODER_BLOCK),
    Encoder: Layout(ENCODER),
    Decoder: Layout(DECODER),
    Transformer: Layout(TRANSFORMER),
    # The tutorial saves its table of sinusoids; we compute it.
    Seq2SeqTransformer: Layout(SEQ2SEQ, ignore=("positional_encoding.pos_embedding",)),
}
