"""Checkpoints give back every bit, or say what does not fit."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training.tiny import Source, assert_same, loss_fn, tiny

from flaxformer_edu.errors import InputError
from flaxformer_edu.runs import Checkpoints
from flaxformer_edu.training import TrainState, compile_step, data_mesh, make_step, new_state, split_model


def state_of(model=None, *, step=3, ema=True):
    state = new_state(split_model(model or tiny())[1], optax.adam(1e-2), seed=2**32 - 1, ema=ema)
    return replace(state, step=jnp.asarray(step, jnp.int32))


@pytest.mark.parametrize("ema", [False, True])
def test_round_trip(tmp_path, ema):
    state = state_of(ema=ema)
    half = replace(state, params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.params))
    for saved in (state, replace(half, step=jnp.asarray(4, jnp.int32))):
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(int(saved.step), saved.groups)
        with Checkpoints(tmp_path) as checkpoints:
            restored = TrainState.from_groups(checkpoints.restore(saved.groups, checkpoints.latest))
        assert_same(restored, saved)
        assert jax.tree.map(lambda x: x.dtype, restored) == jax.tree.map(lambda x: x.dtype, saved)


def test_what_is_saved_is_the_state_before_the_next_step(tmp_path):
    """Saving goes on in the background while the next step overwrites the state."""
    graphdef, params = split_model(tiny())
    optimizer = optax.adam(1e-2)
    advance = compile_step(make_step(graphdef, optimizer, loss_fn), data_mesh(8))
    state, _ = advance(new_state(params, optimizer), Source()(0))
    expected = jax.tree.map(np.array, state)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(int(state.step), state.groups)
        for step in range(1, 20):
            state, _ = advance(state, Source()(step))
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore(expected.groups, 1), expected.groups)


@pytest.mark.parametrize(("best_is", "best"), [("lowest", 2), ("highest", 4)])
def test_the_latest_and_the_best_are_kept(tmp_path, best_is, best):
    """Also by a second process. Without an evaluation, or with one that is not finite, none is ever the best."""
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: 5.0, 5: 2.0, 6: float("nan"), 7: None}
    for step, loss in losses.items():
        with Checkpoints(tmp_path, best_is=best_is) as checkpoints:
            checkpoints.save(step, state_of(step=step).groups, None if loss is None else {"loss": loss})
    with Checkpoints(tmp_path, best_is=best_is) as checkpoints:
        assert (checkpoints.latest, checkpoints.best) == (7, best)
    folders = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert folders == {"7", str(best)}


def test_without_evaluations_the_best_is_the_latest(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest is None
        for step in (1, 2):
            checkpoints.save(step, state_of(step=step).groups)
        checkpoints.wait()
        assert (checkpoints.latest, checkpoints.best) == (2, 2)


def test_parameters_of_another_model_are_refused(tmp_path):
    saved = state_of(ema=False)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(int(saved.step), saved.groups)
    params = {**saved.params, "extra": {"bias": jnp.zeros(2)}}
    params["head"] = {"kernel": jnp.zeros((9, 4)), "bias": jnp.zeros(4, jnp.bfloat16)}
    del params["layers"]
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(InputError) as error:
        checkpoints.restore(replace(saved, params=params).groups, 3)
    for text in (
        "extra.bias is missing",
        "layers.0.kernel is not part of the model",
        "head.bias is float32[4], expected bfloat16[4]",
        "head.kernel is float32[10, 4], expected float32[9, 4]",
        "checkpoints/3/params does not fit",
    ):
        assert text in str(error.value)


def test_the_average_is_what_is_used(tmp_path):
    state = state_of()
    state = replace(state, average=jax.tree.map(lambda x: x + 1, state.params))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(int(state.step), state.groups)
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore_params(state.params, 3), state.average)
