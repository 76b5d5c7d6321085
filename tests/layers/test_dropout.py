"""Dropout: the right rate, independent masks, and masks handed in from outside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import FeedForward, RecordedMasks, dropout, hashed_mask
from flaxformer_edu.reference import TorchGenerator

ONES = jnp.ones((300, 400))


def correlation(a, b):
    """In standard deviations: two independent masks give a draw from N(0, 1)."""
    a, b = (np.asarray(x, np.float64).ravel() for x in (a, b))
    return (a - a.mean()) @ (b - b.mean()) / (a.std() * b.std() * np.sqrt(a.size))


@given(seed=st.integers(0, 2**31), rate=st.floats(0.01, 0.99))
@settings(max_examples=30, deadline=None)
def test_rate(seed, rate):
    keep = hashed_mask(jax.random.key(seed), ONES.shape, 1 - rate)
    assert abs(keep.mean() - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / ONES.size)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_any_kind_of_key(impl):
    key = jax.random.key(3, impl=impl)
    mask = hashed_mask(key, (1000,), 0.5)
    assert 400 < mask.sum() < 600
    np.testing.assert_array_equal(mask, hashed_mask(jax.random.key_data(key), (1000,), 0.5))


def test_scale_and_evaluation():
    dropped = dropout(ONES, 0.2, nnx.Rngs(0))
    assert set(np.unique(dropped)) == {0, np.float32(1 / 0.8)}
    assert dropout(ONES, 0.2) is ONES
    assert dropout(ONES, 0.0, nnx.Rngs(0)) is ONES
    assert dropout(ONES.astype(jnp.bfloat16), 0.2, nnx.Rngs(0)).dtype == jnp.bfloat16


@given(seed=st.integers(0, 2**31 - 1))
@settings(max_examples=20, deadline=None)
def test_masks_are_independent(seed):
    """Between neighbouring keys, between the calls of one source, and between shifted positions of one mask."""
    key, neighbour = jax.random.key(seed), jax.random.key(seed + 1)
    mask = hashed_mask(key, ONES.shape, 0.7)
    assert abs(correlation(mask, hashed_mask(neighbour, ONES.shape, 0.7))) < 5
    rngs = nnx.Rngs(dropout=key)
    first, second = (dropout(ONES, 0.3, rngs) != 0 for _ in range(2))
    assert abs(correlation(first, second)) < 5
    for shift in (1, 2, 16, 400):
        assert abs(correlation(mask.ravel()[shift:], mask.ravel()[:-shift])) < 5


def test_keys_that_differ_in_one_bit_give_independent_masks():
    base = jnp.array([5, 77], jnp.uint32)
    mask = hashed_mask(base, ONES.shape, 0.5)
    for word in range(2):
        for bit in range(32):
            other = base.at[word].set(base[word] ^ jnp.uint32(1 << bit))
            assert abs(correlation(mask, hashed_mask(other, ONES.shape, 0.5))) < 5


def test_layers_and_steps_draw_their_own_masks():
    layers = [FeedForward(8, 16, dropout=0.5, rngs=nnx.Rngs(0)) for _ in range(2)]
    x = jnp.ones((1, 8))

    def step(number):
        rngs = nnx.Rngs(dropout=jax.random.fold_in(jax.random.key(0), number))
        return np.stack([layer(x, rngs=rngs) for layer in layers])

    first, again, second = step(1), step(1), step(2)
    np.testing.assert_array_equal(first, again)
    assert (first != second).all()
    assert (first[0] != first[1]).all()


def test_same_key_same_mask_inside_and_outside_of_jit():
    def run(key):
        return dropout(ONES, 0.3, nnx.Rngs(dropout=key))

    key = jax.random.key(9)
    np.testing.assert_array_equal(run(key), jax.jit(run)(key))


def test_replays_masks():
    masks = [np.array([True, False]), np.array([False, True])]
    source = RecordedMasks(masks)
    x = jnp.array([3.0, 5.0])
    np.testing.assert_array_equal(dropout(x, 0.5, source), [6, 0])
    np.testing.assert_array_equal(dropout(x, 0.5, source), [0, 10])
    with pytest.raises(InputError, match="ended"):
        dropout(x, 0.5, source)
    with pytest.raises(InputError, match=r"mask 0 has shape \(2,\), the model asks for \(3,\)"):
        dropout(jnp.ones(3), 0.5, RecordedMasks(masks))


def test_pytorch_generator_is_a_source():
    x = jnp.ones((4, 50))
    expected = TorchGenerator(7, dropout="mkl").bernoulli((4, 50), 0.9)
    np.testing.assert_array_equal(dropout(x, 0.1, TorchGenerator(7, dropout="mkl")) != 0, expected)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 7, float("nan")])
def test_wrong_rate(rate):
    with pytest.raises(InputError, match="rate"):
        dropout(ONES, rate, nnx.Rngs(0))
