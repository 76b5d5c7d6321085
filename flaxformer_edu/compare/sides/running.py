"""Run a model of either kind on inputs as ours takes them, and keep what a comparison needs of it."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from flax import nnx

from flaxformer_edu.compare.sides import ours
from flaxformer_edu.compare.sides.our_gradients import gradients as our_gradients
from flaxformer_edu.compare.sides.our_gradients import stepped as stepped_parameters
from flaxformer_edu.compare.sides.recorded import Recorded
from flaxformer_edu.compare.sides.records import BackwardRequest
from flaxformer_edu.convert.rules import parameter_name
from flaxformer_edu.errors import InputError


def record(
    path: str | os.PathLike[str] | None,
    model: Any,
    inputs: Any,
    *,
    torch_inputs: Sequence[Any] | None = None,
    gradients: bool = False,
    loss: Callable[[Any], Any] | None = None,
    step: Any = None,
) -> Recorded:
    """Run a model of PyTorch, or one of ours, and keep what `models` needs of it in an .npz file.

    Where `path` is None it is only returned. The other arguments are those of `models`; `loss` and `step` are this
    side's alone. Raises InputError where the model does not run on the inputs, or the file cannot be written.
    """
    if not isinstance(path, str | os.PathLike | None):
        raise InputError(
            f"the first argument is {type(path).__name__}, expected the path of the file: "
            "compare.record(path, model, inputs), with None for a run that is only returned"
        )
    request = BackwardRequest(loss, step) if gradients or loss is not None or step is not None else None
    with precision(model):
        recorded = run(model, as_arguments(inputs), torch_inputs, request)
    if path is not None:
        recorded.save(path)
    return replace(recorded, parameters={name: x.copy() for name, x in recorded.parameters.items()})


def run(
    model: Any, inputs: Sequence[Any], torch_inputs: Sequence[Any] | None, request: BackwardRequest | None
) -> Recorded:
    """What a model of either kind computes on inputs as ours takes them."""
    arrays = tuple(np.asarray(x) for x in inputs)
    if isinstance(model, nnx.Module):
        return _run_ours(model, arrays, request)
    if not hasattr(model, "state_dict"):
        raise InputError(f"theirs is {type(model).__name__}, expected a torch.nn.Module or a model of ours")
    from flaxformer_edu.compare.sides import their_gradients, theirs

    tensors = their_inputs(arrays) if torch_inputs is None else torch_inputs
    if request is None:
        calls, gradients, stepped = theirs.record_torch(model, tensors), None, None
    else:
        calls, gradients, stepped = their_gradients.record_backward(model, tensors, request)
    return Recorded(
        framework="torch",
        inputs=arrays,
        parameters=theirs.parameters(model),
        leaves=theirs.leaves(model),
        calls=calls,
        gradients=gradients,
        stepped=stepped,
    )


def _run_ours(model: nnx.Module, inputs: tuple[np.ndarray, ...], request: BackwardRequest | None) -> Recorded:
    calls = ours.record(model, inputs)
    gradients = None if request is None else our_gradients(model, inputs, calls, request.loss)
    stepped = None
    if gradients is not None and request is not None and request.optimizer is not None:
        stepped = stepped_parameters(model, gradients.parameters, request.optimizer)
    return Recorded(
        framework="flax",
        inputs=inputs,
        parameters=ours.parameters(model),
        leaves=leaves(model),
        calls=calls,
        gradients=gradients,
        stepped=stepped,
    )


def as_arguments(inputs: Any) -> tuple[Any, ...]:
    """A model's arguments, of which the user may hand in one alone."""
    return tuple(inputs) if isinstance(inputs, list | tuple) else (inputs,)


def their_inputs(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Images as PyTorch takes them; anything else as it is."""
    images = [x.ndim == 4 and x.dtype != bool for x in inputs]
    return [np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if i else x for x, i in zip(inputs, images, strict=True)]


def leaves(model: nnx.Module) -> dict[str, bool]:
    """Whether each of our layers has none within."""
    paths = [path for path, _ in nnx.iter_modules(model)]
    holders = {path[:end] for path in paths for end in range(len(path))}
    return {parameter_name(path): path not in holders for path in paths}


def precision(*models: Any) -> AbstractContextManager[Any]:
    """With 64-bit types where one of the models is one of ours, and of float64."""
    double = any(ours.float_type(model) == np.float64 for model in models if isinstance(model, nnx.Module))
    return jax.enable_x64(True) if double else nullcontext()
