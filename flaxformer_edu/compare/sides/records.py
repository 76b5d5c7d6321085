"""What is kept of one side: the calls of its layers, its gradients; and what is asked of its backward pass."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Loss = Callable[[Any], Any]  # a function of what the model gives
Options = Mapping[str, Any]  # of XLA, by the names of its switches without dashes


@dataclass(frozen=True)
class Call:
    """The output of a layer's first call, and its first input; None where that is no array."""

    output: np.ndarray
    input: np.ndarray | None


Recording = dict[str, Call]  # by path, in the order in which the calls ended; the model itself is ""


@dataclass(frozen=True)
class BackwardRequest:
    """What is asked of a model's backward pass: the gradients of a loss, and one step of an optimizer along them.

    Ours: an optax transformation. Theirs: a function that makes a torch optimizer for a list of parameters.
    """

    loss: Loss | None = None
    optimizer: Any = None


@dataclass(frozen=True)
class Gradients:
    """With respect to each parameter, by name, and to each layer's output, by path, in the order of the forward pass.

    Of a layer that is called more than once, all calls whose outputs have the first one's shape count together. `loss`
    is what was differentiated, where it is known.
    """

    parameters: Mapping[str, np.ndarray]
    outputs: Recording
    loss: np.ndarray | None = None


def is_within(path: str, scope: str) -> bool:
    """Whether a module is the one at `scope`, or within it."""
    return not scope or path == scope or path.startswith(f"{scope}.")
