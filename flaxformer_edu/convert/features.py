"""Which feature of an architecture a tensor's name betrays: for errors about models that are not, or not so, known."""

import re
from collections.abc import Iterable

# The first that is found in a name is meant.
FEATURES = {
    r"layers\.\d+\.blocks|stages?\.\d+|network\.\d+|downsample": "stages of different widths (Swin, MViT, ...)",
    r"\bls[12]\b|layer_?scale|gamma_?[12]|lambda_?1": "layer scale",
    r"reg(ister)?_tokens?": "register tokens",
    r"norm_pre|ln_pre|pre_layrnorm": "a norm before the blocks",
    r"attn_pool|attention_pool|\bprobe\b": "attention pooling",
    r"rope|freqs": "rotary positions (RoPE)",
    r"relative_position|rel_pos": "relative position biases",
    r"fc1_[gx]|\bw12\b|\bw3\b|gate|weights_in": "a gated feed-forward network (SwiGLU)",
    r"[qk]_norm|norm_[qk]|[qk]_layernorm": "norms of queries and keys",
    r"(mlp|attn)\.norm|inner_attn_ln|ffn_ln": "a norm within a sublayer (sub-LN)",
    r"mask_token|decoder": "a part that only pre-training uses",
    r"dist_token|distillation|head_dist": "a distillation token",
    r"fc_norm": "a norm of the pooled vector",
    r"pre_logits|pooler": "a layer in front of the classifier",
    r"patch_embed\.(backbone|conv|0|proj\.\d|norm)|stem": "patches by a network (hybrid, convolutional stem)",
    r"(q|v)_bias": "biases of queries and values apart from their weights",
    r"parallel|attns|ffns": "parallel sublayers",
    r"cls_token|class_token": "a class token",
    r"pos_embed|position": "positions of another kind",
}


def name_features(names: Iterable[str], shown: int = 4) -> str:
    """The features that these names betray, each with its first name; of names that betray none, the first few."""
    found: dict[str, str] = {}
    strange: list[str] = []
    for name in names:
        feature = next((feature for pattern, feature in FEATURES.items() if re.search(pattern, name)), None)
        if feature is None:
            strange.append(name)
        else:
            found.setdefault(feature, name)
    known = [f"{name}: {feature}" for feature, name in found.items()]
    return "; ".join([*known, *strange][:shown] if known else strange[:shown])
