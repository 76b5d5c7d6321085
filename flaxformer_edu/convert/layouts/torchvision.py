"""torchvision.models.VisionTransformer."""

from flax import nnx

from flaxformer_edu.convert.layouts.common import layer_norm, linear, packed_qkv, patches
from flaxformer_edu.convert.rules import Layout, Rule, within
from flaxformer_edu.models import VisionTransformer

BLOCK = (
    *layer_norm("ln_1", "norm1"),
    *within("self_attention", "attention", packed_qkv("in_proj_weight", "in_proj_bias")),
    *linear("self_attention.out_proj", "attention.out"),
    *layer_norm("ln_2", "norm2"),
    *linear("mlp.0", "mlp.up"),
    *linear("mlp.3", "mlp.down"),
)
VISION_TRANSFORMER = (
    Rule("class_token", "class_token", "1 1 width -> width"),
    *patches("conv_proj"),
    Rule("encoder.pos_embedding", "positions.embedding", "1 length width -> length width"),
    *within("encoder.layers.encoder_layer_{i}", "encoder.blocks.{i}", BLOCK),
    *layer_norm("encoder.ln", "encoder.norm"),
    *linear("heads.pre_logits", "representation"),
    *linear("heads.head", "head"),
)

LAYOUTS: dict[type[nnx.Module], Layout] = {VisionTransformer: Layout(VISION_TRANSFORMER)}
