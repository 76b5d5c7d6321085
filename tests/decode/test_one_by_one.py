"""Greedy and sampled decoding: the same tokens as without a cache, and what happens at a row's ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decode.conftest import draw, make_captioner
from decode.whole_prefix import Scripted, WholePrefix, script
from flax import nnx

from flaxformer_edu import decode
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import CaptioningTransformer


@pytest.mark.usefixtures("float64")
def test_a_cache_changes_no_token_of_1000_prompts(case):
    model, inputs, prompt = case(1000, np.float64)
    tokens = decode.greedy(model, inputs, prompt=prompt)
    np.testing.assert_array_equal(tokens, decode.greedy(WholePrefix(model), inputs, prompt=prompt))
    assert len(np.unique(tokens, axis=0)) > 300, "the captions hardly differ: this shows little"
    assert 100 < (tokens == 2).any(axis=1).sum() < 900, "too many or too few rows end: this shows little"
    np.testing.assert_array_equal(np.where(prompt, tokens[:, : prompt.shape[1]], 0), prompt)


def test_a_step_gives_the_logits_of_the_whole_sequence(case):
    model, inputs, _ = case(1000, np.float32)
    captions = np.random.default_rng(1).integers(0, 12, (1000, 10))
    captions[:, 0] = 1
    memory, cache = model.start(inputs, 10)
    steps = []
    for position in range(10):
        logits, cache = model.step(jnp.asarray(captions[:, position]), position, memory, cache)
        steps.append(logits)
    np.testing.assert_allclose(np.stack(steps, axis=1), model(inputs, captions), atol=1e-5)


def test_greedy_is_the_courses_loop():
    model = make_captioner()
    features, _ = draw(20)
    words = np.zeros((20, 11), int)
    words[:, 0] = 1
    logits = jax.jit(lambda words: model(features, words))  # of a fixed length: one compilation, and later words hide
    for position in range(10):
        words[:, position + 1] = logits(words[:, :-1])[:, position].argmax(-1)
    ended = np.cumsum(words == 2, axis=1) - (words == 2) > 0
    assert ended[:, -1].any()
    assert not ended[:, -1].all()
    np.testing.assert_array_equal(decode.greedy(model, features), np.where(ended, 0, words)[:, 1:])


def test_a_row_is_padding_after_its_end_token():
    inputs = script([5, 2, 6, 7, 8, 8], [3, 3, 3, 3, 2, 3])
    expected = [[5, 2, 0, 0, 0, 0], [3, 3, 3, 3, 2, 0]]
    np.testing.assert_array_equal(decode.greedy(Scripted(), inputs), expected)


def test_decoding_stops_when_every_row_has_ended():
    steps = []
    decode.greedy(Scripted(stepped=steps.append), script([5, 2, 6, 7, 8, 8], [3, 3, 2, 3, 3, 3])).block_until_ready()
    assert len(steps) == 3


def test_rows_begin_with_their_prompts():
    inputs = script([5, 5, 5, 5, 5, 5], [6, 6, 6, 6, 6, 6], [7, 7, 7, 7, 7, 7], [8, 8, 8, 8, 8, 8])
    prompt = np.array([[3, 4, 0], [4, 0, 0], [0, 0, 0], [3, 2, 4]])
    expected = [[3, 4, 5, 5], [4, 6, 6, 6], [7, 7, 7, 7], [3, 2, 4, 0]]
    np.testing.assert_array_equal(decode.greedy(Scripted(), inputs, prompt=prompt, max_length=4), expected)


def test_compiled_once_for_a_batch_shape():
    traces = []
    model = Scripted(traced=lambda: traces.append(1))
    for inputs in (script([5, 2], [3, 3]), script([4, 2], [2, 3])):
        decode.greedy(model, inputs, max_length=2)
        decode.greedy(nnx.merge(*nnx.split(model)), inputs, prompt=np.array([[3], [0]]), max_length=2)
    assert len(traces) == 1
    for temperature, top_k in ((1.0, 3), (0.5, 2)):
        decode.sample(model, inputs, key=jax.random.key(0), temperature=temperature, top_k=top_k, max_length=2)
    assert len(traces) == 2


def test_a_model_in_bfloat16():
    model = make_captioner()
    half = CaptioningTransformer(model.config, rngs=nnx.Rngs(3), dtype=jnp.bfloat16)
    assert decode.greedy(half, draw(3)[0]).shape == (3, 10)


class TestSample:
    def test_frequencies_are_the_probabilities(self):
        logits = jnp.array([0.0, -1.0, -2.0, 1.0, 0.5, -9.0, 2.0, 0.0, 1.5])
        rows = 20_000
        inputs = jnp.broadcast_to(logits, (rows, 1, 9))
        tokens = decode.sample(Scripted(), inputs, key=jax.random.key(0), temperature=0.7, max_length=1)
        expected = np.asarray(jax.nn.softmax(logits / 0.7))
        frequencies = np.bincount(np.asarray(tokens).ravel(), minlength=9) / rows
        assert (np.abs(frequencies - expected) <= 4 * np.sqrt(expected * (1 - expected) / rows)).all()

    def test_positions_and_rows_draw_independently(self):
        inputs = jnp.zeros((50, 6, 9)).at[..., 2].set(-jnp.inf)
        tokens = decode.sample(Scripted(), inputs, key=jax.random.key(0))
        assert len(np.unique(tokens, axis=0)) == len(np.unique(np.transpose(tokens), axis=0)) + 44 == 50

    def test_the_key_decides(self):
        model, features = make_captioner(), draw(20)[0]
        draws = [decode.sample(model, features, key=jax.random.key(seed)) for seed in (0, 0, 1)]
        np.testing.assert_array_equal(draws[0], draws[1])
        assert (draws[0] != draws[2]).any()

    @pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-6}])
    def test_greedy_is_its_limit(self, settings):
        model, (features, prompt) = make_captioner(), draw(20)
        tokens = decode.sample(model, features, key=jax.random.key(0), prompt=prompt, **settings)
        np.testing.assert_array_equal(tokens, decode.greedy(model, features, prompt=prompt))

    def test_rare_tokens_are_left_out(self):
        inputs = jnp.broadcast_to(jnp.log(jnp.array([1, 1, 1, 30, 20, 15, 10, 1, 1]) / 80), (400, 1, 9))
        for settings, kept in (({"top_k": 2}, {3, 4}), ({"top_p": 0.8}, {3, 4, 5}), ({"top_k": 2, "top_p": 0.5}, {3})):
            tokens = decode.sample(Scripted(), inputs, key=jax.random.key(0), max_length=1, **settings)
            assert set(np.asarray(tokens).ravel().tolist()) == kept


@pytest.mark.usefixtures("unchecked")
class TestErrors:
    @pytest.mark.parametrize("max_length", [0, 7])
    def test_length(self, max_length):
        with pytest.raises(InputError, match=rf"max_length is {max_length}, but the model can write 1 to 6"):
            decode.greedy(Scripted(), script([3]), max_length=max_length)

    @pytest.mark.parametrize(
        ("prompt", "match"),
        [
            ([[3], [4]], r"expected \(batch=1, length\)"),
            ([[3] * 7], "the prompt's 7 tokens leave no room: max_length is 6"),
            ([[9]], "ids from 9 to 9, but the vocabulary has 9"),
            ([[3, 0, 4]], "pad its rows on the right"),
        ],
    )
    def test_prompt(self, prompt, match):
        with pytest.raises(InputError, match=match):
            decode.greedy(Scripted(), script([3]), prompt=np.array(prompt))

    @pytest.mark.parametrize("settings", [{"temperature": 0}, {"top_k": 0}, {"top_p": 0}, {"top_p": 1.5}])
    def test_sampling(self, settings):
        with pytest.raises(InputError, match=f"{next(iter(settings))} is .*, expected"):
            decode.sample(Scripted(), script([3]), key=jax.random.key(0), **settings)
