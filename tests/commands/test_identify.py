"""`flaxformer-edu identify`, with the model that comes with the package."""

import io
import json
import sys

import numpy as np
import pytest
from flax import nnx

from flaxformer_edu.commands.identify import (
    BUNDLED_MODEL,
    LETTERS_PER_CALL,
    LONGEST_WORD,
    classify,
    identify,
    open_network,
    padded_parts,
)
from flaxformer_edu.data import ALPHABET, decode_word, load_words
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import MLP, MLPConfig
from flaxformer_edu.runs import save_model


@pytest.fixture(scope="module")
def network():
    return open_network(None)


def test_the_bundled_model_is_small_and_good(network):
    assert BUNDLED_MODEL.stat().st_size <= 700_000
    test = load_words()["test"]
    assert (network(test["words"]).argmax(-1) == test["labels"]).mean() >= 0.93


def test_json_where_the_output_takes_ascii_alone(monkeypatch):
    printed = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(printed, encoding="ascii", errors="backslashreplace"))
    assert identify(("hyvää",), json=True) == 0
    sys.stdout.flush()
    assert json.loads(printed.getvalue())[0]["word"] == "hyvää"


def test_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert identify(("Hyvää", "dziękuję", "thoughts", "geschiedenis", "corazón")) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "0." in line]
    found = [row.replace("│", " ").split()[:2] for row in rows]
    assert found == [
        ["Hyvää", "Finnish"],
        ["dziękuję", "Polish"],
        ["thoughts", "English"],
        ["geschiedenis", "Dutch"],
        ["corazón", "Spanish"],
    ]


def test_json_from_standard_input(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("hyvää päivää\ncorazón\n"))
    assert identify(json=True) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["word"] for row in rows] == ["hyvää", "päivää", "corazón"]
    assert [row["language"] for row in rows] == ["Finnish", "Finnish", "Spanish"]
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert max(row["probabilities"], key=row["probabilities"].get) == row["language"]


def test_company_changes_nothing(network, monkeypatch):
    monkeypatch.setattr("flaxformer_edu.commands.identify.LETTERS_PER_CALL", 256)
    words = ["kansainvälisestikin", *["corazón"] * 31, "a"]
    together = classify(network, words)
    assert len(together) == len(words)
    for place in (0, 31, -1):
        np.testing.assert_allclose(together[place], classify(network, [words[place]])[0], atol=1e-5)


def test_shapes_are_few_and_small():
    random = np.random.default_rng(0)
    words = ["a" * length for length in random.integers(1, 30, 5000)] + ["b" * LONGEST_WORD]
    parts = padded_parts(words, ALPHABET)
    assert sorted(np.concatenate([places for places, _ in parts])) == list(range(len(words)))
    assert {letters.shape[1] for _, letters in parts} == {16, 32, LONGEST_WORD}
    assert len({letters.shape for _, letters in parts}) <= 5
    assert max(letters.size for _, letters in parts) <= LETTERS_PER_CALL
    for places, letters in parts:
        assert [decode_word(row, tuple(ALPHABET)) for row in letters[: len(places)]] == [words[i] for i in places]
    with pytest.raises(InputError, match=r"word 2, 'bbbbbbbbbbbbbbbbbbbb'..., has 100,000 letters, expected 1,024 at"):
        padded_parts(["a", "b" * 100_000], ALPHABET)


def test_nothing_to_identify(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
    with pytest.raises(InputError, match="no words: give some as arguments, or on standard input"):
        identify()


def test_wrong_words_and_models(tmp_path):
    with pytest.raises(InputError, match="'naïve2' has '2'"):
        identify(("naïve2",))
    with pytest.raises(InputError, match="holds no model"):
        identify(("word",), model=tmp_path)
    save_model(tmp_path / "mlp", MLP(MLPConfig(widths=(2, 3)), rngs=nnx.Rngs(0)))
    with pytest.raises(InputError, match="holds a MLP, expected a CharRNN"):
        identify(("word",), model=tmp_path / "mlp")


def test_weights_that_are_no_numbers_are_refused(network, tmp_path):
    broken = nnx.clone(network)
    broken.output.bias[...] = np.nan
    save_model(tmp_path / "run", broken)
    with pytest.raises(InputError, match=r"run: parameter output\.bias holds NaN or infinite"):
        identify(("word",), model=tmp_path / "run")
    with pytest.raises(InputError, match="probabilities for word are no numbers"):
        classify(broken, ["word"])
