"""Faults planted in PyTorch's model or in ours: each is found at its layer, and named."""

import jax.numpy as jnp
import pytest
import torch
from compare import eager as compare
from compare.planted import CAPTIONS, FEATURES, IMAGES, captioner, spoil, vit
from torch import nn

from flaxformer_edu.layers import Rotary
from tests.twins import torch_twins

# unchecked: the many runs are faster
pytestmark = pytest.mark.usefixtures("float64", "unchecked")


def attention_fault(fault):
    return lambda block: spoil(block.self_attn, fault)


def tanh_gelu(block):
    block.ffn.activation = nn.GELU(approximate="tanh")


def relu(block):
    block.ffn.activation = nn.ReLU()


def epsilon(block):
    block.norm_ffn.eps = 1e-6


def smallest_epsilon(block):
    block.norm_self.eps = 1e-12


def pre_norm(block):
    block.norm_first = True


def dropout(block):
    block.ffn.dropout.train()


# The fault, the layer of the block where it first shows, the cause that is named, and words of its explanation.
FAULTS = {
    "tanh_gelu": (tanh_gelu, "mlp.down", "activation", "gelu_tanh"),
    "relu": (relu, "mlp.down", "activation", "relu"),
    "dropout": (dropout, "mlp.down", "dropout", "dropout is on"),
    "smallest_epsilon": (smallest_epsilon, "norm1", "norm_epsilon", "1e-12"),
    "no_scale": (attention_fault("no_scale"), "attention.out", "attention_scale", "not scaled"),
    "width_scale": (attention_fault("width_scale"), "attention.out", "attention_scale", "whole width"),
    "swap_query_key": (
        attention_fault("swap_query_key"),
        "attention.out",
        "swapped_projections",
        "key as query, query",
    ),
    "swap_query_value": (attention_fault("swap_query_value"), "attention.out", "swapped_projections", "value as query"),
    "swap_key_value": (attention_fault("swap_key_value"), "attention.out", "swapped_projections", "value as key"),
    "unmoved_heads": (attention_fault("unmoved_heads"), "attention.out", "head_order", "without being moved"),
    "features_first": (attention_fault("features_first"), "attention.out", "head_order", "merged with the features"),
    "cut_features_first": (
        attention_fault("cut_features_first"),
        "attention.out",
        "head_order",
        "cut with the features",
    ),
}


def check(report, layer, cause, words):
    assert report.first_divergence is not None
    assert report.first_divergence.layer == layer
    assert report.diagnosis is not None, report.summary
    assert report.diagnosis.cause == cause
    assert words in report.diagnosis.explanation
    assert "the output agrees" in report.diagnosis.rest


IN_A_VIT = {
    **FAULTS,
    "pre_norm": (pre_norm, "attention.query", "norm_position", "pre-norm"),
    "epsilon": (epsilon, "norm2", "norm_epsilon", "1e-06"),
}


@pytest.mark.parametrize("name", IN_A_VIT)
def test_in_a_vit_of_four_layers(name):
    plant, layer, cause, words = IN_A_VIT[name]
    ours, theirs = vit()
    plant(theirs.transformer.layers[2])
    report = compare.models(ours, theirs, IMAGES, layout="cs231n")
    assert all(row.agrees for row in report.parameters)
    check(report, f"encoder.blocks.2.{layer}", cause, words)


IN_THE_CAPTIONER = {
    "inverted_mask": (attention_fault("inverted_mask"), "attention.out", "mask_convention", "inverted"),
    "no_mask": (attention_fault("no_mask"), "attention.out", "mask_convention", "do not use"),
    "pre_norm": (pre_norm, "attention.query", "norm_position", "pre-norm"),
    "epsilon": (epsilon, "norm3", "norm_epsilon", "1e-06"),
    "memory_as_query": (
        lambda block: spoil(block.cross_attn, "swap_query_value"),
        "cross_attention.value",
        "swapped_projections",
        "value as query",
    ),
    **{name: FAULTS[name] for name in ("dropout", "no_scale", "swap_key_value")},
}


