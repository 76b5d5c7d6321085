"""The convolutional network against the same in PyTorch, by rules written with the public API."""

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from parity.harness import assert_parity, channel_first

from flaxformer_edu.convert import Layout, Rule, within
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import ConvNet, ConvNetConfig
from flaxformer_edu.models.cnn import GROUPS


class Block(torch.nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.n1, self.c1 = torch.nn.GroupNorm(GROUPS, inputs), torch.nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.n2, self.c2 = torch.nn.GroupNorm(GROUPS, outputs), torch.nn.Conv2d(outputs, outputs, 3, 1, 1)
        changes = inputs != outputs or stride != 1
        self.short = torch.nn.Conv2d(inputs, outputs, 1, stride) if changes else torch.nn.Identity()

    def forward(self, x):
        gelu = torch.nn.functional.gelu
        return self.c2(gelu(self.n2(self.c1(gelu(self.n1(x)))))) + self.short(x)


class Twin(torch.nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, width, 3, 1, 1)
        self.blocks = torch.nn.Sequential(Block(width, width, 1), Block(width, 2 * width, 2))
        self.norm, self.drop = torch.nn.GroupNorm(GROUPS, 2 * width), torch.nn.Dropout(0.3)
        self.head = torch.nn.Linear(2 * width, classes)

    def forward(self, x):
        h = torch.nn.functional.gelu(self.norm(self.blocks(self.stem(x))))
        return self.head(self.drop(h.mean((2, 3))))


def conv(theirs, ours):
    weight = Rule(f"{theirs}.weight", f"{ours}.kernel", "output input row column -> row column input output")
    return weight, Rule(f"{theirs}.bias", f"{ours}.bias")


def norm(theirs, ours):
    return Rule(f"{theirs}.weight", f"{ours}.scale"), Rule(f"{theirs}.bias", f"{ours}.bias")


BLOCK = (
    *norm("n1", "norm1"), *conv("c1", "conv1"), *norm("n2", "norm2"), *conv("c2", "conv2"), *conv("short", "shortcut")
)  # fmt: skip
HEAD = Rule("head.weight", "head.kernel", "output input -> input output"), Rule("head.bias", "head.bias")
LAYOUT = Layout((*conv("stem", "stem"), *within("blocks.{i}", "blocks.{i}", BLOCK), *norm("norm", "norm"), *HEAD))


@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
def test_the_convolutional_network(dtype, train):
    torch.manual_seed(0)
    twin = Twin(8, 5).to(torch.float64 if dtype == np.float64 else torch.float32)
    config = ConvNetConfig(image_size=8, classes=5, width=8, blocks=(1, 1), dropout=0.3)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(dtype)
    with jax.enable_x64(dtype == np.float64):
        ours = ConvNet(config, rngs=nnx.Rngs(0), param_dtype=dtype)
        assert_parity(ours, twin, [images], [channel_first(images)], train=train, layout=LAYOUT)


@pytest.mark.usefixtures("unchecked")
def test_sizes_that_do_not_fit():
    with pytest.raises(InputError, match="width is 12, expected a multiple of 8"):
        ConvNetConfig(image_size=8, classes=5, width=12, blocks=(1,))
    with pytest.raises(InputError, match="image_size 10 cannot be halved 2 times"):
        ConvNetConfig(image_size=10, classes=5, width=8, blocks=(1, 1, 1))
    model = ConvNet(ConvNetConfig(image_size=8, classes=5, width=8, blocks=(1,)), rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="height=8"):
        model(np.zeros((1, 9, 9, 3), np.float32))
