"""One step of training: loss, gradients, clipping, update, moving average."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key, PyTree

from flaxformer_edu.errors import InputError
from flaxformer_edu.training.state import Params, TrainState, step_key

Batch = dict[str, Any]
Metrics = dict[str, Array]
LossFn = Callable[[Any, Batch, nnx.Rngs], tuple[Array, Metrics]]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_step(
    graphdef: nnx.GraphDef,
    optimiser: optax.GradientTransformation,
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
        key = step_key(state.seed, state.step)
        metrics, gradients = mean_over_parts(loss_and_gradients, accumulate)(state.params, batch, key)
        if clip_norm is not None:
            gradients, metrics["gradient_norm"] = clip_by_global_norm(gradients, clip_norm)
        updates, optimiser_state = optimiser.update(gradients, state.optimiser, state.params)
        params = jax.tree.map(jnp.add, state.params, updates)
        average = None if ema_decay is None else moving_average(state.average, params, ema_decay, state.step)
        state = replace(state, step=state.step + 1, params=params, optimiser=optimiser_state, average=average)
        return state, metrics

    return step


def mean_over_parts(loss_and_gradients: Callable[..., Any], parts: int) -> Callable[..., Any]:
    """The same function computed on `parts` equal parts of the batch one after the other, and averaged.

    Part i takes every `parts`-th example from the i-th on, so that on several devices each cuts up its own examples.
    """
    if parts == 1:
        return loss_and_gradients

    def averaged(params: Params, batch: Batch, key: Key[Array, ""]) -> tuple[Metrics, Params]:
        def add_part(total: PyTree, part: tuple[Batch, Key[Array, ""]]) -> tuple[PyTree, None]:
            return jax.tree.map(jnp.add, total, loss_and_gradients(params, *part)), None

        inputs = (jax.tree.map(cut, batch), jax.random.split(key, parts))
        first = jax.tree.map(lambda x: x[0], inputs)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(loss_and_gradients, params, *first))
        total, _ = jax.lax.scan(add_part, zeros, inputs)
        return jax.tree.map(lambda x: x / parts, total)

    def cut(x: Array) -> Array:
        if x.shape[0] % parts:
            raise InputError(
                f"a batch of {x.shape[0]} cannot be cut into {parts} equal parts: "
                "choose a batch size that accumulate divides"
            )
        return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)

    return averaged


def clip_by_global_norm(gradients: Params, limit: float) -> tuple[Params, Float[Array, ""]]:
    """The gradients, scaled down where their common norm exceeds `limit`, and the norm they had."""
    norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradients)))
    scale = jnp.minimum(1, limit / norm)
    return jax.tree.map(lambda g: g * scale.astype(g.dtype), gradients), norm


def moving_average(average: Params, params: Params, decay: float, step: Int[Array, ""]) -> Params:
    """`decay` of the old average and the rest of the new parameters.

    Early on the old average weighs at most (1 + step) / (10 + step), so that the random start is soon forgotten.
    """
    count = step.astype(jnp.result_type(float))
    new = 1 - jnp.minimum(decay, (1 + count) / (10 + count))
    return jax.tree.map(lambda a, p: a + new.astype(a.dtype) * (p - a), average, params)


def compile_step(step: Step, mesh: Mesh, *, steps_per_call: int = 1) -> Step:
    """Compile `step` for the devices of `mesh`; the state handed in is overwritten.

    With `steps_per_call` above 1, batches and metrics carry a leading axis of steps, which one call works through.
    """
    run = step if steps_per_call == 1 else lambda state, batches: jax.lax.scan(step, state, batches)
    return jax.jit(run, donate_argnums=0, out_shardings=NamedSharding(mesh, PartitionSpec()))
