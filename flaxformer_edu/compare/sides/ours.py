"""The inputs and the output of every layer of one of our models, by the layer's path."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer

from flaxformer_edu.compare.sides.records import Call, Recording
from flaxformer_edu.convert.rules import parameter_name

Arguments = inspect.BoundArguments
Edits = Mapping[str, Callable[[Arguments], None]]  # what to do to the arguments of the calls of the layer at a path
Observer = Callable[[str, Arguments, Any], Any]  # a layer's path, what it was given and gave; what to give instead


_signature = functools.cache(inspect.signature)


class _Reached(Exception):
    """The layer that was asked for has been called."""


def record(
    model: nnx.Module, inputs: Sequence[Any], edits: Edits | None = None, *, until: str | None = None
) -> Recording:
    """Run the model in evaluation, up to the layer `until` if given, and note each layer's first call.

    `edits` change what a layer is given. The model must run eagerly; what it calls under a transformation of its own
    (a scan, say) is not seen.
    """
    calls = Recording()

    def note(path: str, arguments: Arguments, result: Any) -> Any:
        output = _first_array(result)
        if output is not None and path not in calls:
            calls[path] = Call(output, _first_array([*arguments.args[1:], *arguments.kwargs.values()]))
        if path == until:
            raise _Reached
        return result

    with suppress(_Reached):
        run(model, inputs, note, edits)
    return calls


def run(model: nnx.Module, inputs: Sequence[Any], see: Observer, edits: Edits | None = None) -> Any:
    """The output of the model in evaluation; `see` is given each layer's call, and returns the layer's output.

    While the model runs, the layers' classes are changed: keep other threads from using them.
    """
    layers = modules(model)
    watch = _Watch({id(layer): path for path, layer in layers.items()}, see, edits or {})
    with _calls_replaced({type(layer) for layer in layers.values() if callable(layer)}, watch):
        return model(*as_inputs(model, inputs))  # pyright: ignore[reportCallIssue]


@dataclass
class _Watch:
    """What stands before the calls of a model's layers, whose paths it knows by their identity."""

    paths: Mapping[int, str]
    see: Observer
    edits: Edits
    running: set[str] = field(default_factory=set[str])

    def __call__(self, module: nnx.Module, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        path = self.paths.get(id(module))
        if path is None or path in self.running:  # not of this model, or a class that calls its parent's
            return original(module, *args, **kwargs)
        self.running.add(path)
        try:
            arguments = _signature(original).bind(module, *args, **kwargs)
            if path in self.edits:
                self.edits[path](arguments)
            result = original(*arguments.args, **arguments.kwargs)
        finally:
            self.running.remove(path)
        return self.see(path, arguments, result)


def modules(model: nnx.Module) -> dict[str, Any]:
    """The model's modules by path; its own is empty."""
    return {parameter_name(path): module for path, module in nnx.iter_modules(model)}


def as_inputs(model: nnx.Module, inputs: Sequence[Any]) -> tuple[jax.Array, ...]:
    """A model's arguments as JAX's arrays, its floating-point ones in the type of its parameters."""
    dtype = float_type(model)
    return tuple(_as_jax(x, dtype) for x in inputs)


def parameters(model: nnx.Module) -> dict[str, np.ndarray]:
    """The model's parameters by name."""
    state = nnx.to_flat_state(nnx.state(model))
    return {parameter_name(path): np.asarray(variable[...]) for path, variable in state}


def float_type(model: nnx.Module) -> np.dtype:
    """The type of the model's first floating-point parameter; float32 where it has none."""
    types = [leaf.dtype for leaf in jax.tree.leaves(nnx.state(model)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return np.dtype(types[0]) if types else np.dtype(np.float32)


def _as_jax(x: Any, dtype: np.dtype) -> jax.Array:
    x = x if isinstance(x, jax.Array) else np.asarray(x)
    return jnp.asarray(x, dtype) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.asarray(x)


@contextmanager
def _calls_replaced(classes: set[Any], call: Callable[..., Any]) -> Iterator[None]:
    """Let `call` stand before each class's `__call__`, which it is given after the module."""
    originals = {kind: kind.__call__ for kind in classes}
    own = {kind for kind in classes if "__call__" in vars(kind)}
    try:
        for kind, original in originals.items():
            kind.__call__ = functools.partialmethod(call, original)
        yield
    finally:
        for kind, original in originals.items():
            if kind in own:
                kind.__call__ = original
            elif "__call__" in vars(kind):
                del kind.__call__


def _first_array(values: Any) -> np.ndarray | None:
    """The first array of floating-point numbers among values that are known, as NumPy's."""
    leaves = [leaf for leaf in jax.tree.leaves(values) if isinstance(leaf, jax.Array | np.ndarray)]
    leaves = [leaf for leaf in leaves if not isinstance(leaf, Tracer)]
    return next((np.asarray(leaf) for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)), None)
