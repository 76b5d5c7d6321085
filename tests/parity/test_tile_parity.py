"""The tile Vision Transformer against its PyTorch twin, and rotary positions against published implementations."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from parity.harness import assert_close, assert_parity, channel_first
from parity.vit_libraries import library

from flaxformer_edu.convert import Layout, Rule, within
from flaxformer_edu.convert.layouts.common import KERNEL, layer_norm, linear
from flaxformer_edu.layers import apply_rope
from flaxformer_edu.models import VisionTransformer, ViTConfig
from tests.twins.tile_twin import TileViT

BLOCK = (
    *layer_norm("norm1", "norm1"),
    *layer_norm("norm2", "norm2"),
    Rule("attention.to_qkv.weight", "attention.qkv.kernel", KERNEL),
    *linear("feed_forward.0", "mlp.up"),
    *linear("feed_forward.2", "mlp.down"),
)
LAYOUT = Layout(
    (
        Rule(
            "embed.weight",
            "patch_embedding.projection.kernel",
            "width (row column channel) -> row column channel width",
        ),
        Rule("embed.bias", "patch_embedding.projection.bias"),
        Rule("class_token", "class_token"),
        Rule("positions", "positions.embedding"),
        *within("blocks.{i}", "encoder.blocks.{i}", BLOCK),
        *layer_norm("norm", "encoder.norm"),
        *linear("head", "head"),
    )
)


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("positions", ["sinusoidal", "rotary", "multiplied", "learned"])
def test_tiles(positions, dtype):
    config = replace(ViTConfig.tiles(positions=positions), width=16, hidden=24)
    torch.manual_seed(0)
    twin = TileViT(config.width, config.hidden, config.layers, positions)
    twin = twin.to(torch.float64 if dtype == np.float64 else torch.float32)
    images = np.random.default_rng(0).normal(size=(3, 28, 28, 1)).astype(dtype)
    with jax.enable_x64(dtype == np.float64):
        model = VisionTransformer(config, rngs=nnx.Rngs(0), param_dtype=dtype)
        assert_parity(model, twin, [images], [channel_first(images)], train=False, layout=LAYOUT)


class TestPublishedRotations:
    """transformers' rotations at positions in the hundreds: LLaMA's of halves, GPT-J's of neighbours."""

    POSITIONS = np.array([0, 1, 17, 256, 511, 740, 998])
    X = np.random.default_rng(0).normal(size=(2, 7, 3, 16))

    def test_halves(self, float64):
        llama = library("transformers.models.llama.modeling_llama")
        config = library("transformers").LlamaConfig(hidden_size=48, num_attention_heads=3)
        x, at = torch.tensor(self.X), torch.tensor(self.POSITIONS)[None]
        cos, sin = llama.LlamaRotaryEmbedding(config)(x, at)
        expected = llama.apply_rotary_pos_emb(x, x, cos, sin, unsqueeze_dim=2)[0].numpy()
        self.check(expected, interleaved=False)

    def test_neighbours(self, float64):
        gptj = library("transformers.models.gptj.modeling_gptj")
        sin, cos = gptj.create_sinusoidal_positions(1000, 16)[self.POSITIONS].double().chunk(2, dim=-1)
        expected = gptj.apply_rotary_pos_emb(torch.tensor(self.X), sin[None], cos[None]).numpy()
        self.check(expected, interleaved=True)

    def check(self, expected, *, interleaved):
        """Their angles, up to 998, are in float32, which leaves an error of 2 * 998 * 2**-24 in each; ours are not."""
        ours = apply_rope(jnp.array(self.X), jnp.array(self.POSITIONS), interleaved=interleaved)
        assert_close("the rotation", ours, expected, 2 * 998 * 2**-24)
        assert_close("at position 0", ours[:, :1], expected[:, :1], 0)
