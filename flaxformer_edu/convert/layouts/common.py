"""Rules that most layouts share."""

from flaxformer_edu.convert.rules import Rule

KERNEL = "output input -> input output"


def linear(torch: str, ours: str) -> tuple[Rule, ...]:
    """nn.Linear stores its weight output first."""
    return Rule(f"{torch}.weight", f"{ours}.kernel", KERNEL), Rule(f"{torch}.bias", f"{ours}.bias")


def layer_norm(torch: str, ours: str) -> tuple[Rule, ...]:
    """nn.LayerNorm calls its scale weight."""
    return Rule(f"{torch}.weight", f"{ours}.scale"), Rule(f"{torch}.bias", f"{ours}.bias")


def patches(torch: str) -> tuple[Rule, ...]:
    """A patch embedding, which in PyTorch is a convolution."""
    ours = "patch_embedding.projection"
    return (
        Rule(f"{torch}.weight", f"{ours}.kernel", "width channel row column -> row column channel width"),
        Rule(f"{torch}.bias", f"{ours}.bias"),
    )


def packed_qkv(weight: str, bias: str) -> tuple[Rule, ...]:
    """Query, key and value in one tensor, for both ways in which `MultiHeadAttention` keeps them."""
    return (
        Rule(weight, "{query,key,value}.kernel", "(qkv output) input -> qkv input output"),
        Rule(bias, "{query,key,value}.bias", "(qkv output) -> qkv output"),
        Rule(weight, "qkv.kernel", KERNEL),
        Rule(bias, "qkv.bias"),
    )


def separate_qkv(query: str, key: str, value: str) -> tuple[Rule, ...]:
    """Query, key and value in three tensors, for both ways in which `MultiHeadAttention` keeps them."""
    together = f"{{{query},{key},{value}}}"
    return (
        *linear(query, "query"),
        *linear(key, "key"),
        *linear(value, "value"),
        Rule(f"{together}.weight", "qkv.kernel", "qkv output input -> input (qkv output)"),
        Rule(f"{together}.bias", "qkv.bias", "qkv output -> (qkv output)"),
    )
