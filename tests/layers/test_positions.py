"""Positions: the laws that sinusoids and rotations obey, and their errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import (
    LearnedPositions,
    Multiplied,
    Rotary,
    SinusoidalPositions,
    apply_rope,
    sinusoidal_positions,
)

pytestmark = pytest.mark.no_nnx


def test_sinusoids_by_hand():
    table = sinusoidal_positions(3, 4)
    np.testing.assert_allclose(table[2], [np.sin(2), np.cos(2), np.sin(0.02), np.cos(0.02)])
    assert (table[0] == [0, 1, 0, 1]).all()


def change_of_score(turn, a, b, shift):
    """How much the product of a query at `a` and a key at `b` changes when both move on by `shift`."""
    with jax.enable_x64(True):
        q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8), jnp.float64)
        scores = [float((turn(q, i) * turn(k, j)).sum()) for i, j in ((a, b), (a + shift, b + shift))]
        return abs(scores[1] - scores[0])


@given(a=st.integers(0, 500), b=st.integers(0, 500), shift=st.integers(0, 500), interleaved=st.booleans())
@settings(max_examples=25, deadline=None)
def test_rotated_scores_depend_on_distance_alone(a, b, shift, interleaved):
    assert change_of_score(Rotary(interleaved=interleaved), a, b, shift) < 1e-12


@pytest.mark.parametrize(("a", "b", "shift"), [(0, 0, 1), (3, 5, 10), (300, 17, 100)])
def test_multiplied_scores_do_not(a, b, shift):
    assert change_of_score(Rotary(), a, b, shift) < 1e-12
    assert change_of_score(Multiplied(), a, b, shift) > 0.01


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotation_keeps_lengths_and_leaves_position_zero(interleaved):
    x = jax.random.normal(jax.random.key(1), (2, 400, 3, 8))
    turned = apply_rope(x, interleaved=interleaved)
    np.testing.assert_allclose(jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(turned[:, 0], x[:, 0])


def test_the_two_layouts_differ_by_a_permutation():
    x = jax.random.normal(jax.random.key(1), (2, 400, 3, 8))
    to_halves = np.array([0, 2, 4, 6, 1, 3, 5, 7])
    np.testing.assert_array_equal(apply_rope(x, interleaved=True)[..., to_halves], apply_rope(x[..., to_halves]))


def test_rotation_in_bfloat16_is_computed_in_float32():
    x = jax.random.normal(jax.random.key(1), (1, 300, 1, 8))
    np.testing.assert_allclose(apply_rope(x.astype(jnp.bfloat16)).astype(jnp.float32), apply_rope(x), atol=0.05)


@pytest.mark.usefixtures("unchecked")
class TestErrors:
    @pytest.mark.parametrize("layer", [SinusoidalPositions(4, 6), LearnedPositions(4, 6, rngs=nnx.Rngs(0))])
    def test_sequence_longer_than_the_table(self, layer):
        assert layer(jnp.ones((2, 4, 6))).shape == (2, 4, 6)
        with pytest.raises(InputError, match="5 tokens is longer than the position table of 4"):
            layer(jnp.ones((2, 5, 6)))
        with pytest.raises(InputError, match="width=6"):
            layer(jnp.ones((2, 4, 5)))

    def test_odd_heads_cannot_be_rotated(self):
        with pytest.raises(InputError, match="pairs of features, but a head has 5"):
            apply_rope(jnp.ones((1, 2, 1, 5)))
