"""`flaxformer-edu identify`, with the model that comes with the package."""

import io
import json

import numpy as np
import pytest
from flax import nnx

from flaxformer_edu.commands.identify import BUNDLED_MODEL, WORDS_PER_CALL, classify, identify, open_network
from flaxformer_edu.data import load_words
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


def test_company_changes_nothing(network):
    words = ["corazón"] * WORDS_PER_CALL + ["a", "kansainvälisestikin"]
    together = classify(network, words)
    np.testing.assert_allclose(together[-2:], np.concatenate([classify(network, [w]) for w in words[-2:]]), atol=1e-5)
    assert len(together) == len(words)


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
