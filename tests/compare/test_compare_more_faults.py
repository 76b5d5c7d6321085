"""Faults of resampling and rounding, and faults that are none of the causes and must not be taken for one."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from compare import eager as compare
from compare.planted import (
    CAPTIONS,
    FEATURES,
    IMAGES,
    RANDOM,
    Rounded,
    captioner,
    interpolated,
    interpolating,
    learned,
    to_nearest,
    towards_zero,
    under,
    vit,
)
from flax import nnx
from parity.test_tile_parity import LAYOUT
from parity.vit_libraries import randomised
from torch import Tensor, nn

from flaxformer_edu import convert
from flaxformer_edu.compare.causes.precision import RoundedAttention
from flaxformer_edu.layers import MultiHeadAttention, Rotary, causal_mask
from flaxformer_edu.models import VisionTransformer, ViTConfig
from tests.twins.tile_twin import TileViT

# unchecked: the many runs are faster
pytestmark = [pytest.mark.usefixtures("float64", "unchecked"), pytest.mark.one_mode]


def check(report, layer, cause, words):
    assert report.first_divergence is not None
    assert report.first_divergence.layer == layer
    assert report.diagnosis is not None, report.summary
    assert report.diagnosis.cause == cause
    assert words in report.diagnosis.explanation
    assert report.diagnosis.rest.startswith("with that changed"), report.diagnosis.rest


class TestRounding:
    @pytest.mark.parametrize(
        ("rounding", "words", "dtype"),
        [(to_nearest, "rounded to TF32", np.float32), (towards_zero, "cut off to TF32", np.float64)],
    )
    def test_a_whole_model(self, rounding, words, dtype):
        ours, theirs = vit()
        if dtype == np.float32:
            ours = convert.from_torch(VisionTransformer, ours.config, theirs.float().state_dict(), layout="cs231n")
        under(Rounded(rounding), theirs)
        report = compare.models(ours, theirs, IMAGES, layout="cs231n")
        check(report, "patch_embedding.projection", "tf32", words)
        assert report.diagnosis.rest == (
            "with that changed in the whole model, the output differs by no more than rounding explains"
        )

    def test_one_layer_of_the_captioner(self):
        ours, theirs = captioner()
        under(Rounded(to_nearest), theirs.transformer.layers[1].ffn)
        report = compare.models(ours, theirs, (FEATURES, CAPTIONS), layout="cs231n")
        check(report, "decoder.blocks.1.mlp.up", "tf32", "rounded to TF32")

    def test_the_products_of_attention(self):
        ours, theirs = vit()
        under(Rounded(to_nearest, (Tensor.matmul,)), theirs.transformer.layers[2].self_attn)
        report = compare.models(ours, theirs, IMAGES, layout="cs231n")
        check(report, "encoder.blocks.2.attention.out", "tf32", "their attention sees numbers rounded")
        assert report.diagnosis.where == "encoder.blocks.2.attention"

    def test_bfloat16(self):
        ours, theirs = captioner()
        under(Rounded(lambda x: to_nearest(x, mantissa=7)), theirs)
        report = compare.models(ours, theirs, (FEATURES, CAPTIONS), layout="cs231n")
        check(report, "image", "bfloat16", "rounded to bfloat16")

    def test_ours_on_an_accelerator(self, monkeypatch):
        """Played on a processor, which rounds no product: one that rounds unless it is told otherwise."""

        def rounding(x, y, dimensions, *, precision, **options):
            if precision != jax.lax.Precision.HIGHEST:
                x, y = (jax.lax.reduce_precision(operand, 8, 10) for operand in (x, y))
            return jax.lax.dot_general(x, y, dimensions, precision=precision, **options)

        ours, theirs = vit()
        for _, module in nnx.iter_modules(ours):
            if isinstance(module, nnx.Linear | nnx.LinearGeneral):
                module.dot_general = rounding
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        report = compare.models(ours, theirs, IMAGES, layout="cs231n")
        check(report, "patch_embedding.projection", "tf32", "our matrix products are rounded")
        assert report.diagnosis.rest == "with that changed in the whole model, the output agrees"

    def test_another_fault_behind_it(self):
        ours, theirs = vit()
        under(Rounded(to_nearest), theirs.patch_embed)
        theirs.transformer.layers[2].ffn.activation = nn.ReLU()
        report = compare.models(ours, theirs, IMAGES, layout="cs231n")
        assert report.diagnosis.cause == "tf32"
        assert report.diagnosis.rest == "the output still differs then: there is another cause behind it"

    @pytest.mark.parametrize("changes", [{}, {"merged_qkv": True}, {"rotary": Rotary()}, {"output_projection": False}])
    def test_attention_that_rounds_nothing_is_attention(self, changes):
        attention = MultiHeadAttention(12, 3, **changes, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
        x, y, mask = jnp.asarray(RANDOM.normal(size=(2, 5, 12))), RANDOM.normal(size=(2, 5, 12)), causal_mask(5)
        wanted = attention(x, mask=mask), attention(x, jnp.asarray(y))
        attention.__class__, attention.rounding = RoundedAttention, lambda x: x
        np.testing.assert_allclose(attention(x, mask=mask), wanted[0], rtol=1e-12)
        np.testing.assert_allclose(attention(x, jnp.asarray(y)), wanted[1], rtol=1e-12)


CONVENTIONS = {
    "transformers": {"mode": "bicubic"},
    "torchvision": {"mode": "bicubic", "align_corners": True},
    "linear, not": {"mode": "bilinear"},
}


class TestPositions:
    @pytest.mark.parametrize(
        ("image_size", "source", "words"),
        [(16, 8, "transformers"), (12, 16, "transformers"), (12, 16, "torchvision"), (16, 24, "linear, not")],
    )
    def test_resampled_before(self, image_size, source, words):
        """Neither side has the positions that both were made of."""
        ours, theirs = learned(image_size, source, "antialiased")
        table = interpolated(theirs.embedding.position_embeddings, image_size // 4, **CONVENTIONS[words])
        theirs.embedding.position_embeddings = nn.Parameter(table)
        report = compare.models(ours, theirs, images(image_size), layout="scratch")
        assert [row.layer for row in report.parameters if not row.agrees] == ["positions.embedding"]
        check(report, "encoder.blocks.0.norm1", "bicubic_convention", words)
        assert report.diagnosis.where == "positions"
        assert report.diagnosis.rest == "with that changed, the output differs by no more than rounding explains"

    @pytest.mark.parametrize(
        ("image_size", "source", "words"), [(16, 8, "torchvision"), (8, 16, "transformers"), (8, 16, "linear, not")]
    )
    def test_resampled_when_called(self, image_size, source, words):
        ours, theirs = learned(image_size, source, "antialiased")
        theirs = interpolating(theirs, image_size // 4, **CONVENTIONS[words])
        report = compare.models(ours, theirs, images(image_size), layout="scratch")
        assert all(row.agrees for row in report.parameters)
        check(report, "encoder.blocks.0.norm1", "bicubic_convention", words)

    def test_more_than_one_reading(self):
        ours, theirs = learned(12, 8, "antialiased")
        table = interpolated(theirs.embedding.position_embeddings, 3, mode="bicubic")
        theirs.embedding.position_embeddings = nn.Parameter(table)
        report = compare.models(ours, theirs, images(12), layout="scratch")
        check(report, "encoder.blocks.0.norm1", "bicubic_convention", ", for one")

    def test_the_same_way_on_both_sides(self):
        ours, theirs = learned(16, 8, "plain")
        theirs = interpolating(theirs, 4, mode="bicubic")
        assert compare.models(ours, theirs, images(16), layout="scratch").agrees

    def test_of_a_source_that_is_twice_as_large_it_cannot_be_told(self):
        ours, theirs = learned(8, 16, "antialiased")
        theirs.embedding.position_embeddings = nn.Parameter(
            interpolated(theirs.embedding.position_embeddings, 2, mode="bicubic")
        )
        report = compare.models(ours, theirs, images(8), layout="scratch")
        check(report, "encoder.blocks.0.norm1", "other_weights", "the weights differ: positions.embedding")

    @pytest.mark.parametrize("change", ["noise", "flipped"])
    def test_other_faults_are_not_taken_for_it(self, change):
        ours, theirs = learned(16, 16, "antialiased")
        grid = theirs.embedding.position_embeddings.detach()[:, 1:].unflatten(1, (4, 4))
        changed = {
            "noise": grid + 0.1 * torch.randn(grid.shape, generator=torch.Generator().manual_seed(0)),
            "flipped": grid.flip(1),
        }
        with torch.no_grad():
            theirs.embedding.position_embeddings[:, 1:] = changed[change].flatten(1, 2)
        report = compare.models(ours, theirs, images(16), layout="scratch")
        check(report, "encoder.blocks.0.norm1", "other_weights", "positions.embedding")

    def test_positions_of_no_square_do_not_fit(self):
        ours, theirs = learned(16, 16, "antialiased")
        theirs.embedding.position_embeddings = nn.Parameter(torch.zeros(1, 7, 12, dtype=torch.float64))
        with pytest.raises(convert.ConversionError, match=r"misshapen  embedding\.position_embeddings: \(1, 7, 12\)"):
            compare.models(ours, theirs, images(16), layout="scratch")


def images(size):
    return np.random.default_rng(0).normal(size=(2, size, size, 3))


def without_bias(block):
    block.ffn.fc2.forward = lambda x: x @ block.ffn.fc2.weight.T


def scaled(block):
    block.self_attn.register_forward_hook(lambda *call: 1.001 * call[-1])


def clipped(block):
    block.ffn.activation = nn.Hardtanh(-0.1, 0.5)


def large_epsilon(block):
    block.norm_self.eps = 1e-3


def half_scale(block):
    forward = block.self_attn.query.forward
    block.self_attn.query.forward = lambda x: forward(x) / 2


def nothing_but_nan(block):
    block.register_forward_hook(lambda *call: call[-1] * torch.nan)


def partly_nan(block):
    block.register_forward_hook(lambda *call: torch.cat([call[-1][:1], call[-1][1:] * torch.nan]))


@pytest.mark.parametrize(
    ("plant", "layer"),
    [
        (without_bias, "mlp.down"),
        (scaled, "attention"),
        (clipped, "mlp.down"),
        (large_epsilon, "norm1"),
        (half_scale, "attention.query"),
        (nothing_but_nan, ""),
        (partly_nan, ""),
    ],
)
def test_what_is_none_of_the_causes(plant, layer):
    ours, theirs = vit()
    plant(theirs.transformer.layers[1])
    report = compare.models(ours, theirs, IMAGES, layout="cs231n")
    assert report.first_divergence.layer == f"encoder.blocks.1.{layer}".rstrip(".")
    assert report.diagnosis is None, report.summary
    assert report.tried > 30


def test_a_class_token_that_goes_on_alone():
    """The twin's last norm sees the class token, ours all tokens; merged projections of one head, rotary positions."""
    config = replace(ViTConfig.tiles(positions="rotary"), width=16, hidden=24)
    twin = randomised(TileViT(config.width, config.hidden, config.layers, "rotary"), torch.float64)
    ours = VisionTransformer(config, rngs=nnx.Rngs(0), param_dtype=np.float64)
    ours = convert.load_weights(ours, twin.state_dict(), layout=LAYOUT)
    digits = RANDOM.normal(size=(2, 28, 28, 1))
    report = compare.models(ours, twin, digits, layout=LAYOUT)
    assert report.agrees, report.summary
    assert {row.layer: row.shape for row in report.layers}["encoder.norm"] == (2, 16)
    twin.norm.eps = 1e-6
    check(compare.models(ours, twin, digits, layout=LAYOUT), "encoder.norm", "norm_epsilon", "1e-06")
