"""The libraries' Vision Transformers and PyTorch's encoder compare clean in one call, forward and backward."""

import numpy as np
import pytest
import torch
from compare.test_compare_clean import layers, ported
from flax import nnx
from parity.test_vit_libraries import CLASSES, HEADS, HIDDEN, IMAGE, LAYERS, PATCH, WIDTH, config, timm, torchvision
from parity.vit_libraries import library, randomised
from torch import nn

from flaxformer_edu import compare, convert
from flaxformer_edu.layers import BlockConfig, Encoder

pytestmark = pytest.mark.usefixtures("float64", "unchecked")
IMAGES = np.random.default_rng(0).normal(size=(2, IMAGE, IMAGE, 3))


def transformers():
    """As it is: what it gives is no tensor, but an object that holds one."""
    module = library("transformers")
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    more = {"intermediate_size": HIDDEN, "image_size": IMAGE, "patch_size": PATCH, "num_labels": CLASSES}
    return module.ViTForImageClassification(module.ViTConfig(**sizes, **more))


TWINS = {
    "torchvision": (torchvision, {}, "torchvision"),
    "timm": (timm, {}, "timm"),
    "transformers": (transformers, {"norm_epsilon": 1e-12}, "hf_vit"),
}


def check(report):
    """Every layer and parameter agrees to 1e-12, and so does its gradient."""
    rows = layers(report)
    assert {row.tolerance for row in report.gradients} == {1e-12}
    assert {row.layer for row in report.gradients} == {*rows, *(row.layer for row in report.parameters)}


@pytest.mark.parametrize("name", TWINS)
def test_vision_transformers(name):
    make, changes, layout = TWINS[name]
    theirs = randomised(make(), torch.float64)
    ours = ported(theirs, config(**changes), layout)
    check(compare.models(ours, theirs, IMAGES, layout=layout, gradients=True))


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_pytorchs_encoder(norm):
    settings = {"activation": "gelu", "batch_first": True, "norm_first": norm == "pre"}
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, **settings)
    theirs = randomised(nn.TransformerEncoder(layer, LAYERS, norm=nn.LayerNorm(WIDTH)), torch.float64)
    blocks = BlockConfig(width=WIDTH, heads=HEADS, hidden=HIDDEN, norm=norm)
    ours = Encoder(blocks, LAYERS, final_norm=True, rngs=nnx.Rngs(0), param_dtype=np.float64)
    ours = convert.load_weights(ours, theirs.state_dict(), layout="torch_nn")
    x = IMAGES.reshape(2, 36, WIDTH)
    check(compare.models(ours, theirs, x, layout="torch_nn", gradients=True))
