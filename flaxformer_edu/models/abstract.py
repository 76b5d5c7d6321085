"""Models without numbers: their structure, shapes and types, for weights that come from elsewhere."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from flax import nnx

Model = TypeVar("Model", bound=nnx.Module)


class _OneKey(nnx.RngStream):
    """Gives the same key each time: no number is ever drawn, and to count keys takes most of the time of tracing."""

    def __call__(self) -> jax.Array:
        return self.key[...]


class _Uncounted(nnx.Rngs):
    def __init__(self):
        super().__init__()
        self.default = _OneKey(jax.random.key(0), tag="default")


def abstract(model_type: Callable[..., Model], config: Any, **options: Any) -> Model:
    """`model_type(config, **options)` with a `jax.ShapeDtypeStruct` in place of each parameter; allocates nothing."""
    return nnx.eval_shape(lambda: model_type(config, rngs=_Uncounted(), **options))
