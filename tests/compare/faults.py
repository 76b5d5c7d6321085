"""PyTorch models with one thing wrong, beside ours with the same weights, all in float64."""

import math

import numpy as np
import torch
from flax import nnx
from parity.vit_libraries import randomised

from flaxformer_edu import convert
from flaxformer_edu.models import CaptioningConfig, CaptioningTransformer, VisionTransformer, ViTConfig
from flaxformer_edu.reference import torch_twins

WORDS = {"<NULL>": 0, "<START>": 1, "<END>": 2, "cat": 3, "dog": 4}
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(2, 12, 12, 3))
FEATURES, CAPTIONS = RANDOM.normal(size=(2, 10)), RANDOM.integers(0, 5, (2, 6))
ORDERS = {
    "swap_query_key": ("key", "query", "value"),
    "swap_query_value": ("value", "key", "query"),
    "swap_key_value": ("query", "value", "key"),
}


class FaultyAttention(torch_twins.MultiHeadAttention):
    """The twin's attention, with the fault that it is named after."""

    fault = ""

    def forward(self, query, key, value, attn_mask=None):
        batch, length, width = query.shape
        layers = [getattr(self, name) for name in ORDERS.get(self.fault, ("query", "key", "value"))]
        q, k, v = (self.cut(layer(x)) for layer, x in zip(layers, (query, key, value), strict=True))
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        scale = {"no_scale": 1, "width_scale": width}.get(self.fault, width // self.num_heads)
        scores = q @ k.transpose(-1, -2) / math.sqrt(scale)
        if attn_mask is not None and self.fault != "no_mask":
            hidden = attn_mask != 0 if self.fault == "inverted_mask" else attn_mask == 0
            scores = scores.masked_fill(hidden, -math.inf)
        heads = scores.softmax(-1) @ v
        moved = {"unmoved_heads": heads, "features_first": heads.permute(0, 2, 3, 1)}
        return self.proj(moved.get(self.fault, heads.transpose(1, 2)).reshape(batch, length, width))

    def cut(self, x):
        if self.fault == "cut_features_first":
            return x.unflatten(-1, (-1, self.num_heads)).permute(0, 3, 1, 2)
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def spoil(attention, fault):
    attention.__class__ = FaultyAttention
    attention.fault = fault


def vit(**changes):
    """Ours, and a twin of four blocks with the same random weights."""
    twin = randomised(torch_twins.VisionTransformer(12, 4, 3, 16, 4, 2, 24, 5), torch.float64)
    sizes = {"image_size": 12, "patch_size": 4, "width": 16, "layers": 4, "heads": 2, "hidden": 24, "classes": 5}
    return loaded(VisionTransformer, ViTConfig(**sizes, dropout=0.1, final_norm="none", **changes), twin), twin


def captioner():
    twin = randomised(torch_twins.CaptioningTransformer(WORDS, 10, 12, 3, 2, 8), torch.float64)
    config = CaptioningConfig.cs231n(vocab=5, features=10, width=12, heads=3, max_length=8)
    return loaded(CaptioningTransformer, config, twin), twin


def loaded(model_type: type[nnx.Module], config, twin):
    return convert.from_torch(model_type, config, twin.state_dict(), layout="cs231n", param_dtype=np.float64)
