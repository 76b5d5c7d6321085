"""The networks that read words: padding, order, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import GRU, scan_states
from flaxformer_edu.models import CharRNN, CharRNNConfig
from flaxformer_edu.models.language_id import letter_windows

NAMES = {"alphabet": "abcdefg", "languages": ("x", "y", "z")}
CONFIGS = {"project": CharRNNConfig.project(**NAMES, width=8), "gated": CharRNNConfig.gated(**NAMES, width=8)}
EACH = pytest.mark.parametrize("reader", CONFIGS)


def model(reader):
    return CharRNN(CONFIGS[reader], rngs=nnx.Rngs(0))


@EACH
class TestWords:
    def test_padding_changes_nothing(self, reader, float64):
        network, random = CharRNN(CONFIGS[reader], rngs=nnx.Rngs(0), param_dtype=jnp.float64), np.random.default_rng(0)
        letters, lengths = random.integers(0, 7, (6, 9)), np.array([9, 1, 4, 2, 7, 1])
        padded = np.where(np.arange(9) < lengths[:, None], letters, -1)
        together = network(padded)
        for word, length, logits in zip(letters, lengths, together, strict=True):
            np.testing.assert_allclose(network(word[None, :length])[0], logits, rtol=0, atol=1e-14)

    def test_padding_receives_no_gradient(self, reader):
        network = model(reader)
        words, padded = jnp.array([[1, 2, 3]]), jnp.array([[1, 2, 3, -1, -1]])
        graphdef, params = nnx.split(network)
        gradient = jax.jit(jax.grad(lambda params, x: nnx.merge(graphdef, params)(x).sum()))
        for ours, theirs in zip(*(jax.tree.leaves(gradient(params, x)) for x in (words, padded)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)

    def test_the_order_of_letters_matters(self, reader):
        there, back = model(reader)(jnp.array([[0, 1, 2, 3], [3, 2, 1, 0]]))
        assert not jnp.allclose(there, back, atol=1e-3)

    def test_refuses_other_letters_and_shapes(self, reader):
        with pytest.raises(InputError, match="letters run from 0 to 7, but the alphabet has 7"):
            model(reader)(np.array([[0, 7]]))
        with pytest.raises(InputError, match="letters run from -2"):
            model(reader)(np.array([[0, -2]]))


def test_only_the_gated_reader_drops():
    words = jnp.array([[0, 1, 2, 3]])
    for reader, drops in (("project", False), ("gated", True)):
        network = model(reader)
        trained = network(words, rngs=nnx.Rngs(dropout=1))
        assert jnp.array_equal(network(words), trained) != drops


def test_project_has_the_sizes_of_the_project():
    config = CharRNNConfig.project(alphabet="a" * 47, languages=("",) * 5)
    state = nnx.state(nnx.eval_shape(lambda: CharRNN(config, rngs=nnx.Rngs(0))), nnx.Param)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 48 * 256 + 2 * 257 * 256 + 257 * 5


@pytest.mark.no_nnx
def test_windows():
    windows = letter_windows(jnp.array([[4, 5, 6]]), 3)
    assert windows.tolist() == [[[-1, 4, 5], [4, 5, 6], [5, 6, -1]]]


def test_config_refuses_an_even_window():
    with pytest.raises(InputError, match="window is 4"):
        CharRNNConfig(**NAMES, reader="gated", width=4, window=4)


class TestRecurrence:
    @pytest.mark.no_nnx
    @settings(deadline=None, max_examples=20)
    @given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 6]), st.booleans())
    def test_scan_is_the_loop(self, seed, length, reverse):
        random = np.random.default_rng(seed)
        inputs, mask = random.normal(size=(2, length, 3)).astype(np.float32), random.random((2, length)) < 0.7
        start = np.ones((2, 3), np.float32)

        def step(h, x):
            return jnp.tanh(2 * h + x)

        last, states = scan_states(step, jnp.array(start), jnp.array(inputs), jnp.array(mask), reverse=reverse)
        h = start
        for t in reversed(range(length)) if reverse else range(length):
            h = np.where(mask[:, t, None], np.tanh(2 * h + inputs[:, t]), h)
            np.testing.assert_allclose(states[:, t], h, atol=1e-5)
        np.testing.assert_allclose(last, h, atol=1e-5)

    def test_gru_read_backwards_is_the_gru_of_the_word_turned_round(self):
        forward, backward = (GRU(3, 4, reverse=reverse, rngs=nnx.Rngs(0)) for reverse in (False, True))
        x, mask = jax.random.normal(jax.random.key(0), (2, 5, 3)), jnp.ones((2, 5), bool)
        np.testing.assert_allclose(backward(x, mask), forward(x[:, ::-1], mask)[:, ::-1], atol=1e-6)
