"""timm's VisionTransformer and VisionTransformerDistilled, and Facebook's DeiT, which has the same names."""

from flax import nnx

from flaxformer_edu.convert.layouts.common import layer_norm, linear, packed_qkv, patches
from flaxformer_edu.convert.rules import Layout, Rule, within
from flaxformer_edu.models import VisionTransformer

BLOCK = (
    *layer_norm("norm1", "norm1"),
    *within("attn", "attention", packed_qkv("qkv.weight", "qkv.bias")),
    *linear("attn.proj", "attention.out"),
    *layer_norm("norm2", "norm2"),
    *linear("mlp.fc1", "mlp.up"),
    *linear("mlp.fc2", "mlp.down"),
)
VISION_TRANSFORMER = (
    Rule("cls_token", "class_token", "1 1 width -> width"),
    Rule("dist_token", "distillation_token", "1 1 width -> width"),
    *patches("patch_embed.proj"),
    Rule("pos_embed", "positions.embedding", "1 length width -> length width"),
    *within("blocks.{i}", "encoder.blocks.{i}", BLOCK),
    *layer_norm("norm", "encoder.norm"),
    *layer_norm("fc_norm", "norm"),
    *linear("head", "head"),
    *linear("head_dist", "distilled_head"),
)

LAYOUTS: dict[type[nnx.Module], Layout] = {VisionTransformer: Layout(VISION_TRANSFORMER)}
