"""What a correct port is: two models with the same weights, and where the parts of PyTorch's are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flax import nnx

from flaxformer_edu import convert
from flaxformer_edu.convert.layouts import find_layout


@dataclass(frozen=True, kw_only=True)
class Size:
    """What all kinds of models have."""

    depth: int
    width: int
    heads: int
    hidden: int


@dataclass(frozen=True, kw_only=True)
class Names:
    """Where their blocks and a block's parts are, `{i}` being the block's number, and where our blocks are.

    `positions` is a table that is added to the tokens, `class_token` what stands in front of them.
    """

    ours: str
    block: str
    attention: str
    norms: tuple[str, str]
    up: str
    down: str
    out: str | None = None
    patches: str | None = None
    head: str | None = None
    positions: str | None = None
    class_token: str | None = None


@dataclass(frozen=True, kw_only=True)
class Port:
    """A pair with the same weights, and what to run it on."""

    kind: str
    size: Size
    names: Names
    ours: nnx.Module
    theirs: torch.nn.Module
    inputs: tuple[np.ndarray, ...]
    layout: str


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How to make both sides of a port of some size; `ours` is given the options of our layers.

    `layout` is the scheme of names, `inputs` draws what both are run on.
    """

    names: Names
    layout: str
    theirs: Callable[[Size], torch.nn.Module]
    ours: Callable[..., nnx.Module]
    inputs: Callable[[np.random.Generator, Size], tuple[np.ndarray, ...]]


def port(name: str, make: Kind, size: Size, random: np.random.Generator, theirs: str, **options: Any) -> Port:
    """A pair with the same weights, those of PyTorch's side of the type `theirs`; ours is made with the options."""
    twin = drawn(make.theirs(size), random).to(getattr(torch, theirs)).eval()
    ours, weights = make.ours(size, rngs=nnx.Rngs(0), **options), twin.state_dict()
    layout = find_layout(make.layout, ours, weights)
    ours = convert.load_weights(ours, weights, layout=layout)
    inputs = make.inputs(random, size)
    return Port(kind=name, size=size, names=make.names, ours=ours, theirs=twin, inputs=inputs, layout=make.layout)


def drawn(module: torch.nn.Module, random: np.random.Generator) -> torch.nn.Module:
    """The module with weights of the size that training leaves: none is left at zero or one, where faults hide."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            centre = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
            spread = 0.1 if parameter.ndim == 1 else random.choice([1.0, 1.5]) * parameter.shape[-1] ** -0.5
            parameter.copy_(torch.tensor(random.normal(centre, min(spread, 0.5), tuple(parameter.shape))))
    return module
