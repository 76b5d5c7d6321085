"""What goes wrong in any layer: weights, activations, normalisation, dropout."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Literal

import jax.numpy as jnp
from flax import nnx

from flaxformer_edu.compare.causes.trial import Case, Trial
from flaxformer_edu.compare.sides.records import is_within
from flaxformer_edu.convert.rules import parameter_name
from flaxformer_edu.layers import ACTIVATIONS, Block, FeedForward

EPSILONS = (1e-5, 1e-6, 1e-12)
Matrix = nnx.Linear | nnx.LinearGeneral | nnx.Conv


def dropout(case: Case) -> Iterator[Trial]:
    """Their dropout is active: the model is in training mode, or its code calls dropout in both modes."""
    explanation = "their dropout is on: call .eval(), and give F.dropout training=self.training"
    yield Trial(explanation, (), case.model, theirs_in_evaluation=True)


def transposed_kernel(case: Case) -> Iterator[Trial]:
    """A square kernel that was not transposed, which no shape shows; in patches, rows and columns."""
    for kind in (nnx.Linear, nnx.LinearGeneral, nnx.Conv):
        for path in case.find(kind):
            part = replace(case, scope=path)
            yield from part.trial(f"the kernel of {path} is transposed", kind, _transpose, _is_square)


def _is_square(layer: Matrix) -> bool:
    return layer.kernel.shape[0] == layer.kernel.shape[1]


def _transpose(layer: Matrix) -> None:
    layer.kernel[...] = jnp.swapaxes(layer.kernel[...], 0, 1)


def activation(case: Case) -> Iterator[Trial]:
    """Another activation: GELU is exact in PyTorch and approximate in JAX by default."""
    for name in ACTIVATIONS:
        yield from case.setting(f"their activation is {name}", FeedForward, "activation", name)


def norm_epsilon(case: Case) -> Iterator[Trial]:
    """Another epsilon of layer normalisation: PyTorch has 1e-5, Flax 1e-6, transformers' ViT 1e-12."""
    for epsilon in EPSILONS:
        yield from case.setting(f"their norm_epsilon is {epsilon:g}", nnx.LayerNorm, "epsilon", epsilon)


def norm_position(case: Case) -> Iterator[Trial]:
    """Layer normalisation before the sublayers instead of after the residual connections, or the other way round."""
    for norm in ("pre", "post"):
        different = partial(_stands_otherwise, norm)
        yield from case.trial(f"their blocks are {norm}-norm", Block, partial(_stand, norm), different)


def _stand(norm: Literal["pre", "post"], block: Block) -> None:
    block.config = replace(block.config, norm=norm)


def _stands_otherwise(norm: str, block: Block) -> bool:
    return block.config.norm != norm


def other_weights(case: Case) -> Iterator[Trial]:
    """Weights that differ from theirs in a way that no other cause explains."""
    copy = nnx.clone(case.model)
    changed = []
    for path, variable in nnx.to_flat_state(nnx.state(copy)):
        name = parameter_name(path)
        same = variable.shape == case.parameters[name].shape
        if same and is_within(name, case.scope) and (variable[...] != case.parameters[name]).any():
            variable[...] = jnp.asarray(case.parameters[name], variable.dtype)
            changed.append(name)
    if changed:
        yield Trial(f"the weights differ: {', '.join(changed)}", tuple(changed), copy)

