"""The Vision Transformers of torchvision, timm, transformers and tutorials, and PyTorch's encoder."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from parity.harness import assert_close, assert_parity, channel_first
from parity.vit_libraries import giving, library, randomised
from torch import nn
from torch.nn import functional

from flaxformer_edu import convert
from flaxformer_edu.convert import find_layout
from flaxformer_edu.layers import BlockConfig, Encoder
from flaxformer_edu.models import VisionTransformer, ViTConfig
from tests.twins import vit_twins

WIDTH, HEADS, HIDDEN, LAYERS, CLASSES, IMAGE, PATCH = 12, 3, 18, 2, 5, 12, 4
DTYPES = {"float64": torch.float64, "float32": torch.float32}
IMAGES = np.random.default_rng(0).normal(size=(3, IMAGE, IMAGE, 3))


def config(**changes):
    sizes = {"width": WIDTH, "heads": HEADS, "hidden": HIDDEN, "layers": LAYERS, "patch_size": PATCH}
    return ViTConfig.b16(**{**sizes, "classes": CLASSES, "image_size": IMAGE, **changes})


def torchvision(**changes):
    models = library("torchvision").models
    sizes = {"num_layers": LAYERS, "num_heads": HEADS, "hidden_dim": WIDTH, "mlp_dim": HIDDEN, "num_classes": CLASSES}
    return models.VisionTransformer(IMAGE, PATCH, **sizes, **changes)


def timm(name="VisionTransformer", **changes):
    models = library("timm").models
    sizes = {"embed_dim": WIDTH, "num_heads": HEADS, "mlp_ratio": HIDDEN / WIDTH, "depth": LAYERS}
    images = {"img_size": IMAGE, "patch_size": PATCH}
    model = getattr(models, name)(**{**sizes, **images, "num_classes": CLASSES, **changes})
    for block in model.blocks:
        block.attn.fused_attn = False  # the same numbers, with dropout masks that can be recorded
    return model


def transformers(name="ViTForImageClassification", field="logits", **changes):
    module = library("transformers")
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    more = {"intermediate_size": HIDDEN, "image_size": IMAGE, "patch_size": PATCH, "num_labels": CLASSES}
    return giving(getattr(module, name)(module.ViTConfig(**sizes, **more, **changes)), field)


def tutorial(**changes):
    sizes = {"width": WIDTH, "heads": HEADS, "hidden": HIDDEN, "layers": LAYERS, "classes": CLASSES}
    images = {"image_size": IMAGE, "patch_size": PATCH, "channels": 3}
    return vit_twins.VisionTransformer(**images, **{**sizes, **changes})


SCRATCH = {"activation": "gelu_tanh", "norm_epsilon": 1e-5, "final_norm": "none"}
HF = {"norm_epsilon": 1e-12}
POOLED = {"final_norm": "pooled", "pooling": "mean"}
TWINS = {
    "torchvision": (torchvision, {}, config()),
    "torchvision-representation": (torchvision, {"representation_size": 7}, config(representation=7)),
    "timm": (timm, {}, config()),
    "timm-no-qkv-bias": (timm, {"qkv_bias": False}, config(qkv_bias=False)),
    "timm-no-embed-class": (timm, {"no_embed_class": True}, config(prefix_positions=False)),
    "timm-mean": (timm, {"global_pool": "avg"}, config(**POOLED)),
    "timm-no-class-token": (
        timm,
        {"global_pool": "avg", "class_token": False},
        config(class_token=False, **POOLED),
    ),
    "timm-no-class-token-tokens-normalised": (
        timm,
        {"global_pool": "avg", "class_token": False, "fc_norm": False},
        config(class_token=False, pooling="mean"),
    ),
    "timm-no-classifier": (timm, {"num_classes": 0}, config(classes=None)),
    "timm-distilled": (timm, {"name": "VisionTransformerDistilled"}, config(distilled=True)),
    "transformers": (transformers, {}, config(**HF)),
    "transformers-no-qkv-bias": (transformers, {"qkv_bias": False}, config(qkv_bias=False, **HF)),
    "transformers-tanh-gelu": (transformers, {"hidden_act": "gelu_new"}, config(activation="gelu_tanh", **HF)),
    "transformers-pooler": (
        transformers,
        {"name": "ViTModel", "field": "pooler_output"},
        config(classes=None, representation=WIDTH, **HF),
    ),
    "scratch": (tutorial, {}, config(**SCRATCH)),
    "scratch-one-head": (tutorial, {"heads": 1}, config(**SCRATCH, heads=1)),
    "scratch-no-qkv-bias": (tutorial, {"qkv_bias": False}, config(**SCRATCH, qkv_bias=False)),
    "scratch-faster": (tutorial, {"faster": True}, config(**SCRATCH)),
}


@pytest.fixture(params=DTYPES)
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param


def prepared(twin, ours, dtype):
    """Their model with random weights, and ours to be given them."""
    return randomised(twin, DTYPES[dtype]), VisionTransformer(ours, rngs=nnx.Rngs(0), param_dtype=dtype)


def layout_of(name, model, twin):
    """The layout under the names that the twin has in memory."""
    scheme = {"transformers": "hf_vit"}.get(name.split("-")[0], name.split("-")[0])
    return find_layout(scheme, model, twin.state_dict())


@pytest.mark.parametrize("name", TWINS)
def test_outputs_and_round_trip(name, dtype):
    make, changes, ours = TWINS[name]
    twin, model = prepared(make(**changes), ours, dtype)
    weights, layout = twin.state_dict(), layout_of(name, model, twin)
    with torch.no_grad():
        expected = twin(torch.tensor(channel_first(IMAGES.astype(dtype)))).numpy()
    assert np.abs(expected).min() > 0
    for merged in (False, True):
        options = {"layout": layout, "param_dtype": dtype}
        loaded = convert.from_torch(VisionTransformer, replace(ours, merged_qkv=merged), weights, **options)
        assert_close("the output", loaded(IMAGES.astype(dtype)), expected, 1e-12 if dtype == "float64" else 1e-5)
        back = convert.to_torch(loaded, layout=layout)
        assert back.keys() == weights.keys()
        assert all(back[key].tobytes() == tensor.contiguous().numpy().tobytes() for key, tensor in weights.items())


def drops_its_paths(model):
    """timm's model with paths that are dropped by PyTorch's dropout, so that its masks are recorded."""
    for module in model.modules():
        if type(module).__name__ == "DropPath":
            module.forward = partial(drop_path, rate=module.drop_prob)
    return model


def drop_path(x, rate):
    return x * functional.dropout(x.new_ones(len(x), 1, 1), rate)


TRAINED = {
    "torchvision": lambda: (torchvision(dropout=0.1), config(dropout=0.1, attention_dropout=0.0)),
    "timm": lambda: (
        drops_its_paths(timm(pos_drop_rate=0.1, proj_drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.5)),
        config(dropout=0.1, drop_path=0.5),
    ),
    "timm-distilled": lambda: (
        timm("VisionTransformerDistilled", pos_drop_rate=0.1, proj_drop_rate=0.1),
        config(dropout=0.1, attention_dropout=0.0, distilled=True),
    ),
    "transformers": lambda: (
        transformers(hidden_dropout_prob=0.1),
        config(dropout=0.1, attention_dropout=0.0, hidden_dropout=0.0, **HF),
    ),
    "scratch": lambda: (tutorial(dropout=0.1, faster=True), config(dropout=0.1, hidden_dropout=0.0, **SCRATCH)),
}


@pytest.mark.parametrize("name", TRAINED)
def test_training_drops_the_same(name, float64):
    twin, model = prepared(*TRAINED[name](), "float64")
    images = [channel_first(IMAGES)]
    assert_parity(model, twin, [IMAGES], images, train=True, layout=layout_of(name, model, twin))


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_pytorchs_encoder(norm, dtype):
    blocks = BlockConfig(width=WIDTH, heads=HEADS, hidden=HIDDEN, norm=norm)
    settings = {"dim_feedforward": HIDDEN, "dropout": 0.0, "activation": "gelu", "batch_first": True}
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, **settings, norm_first=norm == "pre")
    twin = randomised(nn.TransformerEncoder(layer, LAYERS, norm=nn.LayerNorm(WIDTH)), DTYPES[dtype])
    model = Encoder(blocks, LAYERS, final_norm=True, rngs=nnx.Rngs(0), param_dtype=dtype)
    x = IMAGES.reshape(3, 36, 12).astype(dtype)
    assert_parity(model, twin, [x], train=False, layout="torch_nn")


def test_transformers_files_have_other_names_than_its_modules(tmp_path):
    """Version 5 saves the names of version 4: those are what we write, and both are read."""
    twin, model = prepared(transformers(), config(**HF), "float32")
    twin.save_pretrained(tmp_path)
    saved = convert.read(tmp_path)
    assert saved.keys().isdisjoint(name for name in twin.state_dict() if ".layers." in name)
    loaded = convert.load_weights(model, saved)
    other = convert.load_weights(model, twin.state_dict())
    assert all((a == b).all() for a, b in zip(*map(jax.tree.leaves, map(nnx.state, (loaded, other))), strict=True))
    written = convert.to_torch(loaded, layout="hf_vit")
    assert written.keys() == saved.keys()
    assert all((written[name] == saved[name]).all() for name in saved)
