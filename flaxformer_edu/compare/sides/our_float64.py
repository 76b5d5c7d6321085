"""One of our models in float64, and moved by one unit of rounding."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxformer_edu.compare.sides.ours import float_type


def in_float64(model: nnx.Module, held: np.dtype) -> nnx.Module:
    """A copy that computes in float64, its parameters first rounded to the type `held`."""

    def widen(x: Any) -> Any:
        return x.astype(held).astype(jnp.float64) if _is_floating(x.dtype) else x

    copy = _mapped(model, widen)
    for module in _computing(copy):
        module.dtype = jnp.float64
    return copy


def moved(model: nnx.Module) -> nnx.Module:
    """A copy whose parameters are each one unit of rounding off, up or down at random."""
    random = np.random.default_rng(0)

    def move(x: Any) -> Any:
        return jnp.asarray(one_unit_off(x, random)) if _is_floating(x.dtype) else x

    return _mapped(model, move)


def one_unit_off(x: Any, random: np.random.Generator) -> np.ndarray:
    """An array whose elements are one unit of rounding off, up or down at random."""
    array = np.asarray(x)
    signs = random.choice(np.array([-1, 1], array.dtype), array.shape)
    return array + array * signs * array.dtype.type(jnp.finfo(array.dtype).eps)


def compute_type(model: nnx.Module) -> np.dtype:
    """The narrowest of the types that its parameters have and that its layers compute in."""
    types = [float_type(model), *(np.dtype(module.dtype) for module in _computing(model))]
    return max(types, key=lambda dtype: float(jnp.finfo(dtype).eps))


def _computing(model: nnx.Module) -> list[Any]:
    """The modules that have a type to compute in."""
    modules: list[Any] = [module for _, module in nnx.iter_modules(model)]
    return [module for module in modules if _is_floating(getattr(module, "dtype", None))]


def _is_floating(dtype: Any) -> bool:
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating)


def _mapped(model: nnx.Module, change: Any) -> nnx.Module:
    graphdef, state = nnx.split(model)
    return nnx.merge(graphdef, jax.tree.map(change, state))
