"""Which layout a checkpoint has, told by its names, and rules with lists on PyTorch's side."""

import jax
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from flaxformer_edu import convert
from flaxformer_edu.convert import ConversionError, Layout, Rule, find_layout
from flaxformer_edu.convert.layouts import LAYOUTS, detect_layout, hf_vit
from flaxformer_edu.convert.rules import Match
from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import Encoder, MultiHeadAttention
from flaxformer_edu.models import Seq2SeqConfig, Seq2SeqTransformer, VisionTransformer, ViTConfig

SIZES = {"image_size": 8, "patch_size": 4, "classes": 3, "width": 8, "layers": 2, "heads": 2, "hidden": 12}
SOME_NAMES = {
    "torchvision": ["class_token", "encoder.layers.encoder_layer_0.self_attention.in_proj_weight", "heads.head.weight"],
    "timm": ["cls_token", "blocks.0.attn.qkv.weight", "head.bias"],
    "hf_vit": ["vit.embeddings.cls_token", "vit.encoder.layer.1.attention.attention.query.weight", "classifier.bias"],
    "google_npz": ["cls", "Transformer/encoderblock_1/MultiHeadDotProductAttention_1/query/kernel", "head/kernel"],
    "scratch": ["embedding.cls_token", "encoder.blocks.0.attention.heads.1.query.weight", "classifier.bias"],
}


def vit(**changes):
    return VisionTransformer(ViTConfig.b16(**{**SIZES, **changes}), rngs=nnx.Rngs(0))


def same(first, second):
    return all((a == b).all() for a, b in zip(*map(jax.tree.leaves, map(nnx.state, (first, second))), strict=True))


@pytest.mark.parametrize("layout", SOME_NAMES)
@pytest.mark.parametrize("merged", [False, True], ids=["separate", "merged"])
def test_each_librarys_names_are_known(layout, merged):
    changes = {"final_norm": "none"} if layout == "scratch" else {}
    model = vit(merged_qkv=merged, **changes)
    weights = convert.to_torch(model, layout=layout)
    assert weights.keys() >= set(SOME_NAMES[layout])
    assert detect_layout(weights, model) == layout
    assert same(convert.load_weights(model, weights), model)


def test_the_course_and_pytorchs_own_modules():
    course = VisionTransformer(ViTConfig.cs231n(), rngs=nnx.Rngs(0))
    assert detect_layout(convert.to_torch(course, layout="cs231n"), course) == "cs231n"
    encoder = Encoder(ViTConfig.b16(**SIZES), 2, rngs=nnx.Rngs(0))
    assert detect_layout(["layers.0.self_attn.in_proj_weight", "layers.0.norm1.weight"], encoder) == "torch_nn"
    sizes = {"width": 8, "heads": 2, "hidden": 12, "encoder_layers": 1, "decoder_layers": 1}
    config = Seq2SeqConfig(**sizes, source_vocab=5, vocab=6, max_length=7)
    translator = Seq2SeqTransformer(config, rngs=nnx.Rngs(0))
    assert detect_layout(convert.to_torch(translator, layout="torch_nn"), translator) == "torch_nn"


@pytest.mark.parametrize("version", [0, 1], ids=["version4", "version5"])
@pytest.mark.parametrize("classes", [3, None])
def test_transformers_names_with_and_without_the_classifiers_prefix(version, classes):
    changes = {"classes": classes, "representation": None if classes else 8}
    model = vit(**changes)
    variants = hf_vit.layouts(model)
    weights = convert.to_torch(model, layout=variants[version])
    assert any(name.startswith("vit.") for name in weights) == (classes is not None)
    assert find_layout("hf_vit", model, weights) == variants[version]
    assert same(convert.load_weights(model, weights), model)
    assert convert.to_torch(model, layout="hf_vit").keys() == convert.to_torch(model, layout=variants[0]).keys()


def test_the_body_of_a_classifier_can_be_loaded_alone():
    whole, body = vit(), vit(classes=None)
    weights = convert.to_torch(whole, layout="hf_vit")
    weights = {name: array for name, array in weights.items() if not name.startswith("classifier")}
    loaded = convert.load_weights(body, weights)
    np.testing.assert_array_equal(loaded.class_token[...], whole.class_token[...])


def test_unknown_and_ambiguous_names():
    with pytest.raises(ConversionError, match=r"no layout for VisionTransformer knows the names stem\.w, .*write"):
        convert.load_weights(vit(), {"stem.w": np.zeros(3)})
    both = {"head.weight": np.zeros((3, 8)), "head.bias": np.zeros(3)}
    with pytest.raises(ConversionError, match="fit the layouts cs231n, timm alike: say which one is meant"):
        convert.load_weights(vit(), both)
    with pytest.raises(ConversionError, match="missing    cls_token"):
        convert.load_weights(vit(), both, layout="timm")


def test_few_strange_names_do_not_hide_the_layout():
    weights = convert.to_torch(vit(), layout="timm")
    weights["encoder.ln.weight"] = weights.pop("norm.weight")
    with pytest.raises(ConversionError, match=r"missing    norm\.weight(.|\n)*unused     encoder\.ln\.weight"):
        convert.load_weights(vit(), weights)


def test_every_layout_is_named_after_its_file():
    assert all(layout.__name__.endswith(name) for name, layout in vars(convert.layouts).items() if name in LAYOUTS)


