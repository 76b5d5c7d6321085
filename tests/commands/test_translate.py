"""`flaxformer-edu translate`: a table, a file, beam search, and errors that name the remedy."""

import json

import numpy as np
import pytest
from flax import nnx

from flaxformer_edu import decode
from flaxformer_edu.commands.translate import translate
from flaxformer_edu.data import Characters, encode_texts
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import MLP, MLPConfig, Seq2SeqConfig, Seq2SeqTransformer
from flaxformer_edu.runs import save_model

VOCABULARY = Characters("[]abc")


@pytest.fixture(scope="module")
def model():
    config = Seq2SeqConfig.tiny(source_vocab=8, vocab=8, width=16, hidden=20, max_length=7)
    model = Seq2SeqTransformer(config, rngs=nnx.Rngs(1))
    model.output.kernel[...] *= 4
    return model


@pytest.fixture(scope="module")
def place(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("place")
    save_model(folder / "letters", model, notes={"vocabulary": VOCABULARY.notes})
    save_model(folder / "bare", model)
    save_model(folder / "mlp", MLP(MLPConfig(widths=(2, 3)), rngs=nnx.Rngs(0)))
    return folder


TEXTS = ("abc", "[a]", "cabbac")


@pytest.mark.parametrize("beam", [1, 3])
def test_translations_are_those_of_the_model(place, model, tmp_path, capsys, beam):
    file = tmp_path / "rows.json"
    assert translate(TEXTS, checkpoint=place / "letters", beam=beam, json=file) == 0
    rows = json.loads(file.read_text())
    assert [row["text"] for row in rows] == list(TEXTS)
    source = encode_texts(TEXTS, VOCABULARY)
    tokens = decode.greedy(model, source)
    if beam > 1:
        tokens = decode.beam_search(model, source, width=beam, length_penalty=0.6).tokens[:, 0]
    expected = [VOCABULARY.decode(row) for row in np.asarray(tokens).tolist()]
    assert [row["translation"] for row in rows] == expected
    assert any(expected)
    assert "[a]" in capsys.readouterr().out


def test_what_cannot_be_done_is_said(place):
    for folder, texts, message in (
        ("none", TEXTS, r"no checkpoint .*none"),
        ("mlp", TEXTS, r"holds a MLP, which does not translate: python -m train\.seq2seq"),
        ("bare", TEXTS, "saved without vocabulary"),
        ("letters", (), "nothing to translate: hand in at least one text"),
        ("letters", ("abc", "Abxc"), r"'Abxc' has 'Ax', but the vocabulary's characters are '\[\]abc'"),
        ("letters", ("",), "'' has 0 tokens, but the model reads 1 to 6"),
        ("letters", ("a" * 7,), "'aaaaaaa' has 7 tokens, but the model reads 1 to 6"),
    ):
        with pytest.raises(InputError, match=message):
            translate(texts, checkpoint=place / folder)
    with pytest.raises(InputError, match="beam is 0, expected 1"):
        translate(TEXTS, checkpoint=place / "letters", beam=0)
