"""PyTorch weights into our models, and back."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx

from flaxformer_edu.convert.layouts import detect_layout, find_layout
from flaxformer_edu.convert.rules import Layout, check, match, parameter_name, parameter_shapes
from flaxformer_edu.models.abstract import abstract

Model = TypeVar("Model", bound=nnx.Module)


def from_torch(
    model_type: Callable[..., Model],
    config: Any,
    weights: Mapping[str, Any],
    *,
    layout: str | Layout | None = None,
    **options: Any,
) -> Model:
    """Build `model_type(config, **options)` with the weights of a PyTorch state dict (arrays or tensors by name).

    Without a `layout` it is the one whose names the checkpoint has. The model is built abstractly, so memory holds its
    parameters once. `options` may hold `param_dtype` and `dtype`.
    Raises ConversionError, which lists every tensor that is missing, unused, misshapen or would lose digits.
    """
    return load_weights(abstract(model_type, config, **options), weights, layout=layout)


def load_weights(model: Model, weights: Mapping[str, Any], *, layout: str | Layout | None = None) -> Model:
    """A model like this one (a whole model or a layer, abstract or not) with the weights of a PyTorch state dict."""
    return fill(model, weights, layout, jnp.array)


def fill(
    model: Model,
    weights: Mapping[str, Any],
    layout: str | Layout | None,
    make: Callable[[np.ndarray, np.dtype], jax.Array | np.ndarray],
) -> Model:
    """`load_weights`, with parameters that `make` makes of NumPy arrays and our types.

    `np.asarray` makes views of the weights where it can: enough for a model that is only to be written elsewhere.
    """
    if layout is None:
        layout = detect_layout(weights, model)
    layout = find_layout(layout, model, weights) if isinstance(layout, str) else layout
    graphdef, state = nnx.split(model)
    variables = dict(nnx.to_flat_state(state))
    shapes = parameter_shapes(model)
    tensors = {name: as_numpy(tensor) for name, tensor in weights.items()}
    matches = match(layout, shapes)
    check(matches, tensors, shapes, layout)
    arrays = {name: array for matched in matches for name, array in matched.to_ours(tensors, shapes).items()}
    for path, variable in variables.items():
        name = parameter_name(path)
        variables[path] = variable.replace(make(arrays[name], shapes[name].dtype))
    return nnx.merge(graphdef, nnx.from_flat_state(variables))


def to_torch(model: nnx.Module, *, layout: str | Layout) -> dict[str, np.ndarray]:
    """The model's weights under PyTorch's names and in its axes, as NumPy arrays.

    For PyTorch: `module.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})`.
    """
    layout = find_layout(layout, model) if isinstance(layout, str) else layout
    arrays = {parameter_name(path): variable[...] for path, variable in nnx.to_flat_state(nnx.state(model))}
    matches = match(layout, parameter_shapes(model))
    return {name: tensor for matched in matches for name, tensor in matched.to_torch(arrays).items()}


def as_numpy(tensor: Any) -> np.ndarray:
    """A NumPy array of a tensor of any framework; bfloat16, which PyTorch does not hand to NumPy, goes bit by bit."""
    if not hasattr(tensor, "detach"):
        return np.asarray(tensor)
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        import torch

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()
