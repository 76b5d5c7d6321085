"""One step of training: loss, gradient, clipping, update, moving average; and the state that it changes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Key, PyTree, UInt32

from flaxformer_edu.errors import InputError
from flaxformer_edu.training.mesh import mean_over_parts

Params = dict[Any, Any]  # nested, as the model: {"head": {"kernel": array, "bias": array}, "blocks": {0: ...}}
Batch = dict[str, Any]
Metrics = dict[str, Array]
LossFn = Callable[[Any, Batch, nnx.Rngs], tuple[Array, Metrics]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class TrainState:
    """What one step changes. With the batch source and the configuration it decides all the steps that follow.

    step: how many updates have been made.
    seed: where every step's random key comes from.
    params: the parameters, float32 whatever the type of the computation.
    optimizer: the optimizer's own memory.
    average: the parameters' moving average, or None where none is kept.
    """

    step: Any
    seed: Any
    params: Any
    optimizer: Any
    average: Any = None

    @property
    def best_params(self) -> Params:
        """The parameters to evaluate and to use: the average where there is one."""
        return self.params if self.average is None else self.average

    @property
    def groups(self) -> dict[str, Any]:
        """What a checkpoint keeps, each group for itself: `from_groups` puts them together again."""
        rest = {"step": self.step, "seed": self.seed, "optimiser": self.optimizer}  # spelled as on the disk
        return {"params": self.params, "average": self.average, "training": rest}

    @classmethod
    def from_groups(cls, groups: dict[str, Any]) -> "TrainState":
        """The inverse of `groups`."""
        rest = groups["training"]
        own = {"step": rest["step"], "seed": rest["seed"], "optimizer": rest["optimiser"]}
        return cls(params=groups["params"], average=groups["average"], **own)


Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def new_state(
    params: Params, optimizer: optax.GradientTransformation, *, seed: int = 0, ema: bool = False
) -> TrainState:
    """The state before the first step, with a moving average if `ema`; it holds copies of `params`."""
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}, expected an integer from 0 to {2**32 - 1}")
    copy = jax.tree.map(jnp.array, params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        seed=jnp.asarray(seed, jnp.uint32),
        params=copy,
        optimizer=optimizer.init(copy),
        average=jax.tree.map(jnp.array, params) if ema else None,
    )


def step_key(seed: UInt32[Array, ""], step: Int[Array, ""]) -> Key[Array, ""]:
    """The random key of one step: a function of (seed, step), so that a resumed run draws what it would have drawn."""
    return jax.random.fold_in(jax.random.key(seed), step)


def make_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    loss_fn: LossFn,
    *,
    accumulate: int = 1,
    clip_norm: float | None = None,
    ema_decay: float | None = None,
) -> Step:
    """A pure function `(state, batch) -> (state, metrics)`; `compile_step` makes it fast.

    `loss_fn(model, batch, rngs)` returns the batch's mean loss and a dict of further means. `accumulate` cuts the batch
    into that many parts and averages their gradients, which needs less memory and equals the whole batch's gradient.
    `clip_norm` shortens the gradient to that global norm (Pascanu et al. 2013); `ema_decay` keeps a moving average of
    the parameters in `state.average`.
    """

    def loss_and_gradients(params: Params, batch: Batch, key: Key[Array, ""]) -> tuple[Metrics, Params]:
        def loss_of(params: Params) -> tuple[Array, Metrics]:
            return loss_fn(nnx.merge(graphdef, params), batch, nnx.Rngs(key))

        (loss, metrics), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        return {"loss": loss, **metrics}, gradients

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        compute = loss_and_gradients if accumulate == 1 else mean_over_parts(loss_and_gradients, accumulate)
        metrics, gradients = compute(state.params, batch, step_key(state.seed, state.step))
        if clip_norm is not None:
            metrics["gradient_norm"] = optax.tree.norm(gradients)
            gradients, _ = optax.clip_by_global_norm(clip_norm).update(gradients, optax.EmptyState())
        updates, memory = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        average = None if ema_decay is None else moving_average(state.average, params, ema_decay, state.step)
        return replace(state, step=state.step + 1, params=params, optimizer=memory, average=average), metrics

    return step


def moving_average(average: PyTree, params: PyTree, decay: float, step: Int[Array, ""]) -> PyTree:
    """`decay` of the old average and the rest of the new parameters.

    Early on the old average weighs at most (1 + step) / (10 + step), so that the random start is soon forgotten.
    """
    count = step.astype(jnp.result_type(float))
    new = 1 - jnp.minimum(decay, (1 + count) / (10 + count))
    return optax.tree.cast_like(optax.incremental_update(params, average, new), average)


def compile_step(step: Step, mesh: Mesh, *, steps_per_call: int = 1) -> Step:
    """Compile `step` for the devices of `mesh`; the state handed in is overwritten.

    With `steps_per_call` above 1, batches and metrics carry a leading axis of steps, which one call works through.
    """
    run = step if steps_per_call == 1 else lambda state, batches: jax.lax.scan(step, state, batches)
    return jax.jit(run, donate_argnums=0, out_shardings=NamedSharding(mesh, PartitionSpec()))
