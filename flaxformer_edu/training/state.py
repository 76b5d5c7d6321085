"""Everything that training changes, as one value."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int, Key, UInt32

from flaxformer_edu.errors import InputError

Params = dict[Any, Any]  # nested, as the model: {"head": {"kernel": array, "bias": array}, "blocks": {0: ...}}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class TrainState:
    """What one step changes. With the batch source and the configuration it decides all the steps that follow.

    step: how many updates have been made.
    seed: where every step's random key comes from.
    params: the parameters, float32 whatever the type of the computation.
    optimiser: the optimiser's own memory.
    average: the parameters' moving average, or None where none is kept.
    """

    step: Any
    seed: Any
    params: Any
    optimiser: Any
    average: Any = None

    @property
    def best_params(self) -> Params:
        """The parameters to evaluate and to use: the average where there is one."""
        return self.params if self.average is None else self.average


def split_model(model: nnx.Module) -> tuple[nnx.GraphDef, Params]:
    """The model's structure and its parameters as a nested dict, which `nnx.merge` puts together again.

    Raises InputError where the model holds something other than parameters.
    """
    params, rest = nnx.split(model, nnx.Param, ...)[1:]
    others = sorted(".".join(map(str, path)) for path, _ in nnx.to_flat_state(rest))
    if others:
        raise InputError(
            f"{type(model).__name__} holds {', '.join(others)}, which no optimiser trains: "
            "keep only nnx.Param in the model and hand randomness in when calling it"
        )
    return nnx.split(model)[0], nnx.to_pure_dict(params)


def new_state(
    params: Params, optimiser: optax.GradientTransformation, *, seed: int = 0, ema: bool = False
) -> TrainState:
    """The state before the first step, with a moving average if `ema`; it holds copies of `params`."""
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}, expected an integer from 0 to {2**32 - 1}")
    copy = jax.tree.map(jnp.array, params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        seed=jnp.asarray(seed, jnp.uint32),
        params=copy,
        optimiser=optimiser.init(copy),
        average=jax.tree.map(jnp.array, params) if ema else None,
    )


def step_key(seed: UInt32[Array, ""], step: Int[Array, ""]) -> Key[Array, ""]:
    """The random key of one step: a function of (seed, step), so that a resumed run draws what it would have drawn."""
    return jax.random.fold_in(jax.random.key(seed), step)
