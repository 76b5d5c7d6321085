"""Our model as XLA compiles it: its output and its loss, each as one program.

What is returned beside a result changes what XLA fuses, and so which numbers can go wrong. Each is therefore compiled
with nothing beside it, as in a user's program; the layers' outputs are a program of their own. The gradients are in
`our_gradients`. All take `options` of XLA, which stand beside what XLA_FLAGS says.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxformer_edu.compare.sides.our_gradients import add_to_first, first_floating, loss_value
from flaxformer_edu.compare.sides.ours import Arguments, Observer, as_inputs, run
from flaxformer_edu.compare.sides.records import Call, Loss, Options, Recording
from flaxformer_edu.errors import InputError


def output(model: nnx.Module, inputs: Sequence[Any], options: Options) -> np.ndarray:
    """The model's output: its first array of floating-point numbers."""
    return np.asarray(_compiled(model, inputs, first_floating, options))


def loss(model: nnx.Module, inputs: Sequence[Any], of_output: Loss | None, options: Options) -> np.ndarray:
    """The loss without gradients, as in evaluation."""
    return np.asarray(_compiled(model, inputs, lambda result: loss_value(of_output, result), options))


def layers(model: nnx.Module, inputs: Sequence[Any], calls: Recording, options: Options) -> Recording:
    """The outputs of the layers that recorded `calls`."""
    outputs: dict[str, Any] = {}

    def note(path: str, _: Arguments, result: Any) -> Any:
        if path in calls:
            outputs.setdefault(path, first_floating(result))
        return result

    arrays = _compiled(model, inputs, lambda _: outputs, options, note)
    return {path: Call(np.asarray(arrays[path]), None) for path in calls}


def loss_alone(result: Any, of_output: Loss | None, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """The loss of what a model gave, and its gradient with respect to the first array of that; two programs."""

    def changed(change: jax.Array, result: Any) -> jax.Array:
        return loss_value(of_output, add_to_first(result, change))

    first = first_floating(result)
    if first is None:
        raise InputError("our model gives no array of floating-point numbers to differentiate by")
    zeros = jnp.zeros_like(first)
    value, gradient = (jax.jit(f, compiler_options=dict(options)) for f in (changed, jax.grad(changed)))
    return np.asarray(value(zeros, result)), np.asarray(gradient(zeros, result))


def _compiled(
    model: nnx.Module,
    inputs: Sequence[Any],
    of_result: Callable[[Any], Any],
    options: Options,
    see: Observer = lambda path, arguments, result: result,
) -> Any:
    graphdef, state = nnx.split(model)

    def program(state: Any, inputs: Sequence[Any]) -> Any:
        return of_result(run(nnx.merge(graphdef, state), inputs, see))

    return jax.jit(program, compiler_options=dict(options))(state, as_inputs(model, inputs))
