"""Beam search: against exhaustive search, greedy decoding, decoding without a cache, and the model's own scores."""

from itertools import product

import numpy as np
import pytest
from decode.conftest import draw, log_probs, make_captioner
from decode.whole_prefix import Scripted, WholePrefix, script

from flaxformer_edu import decode
from flaxformer_edu.errors import InputError


def generated(tokens: np.ndarray, prompt: np.ndarray) -> np.ndarray:
    """True for the tokens that the model wrote: behind the prompt, up to the end token."""
    ended = np.cumsum(tokens == 2, axis=-1) - (tokens == 2) > 0
    given = np.zeros(tokens.shape, bool)
    given[:, : prompt.shape[1]] = prompt != 0
    return ~ended & ~given


@pytest.mark.usefixtures("float64")
def test_a_cache_changes_no_beam_of_1000_prompts(case):
    model, inputs, prompt = case(1000, np.float64)
    cached = decode.beam_search(model, inputs, width=3, length_penalty=0.6, prompt=prompt)
    recomputed = decode.beam_search(WholePrefix(model), inputs, width=3, length_penalty=0.6, prompt=prompt)
    np.testing.assert_array_equal(cached.tokens, recomputed.tokens)
    np.testing.assert_allclose(cached.scores, recomputed.scores, rtol=1e-12)
    greedy = decode.greedy(model, inputs, prompt=prompt)
    assert (cached.tokens[:, 0] != greedy).any(axis=1).sum() > 100, "the search finds what greedy finds: shows little"


@pytest.mark.usefixtures("float64")
def test_width_1_is_greedy(case):
    model, inputs, prompt = case(1000, np.float64)
    for penalty in (0.0, 1.0):
        beams = decode.beam_search(model, inputs, width=1, length_penalty=penalty, prompt=prompt)
        np.testing.assert_array_equal(beams.tokens[:, 0], decode.greedy(model, inputs, prompt=prompt))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("penalty", [0.0, 0.8])
def test_scores_are_the_models_own(case, penalty):
    model, inputs, prompt = case(50, np.float64)
    beams = decode.beam_search(model, inputs, width=4, length_penalty=penalty, prompt=prompt)
    assert (np.diff(beams.scores, axis=1) <= 0).all()
    for beam in range(4):
        tokens = np.asarray(beams.tokens[:, beam])
        written = generated(tokens, prompt)
        totals = np.where(written, log_probs(model, inputs, tokens), 0).sum(axis=1)
        expected = totals / ((5 + written.sum(axis=1)) / 6) ** penalty
        np.testing.assert_allclose(beams.scores[:, beam], expected, rtol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_the_full_width_finds_what_exhaustive_search_finds(penalty):
    length, width = 5, 4**4  # as many as there are prefixes before the last step: none is lost
    model = make_captioner(np.float64, vocab=4, max_length=length)
    features, _ = draw(3, dtype=np.float64)
    ends = [(*words, 2)[: (*words, 2).index(2) + 1][:length] for words in product(range(4), repeat=length)]
    sequences = np.array([[*words, *[0] * (length - len(words))] for words in dict.fromkeys(ends)])
    lengths = np.array([len(words) for words in dict.fromkeys(ends)])
    beams = decode.beam_search(model, features, width=width, length_penalty=penalty)
    for row in range(3):
        each = log_probs(model, np.repeat(features[row : row + 1], len(sequences), axis=0), sequences)
        scores = np.where(np.arange(length) < lengths[:, None], each, 0).sum(axis=1) / ((5 + lengths) / 6) ** penalty
        best = np.argsort(-scores, kind="stable")[:width]
        np.testing.assert_allclose(beams.scores[row], scores[best], rtol=1e-12)
        np.testing.assert_array_equal(beams.tokens[row, :10], sequences[best[:10]])


def test_the_sequences_of_a_row_differ():
    features, prompt = draw(20)
    tokens = np.asarray(decode.beam_search(make_captioner(), features, width=5, prompt=prompt).tokens)
    assert all(len(np.unique(row, axis=0)) == 5 for row in tokens)


def test_places_that_no_sequence_fills_score_minus_infinity():
    beams = decode.beam_search(Scripted(), script([3, 3]), width=12, max_length=1)
    np.testing.assert_array_equal(np.isneginf(beams.scores), [[False] * 9 + [True] * 3])


def test_the_search_stops_when_every_beam_has_ended():
    steps = []
    inputs = script([2, 2, 2, 2, 2, 2])
    beams = decode.beam_search(Scripted(stepped=steps.append), inputs, width=2)
    assert (beams.tokens[0, 0] == np.array([2, 0, 0, 0, 0, 0])).all()
    assert len(steps) == 2, "the first ends one beam, the second the other"


def test_longer_sequences_win_with_a_length_penalty():
    logits = np.full((1, 3, 9), -20.0)
    logits[0, 0, [2, 5]] = np.log([0.4, 0.6])
    logits[0, 1, [5, 6]] = np.log([0.6, 0.4])
    logits[0, 2, 2] = 0
    for penalty, best in ((0.0, [2, 0, 0]), (1.0, [5, 5, 2])):
        beams = decode.beam_search(Scripted(), logits.astype(np.float32), length_penalty=penalty, max_length=3)
        np.testing.assert_array_equal(beams.tokens[0, 0], best)


@pytest.mark.usefixtures("unchecked")
def test_width_0():
    with pytest.raises(InputError, match="width is 0, expected 1 or more"):
        decode.beam_search(Scripted(), script([3]), width=0)
