"""transformers' ViTForImageClassification and ViTModel.

Their files have the names of version 4; in version 5 the modules themselves are named otherwise. Both are read, and
the files' names written.
"""

from dataclasses import replace

from flax import nnx

from flaxformer_edu.convert.layouts.common import layer_norm, linear, patches, separate_qkv
from flaxformer_edu.convert.rules import Layout, Rule, Variants, within
from flaxformer_edu.models import VisionTransformer

BLOCK_OF_VERSION_4 = (
    *layer_norm("layernorm_before", "norm1"),
    *within("attention.attention", "attention", separate_qkv("query", "key", "value")),
    *linear("attention.output.dense", "attention.out"),
    *layer_norm("layernorm_after", "norm2"),
    *linear("intermediate.dense", "mlp.up"),
    *linear("output.dense", "mlp.down"),
)
BLOCK_OF_VERSION_5 = (
    *layer_norm("layernorm_before", "norm1"),
    *within("attention", "attention", separate_qkv("q_proj", "k_proj", "v_proj")),
    *linear("attention.o_proj", "attention.out"),
    *layer_norm("layernorm_after", "norm2"),
    *linear("mlp.fc1", "mlp.up"),
    *linear("mlp.fc2", "mlp.down"),
)
OUTSIDE_BLOCKS = (
    Rule("embeddings.cls_token", "class_token", "1 1 width -> width"),
    *patches("embeddings.patch_embeddings.projection"),
    Rule("embeddings.position_embeddings", "positions.embedding", "1 length width -> length width"),
    *layer_norm("layernorm", "encoder.norm"),
    *linear("pooler.dense", "representation"),
)
VIT_MODELS = (
    (*OUTSIDE_BLOCKS, *within("encoder.layer.{i}", "encoder.blocks.{i}", BLOCK_OF_VERSION_4)),
    (*OUTSIDE_BLOCKS, *within("layers.{i}", "encoder.blocks.{i}", BLOCK_OF_VERSION_5)),
)


def classifier(vit_model: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """ViTForImageClassification, of which ViTModel is the part called `vit`."""
    return *(replace(rule, torch=f"vit.{rule.torch}") for rule in vit_model), *linear("classifier", "head")


def layouts(model: VisionTransformer) -> tuple[Layout, ...]:
    """With a classifier and without, the names of version 4 first."""
    classifiers = [Layout(classifier(rules)) for rules in VIT_MODELS]
    bare = [Layout(rules) for rules in VIT_MODELS]
    return (*bare, *classifiers) if model.head is None else (*classifiers, *bare)


LAYOUTS: dict[type[nnx.Module], Variants] = {VisionTransformer: layouts}
