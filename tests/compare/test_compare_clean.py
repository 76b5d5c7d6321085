"""Pairs that compute the same: every layer agrees to 1e-12, in one call."""

import json

import jax
import numpy as np
import pytest
import torch
from compare.planted import CAPTIONS, FEATURES, IMAGES, captioner, vit
from flax import nnx
from parity.vit_libraries import library, randomised
from torch import nn

from flaxformer_edu import compare, convert
from flaxformer_edu.compare.sides import ours as our_side
from flaxformer_edu.convert import find_layout
from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import BlockConfig, Encoder
from flaxformer_edu.models import VisionTransformer, ViTConfig
from tests.twins import vit_twins

SIZES = {"width": 12, "heads": 3, "hidden": 18, "layers": 2, "patch_size": 4, "classes": 5, "image_size": 12}


def layers(report):
    assert report.agrees, report.summary
    assert report.first_divergence is report.diagnosis is None
    assert all(row.tolerance == 1e-12 for row in (*report.parameters, *report.layers))
    return {row.layer: row for row in report.layers}


def ported(twin, config, layout):
    model = VisionTransformer(config, rngs=nnx.Rngs(0), param_dtype=np.float64)
    return convert.load_weights(model, twin.state_dict(), layout=find_layout(layout, model, twin.state_dict()))


def test_the_courses_models(float64):
    ours, theirs = vit()
    rows = layers(compare.models(ours, theirs, IMAGES))
    assert rows.keys() == {path for path in our_side.record(ours, [IMAGES]) if path != "positions"}
    assert [row.layer for row in rows.values()][-1] == ""
    assert rows["encoder.blocks.2.norm1"].theirs == "transformer.layers.2.norm_self"
    rows = layers(compare.models(*captioner(), (FEATURES, CAPTIONS), layout="cs231n"))
    assert rows["decoder.blocks.1.cross_attention.value"].theirs == "transformer.layers.1.cross_attn.value"
    assert rows["words"].theirs == "embedding"


@pytest.mark.parametrize("merged", [False, True])
def test_transformers(float64, merged):
    module = library("transformers")
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 18}
    images = {"image_size": 12, "patch_size": 4, "num_labels": 5}
    theirs = randomised(module.ViTForImageClassification(module.ViTConfig(**sizes, **images)), torch.float64)
    ours = ported(theirs, ViTConfig.b16(**SIZES, norm_epsilon=1e-12, merged_qkv=merged), "hf_vit")
    rows = layers(compare.models(ours, theirs, IMAGES, layout="hf_vit"))
    assert {"patch_embedding.projection", "encoder.blocks.1.mlp.down", "encoder.norm", "head", ""} <= rows.keys()
    assert ("encoder.blocks.1.attention.qkv" in rows) == merged
    assert ("encoder.blocks.1.attention.value" in rows) != merged


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(("bias", "faster"), [(False, False), (True, False), (False, True)])
def test_projections_of_one_head_and_of_all(float64, merged, bias, faster):
    """Three tensors of ours are one of theirs, or nine."""
    twin = randomised(vit_twins.VisionTransformer(channels=3, **SIZES, qkv_bias=bias, faster=faster), torch.float64)
    ours = ported(twin, ViTConfig.scratch(**SIZES, qkv_bias=bias, merged_qkv=merged), "scratch")
    rows = layers(compare.models(ours, twin, IMAGES, layout="scratch"))
    names = ["qkv"] if merged else ["query", "key", "value"]
    assert {f"encoder.blocks.0.attention.{name}" for name in names} <= rows.keys()


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_pytorchs_encoder(float64, batch_first):
    layer = nn.TransformerEncoderLayer(12, 3, 20, activation="gelu", batch_first=batch_first)
    theirs = randomised(nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(12)), torch.float64)
    config = BlockConfig(width=12, heads=3, hidden=20)
    ours = Encoder(config, 2, final_norm=True, rngs=nnx.Rngs(0), param_dtype=np.float64)
    ours = convert.load_weights(ours, theirs.state_dict(), layout="torch_nn")
    x = np.random.default_rng(0).normal(size=(2, 7, 12))
    torch_inputs = [x if batch_first else x.swapaxes(0, 1)]
    rows = layers(compare.models(ours, theirs, x, layout="torch_nn", torch_inputs=torch_inputs))
    assert {"blocks.1.attention", "blocks.1.mlp.up", "blocks.1", "norm", ""} <= rows.keys()


def test_outside_of_x64_and_in_float32():
    with jax.enable_x64(True):
        ours, theirs = vit()
    layers(compare.models(ours, theirs, IMAGES))
    assert not jax.config.jax_enable_x64
    ours = convert.from_torch(VisionTransformer, ours.config, theirs.float().state_dict(), layout="cs231n")
    report = compare.models(ours, theirs, IMAGES)
    assert report.agrees
    assert all(1e-7 < row.tolerance < 1e-4 for row in report.layers)
    assert not compare.models(ours, theirs, IMAGES, tolerance=1e-12, diagnose=False).agrees


def test_ours_and_ours(float64):
    ours, _ = vit()
    other = nnx.clone(ours)
    assert compare.models(ours, other, IMAGES).agrees
    other.encoder.blocks[1].mlp.activation = "relu"
    report = compare.models(ours, other, IMAGES)
    assert report.first_divergence.layer == "encoder.blocks.1.mlp.down"
    assert report.diagnosis.explanation == "their activation is relu"
    with pytest.raises(InputError, match="not the same parameters; only one has "):
        compare.models(ours, VisionTransformer(ViTConfig(**SIZES), rngs=nnx.Rngs(0)), IMAGES)


def test_the_models_are_left_as_they_were(float64):
    ours, theirs = vit(activation="gelu_tanh")
    classes = {type(module) for _, module in nnx.iter_modules(ours)}
    calls, before = {kind: kind.__call__ for kind in classes}, ours(IMAGES)
    compare.models(ours, theirs, IMAGES)
    assert {kind: kind.__call__ for kind in classes} == calls
    assert (ours(IMAGES) == before).all()
    assert not any(module._forward_hooks for module in theirs.modules())
    with pytest.raises(InputError, match="expected"):
        compare.models(ours, theirs, IMAGES[:, :8])
    assert {kind: kind.__call__ for kind in classes} == calls


def test_the_report(float64, tmp_path):
    ours, theirs = vit()
    theirs.head.register_forward_hook(lambda *call: call[-1] / 0)
    report = compare.models(ours, theirs, IMAGES, diagnose=False)
    text = str(report)
    assert "first divergence: head, by inf" in text
    assert "encoder.blocks.3.norm2" in text
    content = json.loads(report.to_json(str(tmp_path / "report.json")))
    assert content == json.loads((tmp_path / "report.json").read_text())
    assert (content["agrees"], content["first_divergence"], content["diagnosis"]) == (False, "head", None)
    assert content["layers"][-1]["max_abs"] is None


def test_wrong_input(float64):
    ours, theirs = vit()
    with pytest.raises(InputError, match=r"VisionTransformer does not run on float64 \(2, 5\) \("):
        compare.models(ours, theirs, IMAGES, torch_inputs=[np.zeros((2, 5))])
    with pytest.raises(InputError, match=r"theirs is int, expected a torch\.nn\.Module"):
        compare.models(ours, 3, IMAGES)
    with pytest.raises(convert.ConversionError, match="missing    head"):
        compare.models(ours, nn.Sequential(theirs.transformer), IMAGES, layout="cs231n")
