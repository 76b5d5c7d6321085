"""Rollout and shares of patches: by hand, and the sums that hold for any weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxformer_edu.layers import attention_rollout, patch_shares

SCORES = np.random.default_rng(0).normal(size=(3, 2, 4, 6, 6))  # layer batch head length length


def softmax(scores):
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@given(sharpness=st.floats(0, 100))
@settings(max_examples=20, deadline=None)
def test_rows_of_a_rollout_add_up_to_1(sharpness):
    rollout = attention_rollout(softmax(sharpness * SCORES))
    assert rollout.shape == (2, 6, 6)
    np.testing.assert_allclose(rollout.sum(axis=-1), 1, atol=1e-6)


def test_rollout_by_hand(float64):
    """Two tokens, two layers; the first layer's heads have the mean [[1, 0], [1/2, 1/2]]."""
    first = np.array([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    second = np.array([[[0.0, 1.0], [1.0, 0.0]]] * 2)
    # 0.5 W + 0.5 I: [[1, 0], [1/4, 3/4]], then [[1/2, 1/2], [1/2, 1/2]]; the second one times the first:
    expected = [[0.625, 0.375], [0.625, 0.375]]
    np.testing.assert_allclose(attention_rollout(np.stack([first, second])[:, None])[0], expected, atol=1e-15)


def test_the_last_layer_stands_leftmost(float64):
    layers = softmax(SCORES)
    mixed = [(w.mean(axis=1) + np.eye(6)) / 2 for w in layers]
    np.testing.assert_allclose(attention_rollout(layers), mixed[2] @ mixed[1] @ mixed[0], atol=1e-15)


def test_tokens_that_look_at_themselves_mix_nothing():
    eye = jnp.broadcast_to(jnp.eye(6), (3, 2, 4, 6, 6))
    np.testing.assert_array_equal(attention_rollout(eye)[0], jnp.eye(6))


def test_shares_by_hand(float64):
    w = np.array([[[0.5, 0.2, 0.3], [0.1, 0.8, 0.1], [0.6, 0.2, 0.2]]])
    np.testing.assert_allclose(patch_shares(w, prefix=1, class_token=True)[0], [0.4, 0.6])
    np.testing.assert_allclose(patch_shares(w, prefix=1, class_token=False)[0], [1 / 1.3, 0.3 / 1.3])
    np.testing.assert_allclose(patch_shares(w, prefix=0, class_token=False)[0], [0.4, 0.4, 0.2])


@pytest.mark.parametrize(("prefix", "class_token"), [(0, False), (1, True), (2, True), (1, False)])
def test_shares_add_up_to_1(prefix, class_token):
    shares = patch_shares(jax.nn.softmax(SCORES), prefix=prefix, class_token=class_token)
    assert shares.shape == (3, 2, 4, 6 - prefix)
    np.testing.assert_allclose(shares.sum(axis=-1), 1, atol=1e-6)
