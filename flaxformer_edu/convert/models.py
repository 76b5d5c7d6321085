"""PyTorch weights into our models, and back."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx

from flaxformer_edu.convert.layouts import find_layout
from flaxformer_edu.convert.rules import Layout, check, match

Model = TypeVar("Model", bound=nnx.Module)


def from_torch(
    model_type: Callable[..., Model], config: Any, weights: Mapping[str, Any], *, layout: str | Layout, **options: Any
) -> Model:
    """Build `model_type(config, **options)` with the weights of a PyTorch state dict (arrays or tensors by name).

    The model is built abstractly, so memory holds its parameters once. `options` may hold `param_dtype` and `dtype`.
    Raises ConversionError, which lists every tensor that is missing, unused, misshapen or would lose digits.
    """
    model = nnx.eval_shape(lambda: model_type(config, rngs=nnx.Rngs(0), **options))
    return load_weights(model, weights, layout=layout)


def load_weights(model: Model, weights: Mapping[str, Any], *, layout: str | Layout) -> Model:
    """A model like this one (a whole model or a layer, abstract or not) with the weights of a PyTorch state dict."""
    layout = find_layout(layout, type(model)) if isinstance(layout, str) else layout
    graphdef, state = nnx.split(model)
    variables = dict(nnx.to_flat_state(state))
    shapes = {_name(path): jax.ShapeDtypeStruct(v.shape, v.dtype) for path, v in variables.items()}
    tensors = {name: _as_numpy(tensor) for name, tensor in weights.items()}
    matches = match(layout, shapes)
    check(matches, tensors, shapes, layout)
    arrays = {name: array for found in matches for name, array in found.to_ours(tensors[found.torch], shapes).items()}
    for path, variable in variables.items():
        name = _name(path)
        variables[path] = variable.replace(jnp.array(arrays[name], dtype=shapes[name].dtype))
    return nnx.merge(graphdef, nnx.from_flat_state(variables))


def to_torch(model: nnx.Module, *, layout: str | Layout) -> dict[str, np.ndarray]:
    """The model's weights under PyTorch's names and in its axes, as NumPy arrays.

    For PyTorch: `module.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})`.
    """
    layout = find_layout(layout, type(model)) if isinstance(layout, str) else layout
    arrays = {_name(path): variable[...] for path, variable in nnx.to_flat_state(nnx.state(model))}
    shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in arrays.items()}
    return {found.torch: found.to_torch(arrays) for found in match(layout, shapes)}


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in path)


def _as_numpy(tensor: Any) -> np.ndarray:
    """A NumPy array of a tensor of any framework; bfloat16, which PyTorch does not hand to NumPy, goes bit by bit."""
    if not hasattr(tensor, "detach"):
        return np.asarray(tensor)
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        import torch

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()
