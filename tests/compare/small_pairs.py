"""Small models of ours and of PyTorch with the same weights and nearly the same names."""

import jax
import numpy as np
import torch
from flax import nnx
from parity.vit_libraries import randomised
from torch import nn

from flaxformer_edu import convert
from flaxformer_edu.convert import Layout, Rule

X = np.random.default_rng(0).normal(size=(3, 4))
LINEAR = "output input -> input output"
LAYOUT = Layout(
    (
        *(Rule(f"{layer}.weight", f"{layer}.kernel", LINEAR) for layer in ("first", "last")),
        Rule("norm.weight", "norm.scale"),
        *(Rule(f"{layer}.bias", f"{layer}.bias") for layer in ("first", "norm", "last")),
    )
)


class Ours(nnx.Module):
    """`first` is called twice."""

    def __init__(self, rngs):
        self.first = nnx.Linear(4, 4, rngs=rngs, param_dtype=np.float64)
        self.norm = nnx.LayerNorm(4, epsilon=1e-5, use_fast_variance=False, rngs=rngs, param_dtype=np.float64)
        self.last = nnx.Linear(4, 4, rngs=rngs, param_dtype=np.float64)

    def __call__(self, x):
        return self.last(jax.nn.relu(self.norm(self.first(self.first(x)))))


class Theirs(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4)
        self.activation = nn.ReLU()

    def forward(self, x):
        return self.last(self.activation(self.norm(self.first(self.first(x)))))


def small():
    """A pair in float64."""
    theirs = randomised(Theirs(), torch.float64)
    with jax.enable_x64(True):
        return convert.load_weights(Ours(nnx.Rngs(0)), theirs.state_dict(), layout=LAYOUT), theirs
