"""Which tokens top-k and top-p leave, against their definitions."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxformer_edu.decode import keep_top_k, keep_top_p

pytestmark = pytest.mark.no_nnx

logits = st.lists(st.integers(-30, 30), min_size=7, max_size=7, unique=True).map(lambda x: np.array(x) / 8)


@settings(max_examples=50, deadline=None)
@given(logits, st.integers(1, 9))
def test_top_k_keeps_the_k_largest(x, k):
    kept = np.asarray(keep_top_k(jnp.asarray(x, jnp.float32), k))
    largest = np.argsort(-x)[:k]
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(kept)), np.sort(largest))
    np.testing.assert_allclose(kept[largest], x[largest])


@settings(max_examples=50, deadline=None)
@given(logits, st.integers(1, 99).map(lambda percent: percent / 100))
def test_top_p_keeps_the_fewest_that_have_probability_p(x, p):
    kept = np.asarray(keep_top_p(jnp.asarray(x, jnp.float32), p))
    order = np.argsort(-x)
    sums = np.cumsum(np.exp(x[order]) / np.exp(x).sum())
    if np.abs(sums - p).min() < 1e-6:
        return
    fewest = order[: 1 + np.searchsorted(sums, p)]
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(kept)), np.sort(fewest))


def test_all_are_kept_at_the_limits():
    x = jnp.array([[1.0, 1.0, -3.0], [0.0, 5.0, 2.0]])
    np.testing.assert_array_equal(keep_top_k(x, 3), x)
    np.testing.assert_array_equal(keep_top_p(x, 1.0), x)
    assert np.isfinite(keep_top_k(x, 1)).sum() == 3, "tokens equal to the k-th stay"
