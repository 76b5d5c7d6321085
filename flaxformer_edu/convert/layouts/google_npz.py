"""Google's .npz files (Dosovitskiy et al. 2020): names of Flax's first modules, the heads on an axis of their own."""

from flax import nnx

from flaxformer_edu.convert.rules import Layout, Rule, Variants
from flaxformer_edu.models import VisionTransformer

THEIRS, OURS = "Transformer/encoderblock_{i}", "encoder.blocks.{i}"


def layer_norm(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Scale and bias, as we have them."""
    return Rule(f"{theirs}/scale", f"{ours}.scale"), Rule(f"{theirs}/bias", f"{ours}.bias")


def dense(theirs: str, ours: str) -> tuple[Rule, ...]:
    """A linear map or a convolution, whose axes are ours."""
    return Rule(f"{theirs}/kernel", f"{ours}.kernel"), Rule(f"{theirs}/bias", f"{ours}.bias")


def attention(theirs: str, ours: str, heads: int) -> tuple[Rule, ...]:
    """Query, key and value, separate or merged on our side, and the output."""
    head, rules = {"head": heads}, []
    for name in ("query", "key", "value"):
        pattern = "width head dim -> width (head dim)"
        rules.append(Rule(f"{theirs}/{name}/kernel", f"{ours}.{name}.kernel", pattern, head))
        rules.append(Rule(f"{theirs}/{name}/bias", f"{ours}.{name}.bias", "head dim -> (head dim)", head))
    together = f"{theirs}/{{query,key,value}}"
    return (
        *rules,
        Rule(f"{together}/kernel", f"{ours}.qkv.kernel", "qkv width head dim -> width (qkv head dim)", head),
        Rule(f"{together}/bias", f"{ours}.qkv.bias", "qkv head dim -> (qkv head dim)", head),
        Rule(f"{theirs}/out/kernel", f"{ours}.out.kernel", "head dim width -> (head dim) width", head),
        Rule(f"{theirs}/out/bias", f"{ours}.out.bias"),
    )


def layouts(model: VisionTransformer) -> tuple[Layout, ...]:
    """One, whose patterns need the number of heads."""
    rules = (
        Rule("cls", "class_token", "1 1 width -> width"),
        *dense("embedding", "patch_embedding.projection"),
        Rule("Transformer/posembed_input/pos_embedding", "positions.embedding", "1 length width -> length width"),
        *layer_norm(f"{THEIRS}/LayerNorm_0", f"{OURS}.norm1"),
        *attention(f"{THEIRS}/MultiHeadDotProductAttention_1", f"{OURS}.attention", model.config.heads),
        *layer_norm(f"{THEIRS}/LayerNorm_2", f"{OURS}.norm2"),
        *dense(f"{THEIRS}/MlpBlock_3/Dense_0", f"{OURS}.mlp.up"),
        *dense(f"{THEIRS}/MlpBlock_3/Dense_1", f"{OURS}.mlp.down"),
        *layer_norm("Transformer/encoder_norm", "encoder.norm"),
        *dense("pre_logits", "representation"),
        *dense("head", "head"),
    )
    return (Layout(rules),)


LAYOUTS: dict[type[nnx.Module], Variants] = {VisionTransformer: layouts}
