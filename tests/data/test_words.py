"""The bundled words, and words as arrays of letters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaxformer_edu.data import ALPHABET, LANGUAGES, decode_word, encode_words, load_lang_id, load_words, split_of
from flaxformer_edu.data.words import WORDS_FILE
from flaxformer_edu.data.words.lang_id import PADDING
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx


@pytest.fixture(scope="module")
def words():
    return load_words()


def test_the_file_is_small_and_its_licence_beside_it():
    assert WORDS_FILE.stat().st_size <= 200_000
    assert "Attribution-ShareAlike 4.0" in WORDS_FILE.with_name("LICENSE.md").read_text()


def test_splits_share_no_word(words):
    texts = [decode_word(word, tuple(ALPHABET)) for split in words.values() for word in split["words"]]
    assert len(texts) == len(set(texts)) == 65_000
    assert {len(text) for text in texts} == set(range(2, 13))
    assert {split: len(part) for split, part in words.items()} == {"train": 58_558, "dev": 3_189, "test": 3_253}


def test_every_language_has_its_words(words):
    for part in words.values():
        counts = np.bincount(part["labels"], minlength=5)
        assert counts.min() > 0.9 * counts.max()
    train = words["train"]
    assert train.class_names == tuple(LANGUAGES.values())
    finnish = train["words"][train["labels"] == 2]
    assert "hyvää" in {decode_word(word, train.metadata["chars"]) for word in finnish}


def test_has_the_form_of_lang_id(words, real_data):
    theirs = load_lang_id(real_data / "lang_id")["train"]
    assert "".join(theirs.metadata["chars"]) == ALPHABET
    assert theirs.class_names == words["train"].class_names
    assert theirs.metadata["language_codes"] == words["train"].metadata["language_codes"]
    for name, array in theirs.arrays.items():
        assert words["train"][name].dtype == array.dtype
        assert words["train"][name].ndim == array.ndim


def test_the_split_of_a_word_never_changes():
    assert [split_of(word) for word in ("the", "hyvää", "bandos")] == ["train", "train", "train"]
    counts = np.unique([split_of(str(number)) for number in range(2000)], return_counts=True)
    assert dict(zip(*counts, strict=True)) == pytest.approx({"dev": 100, "test": 100, "train": 1800}, abs=40)


@given(st.lists(st.text(ALPHABET, min_size=1, max_size=20), min_size=1, max_size=5))
def test_encoding_is_undone_by_decoding(words):
    encoded = encode_words(words)
    assert encoded.shape == (len(words), max(map(len, words)))
    assert [decode_word(word, tuple(ALPHABET)) for word in encoded] == words


def test_capitals_and_accents_are_folded():
    assert encode_words(["ŻÓŁĆ"]).tolist() == encode_words(["żółć"]).tolist()
    assert encode_words(["cafe\u0301"]).tolist() == encode_words(["café"]).tolist()
    assert encode_words(["ab", "a"]).tolist() == [[0, 1], [0, PADDING]]


def test_words_that_cannot_be_written():
    with pytest.raises(InputError, match="'naïve2go' has '2', which the alphabet abc"):
        encode_words(["fine", "naïve2go"])
    with pytest.raises(InputError, match="'Straße' has 'ß'"):
        encode_words(["Straße"])
    with pytest.raises(InputError, match="a word is empty"):
        encode_words(["a", ""])