@given(
    tensors=st.integers(2, 5),
    sizes=st.tuples(*[st.integers(1, 3)] * 2),
    pattern=st.sampled_from(
        [
            ("part output input -> input (part output)", None),
            ("part output input -> input (output part)", None),
            ("part output input -> part input output", None),
            ("part output input -> (part input) output", None),
        ]
    ),
)
def test_several_tensors_make_one_parameter_and_come_apart_again(tensors, sizes, pattern):
    names = tuple("abcde"[:tensors])
    rule = Match(names, ("ours",), pattern[0], {})
    given_ = {name: np.random.default_rng(i).normal(size=sizes) for i, name in enumerate(names)}
    whole = np.stack(list(given_.values()))
    shapes = {"(part output)": (sizes[1], tensors * sizes[0]), "(output part)": (sizes[1], tensors * sizes[0])}
    shape = next((s for key, s in shapes.items() if key in pattern[0]), None)
    shape = shape or ((tensors, sizes[1], sizes[0]) if "-> part" in pattern[0] else (tensors * sizes[1], sizes[0]))
    described = {"ours": jax.ShapeDtypeStruct(shape, np.float64)}
    assert rule.torch_shape(described) == sizes
    ours = rule.to_ours(given_, described)
    assert ours["ours"].shape == shape
    assert sorted(ours["ours"].ravel()) == sorted(whole.ravel())
    back = rule.to_torch(ours)
    assert back.keys() == given_.keys()
    assert all((back[name] == given_[name]).all() and back[name].flags.c_contiguous for name in names)


@given(heads=st.integers(1, 4), dim=st.integers(1, 3), width=st.integers(1, 4))
def test_sizes_tell_what_shapes_do_not(heads, dim, width):
    rule = Match(("w",), ("k",), "head dim width -> width (head dim)", {"head": heads})
    shapes = {"k": jax.ShapeDtypeStruct((width, heads * dim), np.float64)}
    assert rule.torch_shape(shapes) == (heads, dim, width)
    tensor = np.random.default_rng(0).normal(size=(heads, dim, width))
    ours = rule.to_ours({"w": tensor}, shapes)
    np.testing.assert_array_equal(ours["k"], np.concatenate(list(tensor), axis=0).T)
    np.testing.assert_array_equal(rule.to_torch(ours)["w"], tensor)


class TestRulesForAttention:
    """Heads apart, as PyTorch's tutorials have them, and query, key and value in one of our kernels."""

    def test_three_tensors_in_one_kernel(self):
        model = MultiHeadAttention(4, 2, merged_qkv=True, rngs=nnx.Rngs(0))
        weights = {name: np.full((4, 4), i, np.float32) for i, name in enumerate(("q.w", "k.w", "v.w"))}
        weights |= {name: np.full(4, i, np.float32) for i, name in enumerate(("q.b", "k.b", "v.b"))}
        weights |= {"o.w": np.eye(4, dtype=np.float32), "o.b": np.zeros(4, np.float32)}
        layout = Layout(
            (
                Rule("{q,k,v}.w", "qkv.kernel", "qkv output input -> input (qkv output)"),
                Rule("{q,k,v}.b", "qkv.bias", "qkv output -> (qkv output)"),
                Rule("o.w", "out.kernel", "output input -> input output"),
                Rule("o.b", "out.bias"),
            )
        )
        loaded = convert.load_weights(model, weights, layout=layout)
        np.testing.assert_array_equal(loaded.qkv.bias[...], np.repeat([0, 1, 2], 4))
        np.testing.assert_array_equal(loaded.qkv.kernel[...], np.tile(np.repeat([0, 1, 2], 4), (4, 1)))
        back = convert.to_torch(loaded, layout=layout)
        assert all((back[name] == array).all() for name, array in weights.items())

    def test_one_of_several_missing_or_misshapen(self):
        model = vit(final_norm="none")
        weights = convert.to_torch(model, layout="scratch")
        del weights["encoder.blocks.1.attention.heads.1.key.weight"]
        weights["encoder.blocks.0.attention.heads.0.query.weight"] = np.zeros((3, 8), np.float32)
        with pytest.raises(ConversionError) as error:
            convert.load_weights(model, weights)
        assert r"missing    encoder.blocks.1.attention.heads.1.key.weight" in str(error.value)
        assert r"misshapen  encoder.blocks.0.attention.heads.0.query.weight: (3, 8) given, (4, 8)" in str(error.value)


class TestMistakes:
    def test_in_a_rule(self):
        with pytest.raises(InputError, match=r"our name has no \{i\}"):
            Rule("layers.{i}.weight", "blocks.{j}.kernel")
        with pytest.raises(InputError, match=r"each name may have one list"):
            Rule("{a,b}.{c,d}.weight", "kernel")
        with pytest.raises(InputError, match="a pattern has PyTorch's axes, ->, and ours"):
            Rule("weight", "kernel", "output input")

    @pytest.mark.parametrize(
        ("pattern", "reason"),
        [
            ("(part output) input -> input (part output)", "Could not infer sizes"),
            ("output input -> input output extra", r"does not fit the shape \(4, 4\)"),
            ("output input -> input outputs", "Identifiers"),
        ],
    )
    def test_in_a_pattern(self, pattern, reason):
        layout = Layout((Rule("w", "query.kernel", pattern),))
        model = MultiHeadAttention(4, 2, rngs=nnx.Rngs(0))
        rest = [Rule(n, n) for n in ("query.bias", "key.kernel", "key.bias", "value.kernel", "value.bias")]
        layout = Layout((*layout.rules, *rest, Rule("out.kernel", "out.kernel"), Rule("out.bias", "out.bias")))
        with pytest.raises(ConversionError, match=reason):
            convert.to_torch(model, layout=layout)
        with pytest.raises(ConversionError, match=reason):
            convert.load_weights(model, {"w": np.zeros((4, 4))}, layout=layout)
