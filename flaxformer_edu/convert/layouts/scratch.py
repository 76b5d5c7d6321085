"""The Vision Transformer "from scratch" of many tutorials, which has a module for each head of each block."""

from flax import nnx

from flaxformer_edu.convert.layouts.common import layer_norm, linear, packed_qkv, patches, separate_qkv
from flaxformer_edu.convert.rules import Layout, Rule, Variants, within
from flaxformer_edu.models import VisionTransformer

OUTSIDE_BLOCKS = (
    Rule("embedding.cls_token", "class_token", "1 1 width -> width"),
    *patches("embedding.patch_embeddings.projection"),
    Rule("embedding.position_embeddings", "positions.embedding", "1 length width -> length width"),
    *linear("classifier", "head"),
)
BLOCK = (
    *linear("attention.output_projection", "attention.out"),
    *layer_norm("layernorm_1", "norm1"),
    *layer_norm("layernorm_2", "norm2"),
    *linear("mlp.dense_1", "mlp.up"),
    *linear("mlp.dense_2", "mlp.down"),
)


def heads_apart(heads: int) -> tuple[Rule, ...]:
    """Query, key and value of each head in tensors of their own."""
    if heads == 1:
        return separate_qkv("heads.0.query", "heads.0.key", "heads.0.value")
    rules, names = [], ("query", "key", "value")
    for name in names:
        numbers = ",".join(str(head) for head in range(heads))
        rules.append(Rule(f"heads.{{{numbers}}}.{name}.weight", f"{name}.kernel", "head dim width -> width (head dim)"))
        rules.append(Rule(f"heads.{{{numbers}}}.{name}.bias", f"{name}.bias", "head dim -> (head dim)"))
    modules, qkv = ",".join(f"{head}.{name}" for name in names for head in range(heads)), {"qkv": 3, "head": heads}
    rules.append(Rule(f"heads.{{{modules}}}.weight", "qkv.kernel", "(qkv head) dim width -> width (qkv head dim)", qkv))
    rules.append(Rule(f"heads.{{{modules}}}.bias", "qkv.bias", "(qkv head) dim -> (qkv head dim)", qkv))
    return tuple(rules)


def layouts(model: VisionTransformer) -> tuple[Layout, ...]:
    """The tutorial's own attention, and the "faster" one that it offers, whose heads share one projection."""
    faster = packed_qkv("qkv_projection.weight", "qkv_projection.bias")
    return tuple(
        Layout(
            (
                *OUTSIDE_BLOCKS,
                *within("encoder.blocks.{i}", "encoder.blocks.{i}", (*BLOCK, *within("attention", "attention", qkv))),
            )
        )
        for qkv in (heads_apart(model.config.heads), faster)
    )


LAYOUTS: dict[type[nnx.Module], Variants] = {VisionTransformer: layouts}