@pytest.mark.parametrize("name", IN_THE_CAPTIONER)
def test_in_the_captioner(name):
    plant, layer, cause, words = IN_THE_CAPTIONER[name]
    ours, theirs = captioner()
    plant(theirs.transformer.layers[1])
    report = compare.models(ours, theirs, (FEATURES, CAPTIONS), layout="cs231n")
    check(report, f"decoder.blocks.1.{layer}", cause, words)


def test_the_layout_of_rotary_positions():
    ours, theirs = vit(rotary=Rotary())
    for block in theirs.transformer.layers:
        block.self_attn.rotary = torch_twins.Rotary()
    assert compare.models(ours, theirs, IMAGES, layout="cs231n").agrees
    theirs.transformer.layers[3].self_attn.rotary.interleaved = True
    report = compare.models(ours, theirs, IMAGES, layout="cs231n")
    check(report, "encoder.blocks.3.attention.out", "rotary_layout", "(2k, 2k + 1)")


class TestOurWeights:
    @pytest.mark.parametrize("name", ["key", "out"])
    def test_a_transposed_square_kernel(self, name):
        ours, theirs = vit()
        kernel = getattr(ours.encoder.blocks[3].attention, name).kernel
        kernel[...] = kernel[...].T
        report = compare.models(ours, theirs, IMAGES, layout="cs231n")
        layer = f"encoder.blocks.3.attention.{name}"
        assert [row.layer for row in report.parameters if not row.agrees] == [f"{layer}.kernel"]
        check(report, layer, "transposed_kernel", layer)

    def test_patches_transposed(self):
        ours, theirs = vit()
        kernel = ours.patch_embedding.projection.kernel
        kernel[...] = jnp.swapaxes(kernel[...], 0, 1)
        report = compare.models(ours, theirs, IMAGES, layout="cs231n")
        check(report, "patch_embedding.projection", "transposed_kernel", "patch_embedding")

    def test_key_and_value_swapped_in_merged_projections(self):
        ours, theirs = vit(merged_qkv=True)
        kernel = ours.encoder.blocks[1].attention.qkv.kernel
        bias = ours.encoder.blocks[1].attention.qkv.bias
        for leaf in (kernel, bias):
            query, key, value = jnp.split(leaf[...], 3, axis=-1)
            leaf[...] = jnp.concatenate([query, value, key], axis=-1)
        report = compare.models(ours, theirs, IMAGES, layout="cs231n")
        check(report, "encoder.blocks.1.attention.qkv", "swapped_projections", "value as key")

    def test_a_weight_that_is_another(self):
        ours, theirs = vit()
        ours.encoder.blocks[0].mlp.up.bias[...] += 0.1
        report = compare.models(ours, theirs, IMAGES, layout="cs231n")
        check(report, "encoder.blocks.0.mlp.up", "other_weights", "encoder.blocks.0.mlp.up.bias")


def test_a_cause_that_holds_everywhere():
    ours, theirs = vit(activation="gelu_tanh")
    report = compare.models(ours, theirs, IMAGES, layout="cs231n")
    check(report, "encoder.blocks.0.mlp.down", "activation", "gelu")
    assert report.diagnosis.rest == "with that changed in the whole model, the output agrees"


def test_training_mode_is_named_and_left_as_it_is():
    ours, theirs = vit()
    theirs.train()
    report = compare.models(ours, theirs, IMAGES, layout="cs231n")
    check(report, "encoder.blocks.0.attention.query", "dropout", ".eval()")
    assert all(module.training for module in theirs.modules())


def test_two_faults():
    ours, theirs = vit()
    tanh_gelu(theirs.transformer.layers[0])
    epsilon(theirs.transformer.layers[2])
    report = compare.models(ours, theirs, IMAGES, layout="cs231n")
    assert report.first_divergence.layer == "encoder.blocks.0.mlp.down"
    assert report.diagnosis.cause == "activation"
    assert "another cause" in report.diagnosis.rest


def test_what_no_cause_explains():
    ours, theirs = captioner()
    theirs.embedding.register_forward_hook(lambda *call: 1.5 * call[-1])
    report = compare.models(ours, theirs, (FEATURES, CAPTIONS), layout="cs231n")
    assert report.first_divergence.layer == "words"
    assert report.diagnosis is None
    assert f"none of the {report.tried} that were tried" in report.summary
    torch.testing.assert_close(report.first_divergence.max_rel, 1 / 3)
