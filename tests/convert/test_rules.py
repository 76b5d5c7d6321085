"""The conversion engine: rules are their own inverse, and strict in both directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from flaxformer_edu import convert
from flaxformer_edu.convert import ConversionError, Layout, Rule, within
from flaxformer_edu.convert.rules import Match
from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import EncoderBlock, MultiHeadAttention
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.reference import TorchGenerator, torch_weights

CONFIG = ViTConfig(image_size=8, patch_size=4, classes=3, width=6, layers=11, heads=2, hidden=10, final_norm="none")
WEIGHTS = torch_weights.vision_transformer(TorchGenerator(0), patch_size=4, width=6, layers=11, hidden=10, classes=3)


def load(weights, **options):
    return convert.from_torch(VisionTransformer, CONFIG, weights, layout="cs231n", **options)


def test_more_than_ten_layers_find_their_place():
    model = load(WEIGHTS)
    kernel = model.encoder.blocks[10].mlp.up.kernel[...]
    np.testing.assert_array_equal(kernel, WEIGHTS["transformer.layers.10.ffn.fc1.weight"].T)
    back = convert.to_torch(model, layout="cs231n")
    assert back.keys() == WEIGHTS.keys()
    assert all((back[name] == array).all() and back[name].flags.c_contiguous for name, array in WEIGHTS.items())


@given(sizes=st.tuples(*[st.integers(1, 4)] * 4))
def test_a_pattern_is_inverted_by_swapping_its_sides(sizes):
    width, channel, row, column = sizes
    rule = Match(("w",), ("k",), "width (channel row column) -> row column channel width", {})
    shapes = {"k": jax.ShapeDtypeStruct((row, column, channel, width), np.float32)}
    tensor = np.random.default_rng(0).normal(size=rule.torch_shape(shapes))
    assert tensor.shape == (width, channel * row * column)
    np.testing.assert_array_equal(rule.to_torch(rule.to_ours({"w": tensor}, shapes))["w"], tensor)


class Packed(nnx.Module):
    """Attention as torch.nn.MultiheadAttention names it, in blocks."""

    def __init__(self, rngs: nnx.Rngs):
        self.blocks = nnx.List([MultiHeadAttention(4, 2, rngs=rngs) for _ in range(2)])


PACKED = within(
    "layers.{i}",
    "blocks.{i}",
    [
        Rule("in_proj_weight", "{query,key,value}.kernel", "(qkv output) input -> qkv input output"),
        Rule("in_proj_bias", "{query,key,value}.bias", "(qkv output) -> qkv output"),
        Rule("out_proj.weight", "out.kernel", "output input -> input output"),
        Rule("out_proj.bias", "out.bias"),
    ],
)


def packed_weights():
    random = np.random.default_rng(0)
    shapes = {"in_proj_weight": (12, 4), "in_proj_bias": (12,), "out_proj.weight": (4, 4), "out_proj.bias": (4,)}
    return {f"layers.{i}.{n}": random.normal(size=s).astype("f") for i in range(2) for n, s in shapes.items()}


def test_one_tensor_fills_several_parameters():
    weights = packed_weights()
    model = convert.load_weights(Packed(nnx.Rngs(0)), weights, layout=Layout(PACKED))
    np.testing.assert_array_equal(model.blocks[1].key.kernel[...], weights["layers.1.in_proj_weight"][4:8].T)
    np.testing.assert_array_equal(model.blocks[0].value.bias[...], weights["layers.0.in_proj_bias"][8:])
    back = convert.to_torch(model, layout=Layout(PACKED))
    assert all((back[name] == array).all() for name, array in weights.items())


def test_one_error_lists_everything_that_does_not_fit():
    weights = dict(WEIGHTS)
    weights["patch_embed.projection.weight"] = weights.pop("patch_embed.proj.weight")
    weights["head.bias"] = np.zeros(4, np.float32)
    weights["head.weight"] = weights["head.weight"].astype(np.float64)
    weights["optimizer.step"] = np.zeros(())
    with pytest.raises(ConversionError) as error:
        load(weights)
    message = str(error.value)
    assert message.startswith("5 tensors")
    assert "missing    patch_embed.proj.weight (unused and similar: patch_embed.projection.weight)" in message
    assert "misshapen  head.bias: (4,) given, (3,) expected" in message
    assert "wrong type head.weight: float64 does not fit into float32" in message
    assert "unused     optimizer.step ()" in message


def test_a_transposed_square_matrix_is_the_only_thing_shapes_cannot_show():
    weights = {**WEIGHTS, "head.weight": WEIGHTS["head.weight"].T}
    with pytest.raises(ConversionError, match=r"head.weight: \(6, 3\) given, \(3, 6\) expected"):
        load(weights)


def test_narrow_types_widen_and_wide_types_do_not_narrow():
    half = {name: array.astype(jnp.bfloat16) for name, array in WEIGHTS.items()}
    model = load(half)
    assert model.head.kernel.dtype == jnp.float32
    np.testing.assert_array_equal(model.head.kernel[...], half["head.weight"].T.astype(np.float32))
    with pytest.raises(ConversionError, match="float32 does not fit into bfloat16"):
        load(WEIGHTS, param_dtype=jnp.bfloat16)
    integers = {**WEIGHTS, "head.bias": np.zeros(3, np.int64)}
    with pytest.raises(ConversionError, match=r"head\.bias: int64"):
        load(integers)


def test_tensors_that_carry_nothing_are_ignored_by_name():
    load({**WEIGHTS, "positional_encoding.pe": np.zeros((1, 5000, 6), np.float32)})


def test_a_layout_must_fill_every_parameter_once():
    attention = MultiHeadAttention(4, 2, rngs=nnx.Rngs(0))
    rules = [rule for rule in PACKED[:4] if "out_proj.bias" not in rule.torch]
    with pytest.raises(ConversionError, match=r"no rule makes our parameter blocks\.\{i\}\.out\.bias \(i = 0 to 1\)$"):
        convert.to_torch(Packed(nnx.Rngs(0)), layout=Layout(tuple(rules)))
    twice = Layout((Rule("a", "out.bias"), Rule("b", "out.bias")))
    with pytest.raises(ConversionError, match=r"2 rules make our parameter out\.bias"):
        convert.to_torch(attention, layout=twice)
    same = Layout((Rule("a", "out.bias"), Rule("a", "query.bias")))
    with pytest.raises(ConversionError, match="2 rules use the tensor a"):
        convert.to_torch(attention, layout=same)


def test_loading_leaves_the_given_model_alone_and_nothing_abstract():
    block = EncoderBlock(CONFIG, rngs=nnx.Rngs(0))
    before = nnx.state(block)["mlp"]["up"]["kernel"][...]
    weights = torch_weights.torch_init(TorchGenerator(1), torch_weights.encoder_layer(6, 10))
    loaded = convert.load_weights(block, weights, layout="cs231n")
    np.testing.assert_array_equal(block.mlp.up.kernel[...], before)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(nnx.state(loaded)))


def test_unknown_layout_or_model():
    with pytest.raises(InputError, match=r"unknown layout 'torchvison': choose one of .*cs231n"):
        convert.to_torch(load(WEIGHTS), layout="torchvison")
    with pytest.raises(InputError, match="does not describe Packed, only"):
        convert.to_torch(Packed(nnx.Rngs(0)), layout="cs231n")
