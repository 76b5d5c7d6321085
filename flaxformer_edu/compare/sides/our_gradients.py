"""Gradients of one of our models, with respect to its parameters and to the output of each of its layers."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from flaxformer_edu.compare.sides.ours import Arguments, as_inputs, run
from flaxformer_edu.compare.sides.records import Call, Gradients, Loss, Options, Recording
from flaxformer_edu.convert.rules import parameter_name
from flaxformer_edu.errors import InputError


def gradients(
    model: nnx.Module,
    inputs: Sequence[Any],
    calls: Recording,
    loss: Loss | None = None,
    *,
    options: Options | None = None,
) -> Gradients:
    """Those of a model that recorded `calls` on the inputs; zeros are added to the outputs, and differentiated by.

    Computed one operation at a time; given `options` of XLA, if only {}, as one compiled program. Raises InputError
    where the loss is no single number, or the default one has nothing to work with.
    """
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    zeros = {path: jnp.zeros_like(call.output) for path, call in calls.items()}

    def loss_of(params: Any, changes: Mapping[str, jax.Array], rest: Any, inputs: Sequence[Any]) -> jax.Array:
        def add_change(path: str, _: Arguments, result: Any) -> Any:
            return add_to_first(result, changes[path]) if path in changes else result

        output = run(nnx.merge(graphdef, params, rest), inputs, add_change)
        with jax.disable_jit() if options is None else nullcontext():  # a loss may be compiled by itself
            return loss_value(loss, output)

    differentiated = jax.value_and_grad(loss_of, argnums=(0, 1))
    if options is not None:
        differentiated = jax.jit(differentiated, compiler_options=dict(options))
    value, (of_params, of_outputs) = differentiated(params, zeros, rest, as_inputs(model, inputs))
    flat = nnx.to_flat_state(of_params)
    return Gradients(
        {parameter_name(path): np.asarray(variable[...]) for path, variable in flat},
        {path: Call(np.asarray(of_outputs[path]), None) for path in calls},
        np.asarray(value),
    )


def loss_value(loss: Loss | None, output: Any) -> jax.Array:
    """The loss of what the model gives, by default `default_loss`. Raises InputError where it is no single number."""
    value = (loss or default_loss)(output)
    if (shape := jnp.shape(value)) != ():
        raise InputError(f"the loss of our output has shape {shape}, expected a number: sum it, or average it")
    return value


def default_loss(output: Any) -> Float[Array, ""]:
    """The sum of y + y^3 / 3 over the model's first output, at least in float32.

    The cubes are there because plain sums are constant after a softmax or a norm: all gradients would be zero.
    """
    y = first_floating(output)
    if y is None:
        raise InputError("our model gives no array of floating-point numbers: hand in a loss of what it gives")
    y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
    return (y + y**3 / 3).sum()


def stepped(
    model: nnx.Module, along: Mapping[str, np.ndarray], optimizer: optax.GradientTransformation
) -> dict[str, np.ndarray]:
    """The model's parameters, by name, after the optimizer's first step along some gradients."""
    state = nnx.to_flat_state(nnx.state(model, nnx.Param))
    params = nnx.to_pure_dict(nnx.from_flat_state(state))
    given = [(path, v.replace(jnp.asarray(along[parameter_name(path)], v.dtype))) for path, v in state]
    updates, _ = optimizer.update(nnx.to_pure_dict(nnx.from_flat_state(given)), optimizer.init(params), params)
    leaves = jax.tree_util.tree_leaves_with_path(optax.apply_updates(params, updates))
    return {parameter_name(tuple(part.key for part in path)): np.asarray(leaf) for path, leaf in leaves}


def first_floating(values: Any) -> jax.Array | None:
    """The first of JAX's arrays of floating-point numbers, if there is one."""
    return next(filter(_is_floating, jax.tree.leaves(values)), None)


def add_to_first(values: Any, change: jax.Array) -> Any:
    """The same values with a change added to the first array of floating-point numbers, if it has its shape."""
    leaves, structure = jax.tree.flatten(values)
    first = next((i for i, leaf in enumerate(leaves) if _is_floating(leaf)), None)
    if first is None or leaves[first].shape != change.shape:
        return values
    leaves[first] = leaves[first] + change
    return jax.tree.unflatten(structure, leaves)


def _is_floating(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)
