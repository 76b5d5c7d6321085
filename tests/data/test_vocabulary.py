"""Vocabularies of characters and of sub-words: exact inverses, equal after a round trip through JSON."""

import builtins
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxformer_edu.data import Characters, Subwords, decode_texts, encode_texts, open_vocabulary
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx

TEXTS = ["the cat sat on the mat", "the  dog, the cats", " a café at the hat ", "那 猫"]
CHARACTERS = Characters.of(TEXTS)


@pytest.fixture(scope="module")
def subwords():
    pytest.importorskip("tokenizers")
    return Subwords.learn(TEXTS, 45)


@pytest.fixture(params=["characters", "subwords"])
def vocabulary(request):
    return CHARACTERS if request.param == "characters" else request.getfixturevalue("subwords")


def test_texts_come_back(vocabulary):
    ids = encode_texts(TEXTS, vocabulary, start=True)
    assert decode_texts(ids, vocabulary) == TEXTS
    assert (ids[:, 0] == 1).all()
    assert ((ids == 2).sum(axis=1) == 1).all()
    assert ids.max() < len(vocabulary)
    assert not ids[3, len(vocabulary.encode(TEXTS[3])) + 2 :].any()


@settings(max_examples=50, deadline=None)
@given(st.text(CHARACTERS.alphabet, max_size=20))
def test_any_text_of_known_characters_comes_back(text):
    vocabulary = Subwords.learn(TEXTS, 45)
    assert vocabulary.decode([*vocabulary.encode(text), 2, 7]) == text
    assert CHARACTERS.decode([*CHARACTERS.encode(text), 2, 7]) == text


def test_notes_open_the_same_vocabulary(vocabulary):
    again = open_vocabulary(json.loads(json.dumps(vocabulary.notes)))
    assert len(again) == len(vocabulary)
    assert [again.encode(text) for text in TEXTS] == [vocabulary.encode(text) for text in TEXTS]


def test_subwords_are_learned_and_words_kept_apart(subwords):
    assert len(subwords) == 45
    pieces = [subwords.decode([i]) for i in subwords.encode("the cat sat on the mat")]
    assert " the" in pieces
    assert len(pieces) < 12
    assert not any(" " in piece[1:] for piece in pieces)
    assert subwords.notes == Subwords.learn(TEXTS, 45).notes


def test_characters_beyond_the_texts(subwords):
    assert "z" in Subwords.learn(TEXTS, 45, alphabet="z").alphabet
    for vocabulary in (CHARACTERS, subwords):
        with pytest.raises(InputError, match="'Zebra zoo' has 'Zbrz', but the vocabulary's characters are"):
            vocabulary.encode("Zebra zoo")


def test_an_accent_and_its_letter_are_one():
    assert CHARACTERS.encode("cafe\u0301") == CHARACTERS.encode("café")
    assert len(CHARACTERS.encode("cafe\u0301")) == 4
    assert "\u0301" not in Characters.of(["cafe\u0301"]).alphabet


def test_too_few_subwords():
    pytest.importorskip("tokenizers")
    with pytest.raises(InputError, match="19 sub-words are too few: with each character alone there are 20"):
        Subwords.learn(TEXTS, 19)


def test_notes_of_another_kind():
    with pytest.raises(InputError, match="a vocabulary is described by words, expected characters or tokenizer"):
        open_vocabulary({"words": ["a"]})


def test_no_texts():
    assert encode_texts([], CHARACTERS).shape == (0, 0)
    np.testing.assert_array_equal(encode_texts([""], CHARACTERS), [[2]])


def test_tokenizers_missing(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **more):
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for use in (lambda: Subwords.learn(TEXTS, 45), lambda: open_vocabulary({"tokenizer": "{}"})):
        with pytest.raises(InputError, match="pip install tokenizers"):
            use()
