"""Models split into structure and parameters, and models without numbers, for weights that come from elsewhere."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from flax import nnx

from flaxformer_edu.errors import InputError

Model = TypeVar("Model", bound=nnx.Module)


class _OneKey(nnx.RngStream):
    """Gives the same key each time: no number is ever drawn, and counting keys would take most of the tracing time."""

    def __call__(self) -> jax.Array:
        return self.key[...]


class _Uncounted(nnx.Rngs):
    def __init__(self):
        super().__init__()
        self.default = _OneKey(jax.random.key(0), tag="default")


def abstract(model_type: Callable[..., Model], config: Any, **options: Any) -> Model:
    """`model_type(config, **options)` with a `jax.ShapeDtypeStruct` in place of each parameter; allocates nothing."""
    return nnx.eval_shape(lambda: model_type(config, rngs=_Uncounted(), **options))


def split_model(model: nnx.Module) -> tuple[nnx.GraphDef, dict[Any, Any]]:
    """The model's structure and its parameters as a nested dict, which `nnx.merge` puts together again.

    Raises InputError where the model holds something other than parameters.
    """
    params, rest = nnx.split(model, nnx.Param, ...)[1:]
    others = sorted(".".join(map(str, path)) for path, _ in nnx.to_flat_state(rest))
    if others:
        raise InputError(
            f"{type(model).__name__} holds {', '.join(others)}, which no optimizer trains: "
            "keep only nnx.Param in the model and hand randomness in when calling it"
        )
    return nnx.split(model)[0], nnx.to_pure_dict(params)
