"""PyTorch models with one thing wrong, beside ours with the same weights, all in float64."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from flax import nnx
from parity.vit_libraries import randomised
from torch import Tensor
from torch.overrides import TorchFunctionMode

from flaxformer_edu import convert
from flaxformer_edu.models import CaptioningConfig, CaptioningTransformer, VisionTransformer, ViTConfig
from tests.twins import torch_twins, vit_twins

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


LEARNED = {"width": 12, "heads": 3, "hidden": 18, "layers": 4, "patch_size": 4, "classes": 5}


def learned(image_size, source_size, convention):
    """Ours and a twin for images of one size, with learned positions from another, resampled in PyTorch's way there."""
    source = randomised(vit_twins.VisionTransformer(channels=3, **LEARNED, image_size=source_size), torch.float64)
    config = ViTConfig.scratch(**LEARNED, image_size=source_size)
    ours = VisionTransformer(config, rngs=nnx.Rngs(0), param_dtype=np.float64)
    ours = convert.load_weights(ours, source.state_dict(), layout="scratch")
    return convert.resize_positions(ours, image_size, convention=convention), source


def interpolated(positions, side, **options):
    """A class token's position and those of a square of patches, the latter resampled to `side` x `side`."""
    patches = positions[:, 1:].unflatten(1, (round((positions.shape[1] - 1) ** 0.5), -1)).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, (side, side), **options).flatten(2).transpose(1, 2)
    return torch.cat([positions[:, :1], patches], dim=1)


def interpolating(twin, side, **options):
    """The twin, which resamples its positions whenever it is called."""

    def embed(images):
        patches = twin.embedding.patch_embeddings(images)
        tokens = torch.cat([twin.embedding.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        return tokens + interpolated(twin.embedding.position_embeddings, side, **options)

    twin.embedding.forward = embed
    return twin


def to_nearest(x, mantissa=10):
    """Rounded to as many bits as TF32 has; of halves, to the even one."""
    bits, left_out = _bits(x, mantissa)
    return _from_bits(bits + ((bits >> left_out) & 1) + ((1 << (left_out - 1)) - 1) >> left_out << left_out, x)


def towards_zero(x, mantissa=10):
    bits, left_out = _bits(x, mantissa)
    return _from_bits(bits >> left_out << left_out, x)


def _bits(x, mantissa):
    array = x.detach().numpy()
    return array.view(f"u{array.itemsize}"), np.finfo(array.dtype).nmant - mantissa


def _from_bits(bits, like):
    return torch.from_numpy(bits.view(like.detach().numpy().dtype))


class Rounded(TorchFunctionMode):
    """Rounds what matrix products are given."""

    def __init__(self, rounding, functions=(F.linear, Tensor.matmul)):
        super().__init__()
        self.rounding, self.functions = rounding, functions

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.functions:
            args = (self.rounding(args[0]), self.rounding(args[1]), *args[2:])
        return func(*args, **(kwargs or {}))


def under(mode, module):
    """Let the module run under a mode."""
    forward = module.forward

    def run(*args):
        with mode:
            return forward(*args)

    module.forward = run
