"""The step: what it computes, and that (seed, step) decide its randomness."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from training.tiny import Source, Tiny, TinyConfig, assert_close, assert_same, loss_fn, tiny

from flaxformer_edu.errors import InputError
from flaxformer_edu.training import compile_step, data_mesh, make_step, new_state, split_model


def run(steps=3, *, model=None, optimizer=None, source=None, seed=0, **options):
    """The state and the last metrics after some steps."""
    graphdef, params = split_model(model or tiny())
    optimizer = optimizer or optax.adam(1e-2)
    step = jax.jit(make_step(graphdef, optimizer, loss_fn, **options))
    state = new_state(params, optimizer, seed=seed, ema="ema_decay" in options)
    source = source or Source()
    for i in range(steps):
        state, metrics = step(state, source(i))
    return state, metrics


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulation_equals_the_whole_batch(float64, parts):
    model = tiny(param_dtype=jnp.float64)
    source = Source(dtype=np.float64)
    whole = run(model=model, source=source)
    in_parts = run(model=model, source=source, accumulate=parts)
    assert_close(in_parts, whole, 1e-14)


def test_parts_of_a_batch_draw_their_own_masks():
    """Two parts with the same example: their outputs differ, so the mean of squares exceeds the square of the mean."""

    def with_square(model, batch, rngs):
        output = model(batch["inputs"], rngs=rngs).mean()
        return output, {"square": output**2}

    twice = {name: jnp.repeat(x[:1], 2, axis=0) for name, x in Source()(0).items()}
    graphdef, params = split_model(tiny(rate=0.5))
    state = new_state(params, optax.sgd(0.0))
    _, metrics = make_step(graphdef, optax.sgd(0.0), with_square, accumulate=2)(state, twice)
    assert metrics["square"] > 1.01 * metrics["loss"] ** 2


def test_a_batch_that_cannot_be_cut_evenly():
    with pytest.raises(InputError, match="a batch of 8 cannot be cut into 3 equal parts"):
        run(accumulate=3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=9), st.floats(0.125, 100, width=32))
def test_clipping_agrees_with_torch(values, limit):
    """A loss whose gradient is given, and a step down its whole length."""
    gradients = {"kernel": jnp.asarray(values), "bias": jnp.asarray(values[-1:])}

    class Zeros(nnx.Module):
        def __init__(self):
            self.kernel, self.bias = nnx.Param(jnp.zeros(len(values))), nnx.Param(jnp.zeros(1))

    def given_gradient(model, batch, rngs):
        return model.kernel @ gradients["kernel"] + model.bias @ gradients["bias"], {}

    graphdef, params = split_model(Zeros())
    step = make_step(graphdef, optax.sgd(1.0), given_gradient, clip_norm=limit)
    state, metrics = step(new_state(params, optax.sgd(1.0)), {})
    clipped, norm = jax.tree.map(jnp.negative, state.params), metrics["gradient_norm"]
    tensors = {name: torch.nn.Parameter(torch.zeros(x.shape)) for name, x in gradients.items()}
    for name, tensor in tensors.items():
        tensor.grad = torch.tensor(np.array(gradients[name]))
    expected = torch.nn.utils.clip_grad_norm_(tensors.values(), limit)
    np.testing.assert_allclose(norm, expected, rtol=1e-5)
    for name, tensor in tensors.items():
        np.testing.assert_allclose(clipped[name], tensor.grad, rtol=2e-5, atol=1e-30)


def test_the_clipped_gradient_is_what_the_optimizer_gets():
    before = split_model(tiny())[1]
    state, metrics = run(1, optimizer=optax.sgd(1.0), clip_norm=1e-3)
    moved = optax.tree.norm(jax.tree.map(jnp.subtract, before, state.params))
    assert metrics["gradient_norm"] > 0.1
    np.testing.assert_allclose(moved, 1e-3, rtol=1e-3)


def test_moving_average_follows_its_recurrence(float64):
    graphdef, average = split_model(tiny(param_dtype=jnp.float64))
    step = jax.jit(make_step(graphdef, optax.sgd(1e-2), loss_fn, ema_decay=0.5))
    state, batch = new_state(average, optax.sgd(1e-2), ema=True), Source(dtype=np.float64)(0)
    for count in range(12):
        state, _ = step(state, batch)
        decay = min(0.5, (1 + count) / (10 + count))
        average = jax.tree.map(lambda a, p, d=decay: d * a + (1 - d) * p, average, state.params)
        assert_close(state.average, average, 1e-14)
    assert state.best_params is state.average


def test_several_steps_a_call_equal_single_ones(float64):
    model, source = tiny(rate=0.3, param_dtype=jnp.float64), Source(dtype=np.float64)
    graphdef, params = split_model(model)
    optimizer = optax.adam(1e-2)
    several = compile_step(make_step(graphdef, optimizer, loss_fn), data_mesh(8), steps_per_call=3)
    batches = [source(i) for i in range(3)]
    stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    state, metrics = several(new_state(params, optimizer), stacked)
    expected, last = run(3, model=model, source=source)
    assert metrics["loss"].shape == (3,)
    assert_close((state, metrics["loss"][-1]), (expected, last["loss"]), 1e-14)


def test_the_step_alone_decides_the_masks():
    """A state that has forgotten how it came to step 5 draws what it would have drawn."""
    graphdef, params = split_model(tiny(rate=0.5))
    optimizer = optax.sgd(0.0)
    step = jax.jit(make_step(graphdef, optimizer, loss_fn))
    state, losses, batch = new_state(params, optimizer, seed=7), [], Source()(0)
    for _ in range(8):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert len(set(losses)) == 8
    fresh = replace(new_state(params, optimizer, seed=7), step=jnp.asarray(5, jnp.int32))
    assert float(step(fresh, batch)[1]["loss"]) == losses[5]
    other_seed = replace(fresh, seed=jnp.asarray(8, jnp.uint32))
    assert float(step(other_seed, batch)[1]["loss"]) not in losses


def test_half_precision_compute_leaves_the_state_in_float32():
    model = tiny(dtype=jnp.bfloat16)
    state, metrics = run(model=model, ema_decay=0.9, accumulate=2, clip_norm=1.0)
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype for x in floats} == {jnp.dtype("float32")}
    assert metrics["loss"].dtype == jnp.float32
    assert model(Source()(0)["inputs"]).dtype == jnp.bfloat16


def test_parameters_in_half_precision_stay_so():
    state, _ = run(model=tiny(param_dtype=jnp.bfloat16), optimizer=optax.sgd(1e-2), ema_decay=0.9, clip_norm=1.0)
    kept = jax.tree.leaves((state.params, state.average))
    assert {x.dtype for x in kept} == {jnp.dtype("bfloat16")}


def test_the_state_handed_in_is_overwritten_and_the_model_is_not():
    model = tiny()
    graphdef, params = split_model(model)
    optimizer = optax.adam(1e-2)
    advance = compile_step(make_step(graphdef, optimizer, loss_fn), data_mesh(8))
    before = new_state(params, optimizer)
    state, _ = advance(before, Source()(0))
    assert all(x.is_deleted() for x in jax.tree.leaves(before.params))
    assert_same(split_model(model)[1], split_model(tiny())[1])
    assert int(state.step) == 1


def test_a_model_that_stores_randomness_is_refused():
    class Stores(Tiny):
        def __init__(self, config, *, rngs):
            super().__init__(config, rngs=rngs)
            self.dropout = nnx.Dropout(0.1, rngs=nnx.Rngs(0))

    with pytest.raises(InputError, match=r"Stores holds dropout.*keep only nnx\.Param"):
        split_model(Stores(TinyConfig(), rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range(seed):
    with pytest.raises(InputError, match=f"seed is {seed}"):
        run(1, seed=seed)
