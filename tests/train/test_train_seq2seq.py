"""The recipe `train.seq2seq` on a tiny budget: generated tasks, pairs from a file, and folders that open alone."""

import json
from dataclasses import replace

import numpy as np
import pytest

from flaxformer_edu.data import open_vocabulary
from flaxformer_edu.errors import InputError
from flaxformer_edu.runs import open_model, read_rows
from train import seq2seq

pytestmark = pytest.mark.one_mode


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A model of an eighth of the width with one layer, and tasks of 600 pairs."""
    tiny = seq2seq.PRESETS["tiny"]

    def model(**sizes):
        return replace(tiny.model(**sizes), width=16, hidden=32, encoder_layers=1, decoder_layers=1)

    optimizer = replace(tiny.optimizer, learning_rate=1e-2)
    monkeypatch.setitem(seq2seq.PRESETS, "tiny", replace(tiny, model=model, optimizer=optimizer, batch_size=16))
    full = seq2seq.generated_pairs
    monkeypatch.setattr(seq2seq, "generated_pairs", lambda task, seed: full(task, size=600, seed=seed))


def run(**options):
    seq2seq.run(seq2seq.Config(devices=1, **options))


def losses(folder):
    return [row["loss"] for row in read_rows(folder / "metrics.jsonl")[0] if "loss" in row]


@pytest.mark.parametrize("task", ["dates", "sort"])
def test_the_loss_falls_and_the_folder_opens_alone(task, tmp_path):
    folder, file = tmp_path / "run", tmp_path / "figures"
    run(task=task, epochs=3, out=folder, json=file)
    assert np.mean(losses(folder)[-5:]) < 0.6 * losses(folder)[0]
    figures = json.loads(file.read_text())
    assert 0 <= figures["exact_match"] < 1
    assert ("exact_match_of_20_digits" in figures) == (task == "sort")
    model, notes = open_model(folder)
    vocabulary = open_vocabulary(notes["vocabulary"])
    assert len(vocabulary) == model.config.vocab


def test_what_is_evaluated_is_what_is_decoded(tmp_path):
    """Two answers, of different length, by the first letter: the model knows them soon, and both figures say so."""
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"a{i:02}\tyes\nb{i:02}\tno\n" for i in range(50)))
    run(data=pairs, epochs=8, out=tmp_path / "run", json=tmp_path / "figures")
    assert json.loads((tmp_path / "figures").read_text())["exact_match"] == 1
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")[0]
    assert [row["eval_exact_match"] for row in rows if "eval_loss" in row][-1] == 1
    run(data=pairs, epochs=8, out=tmp_path / "run", beam=2)  # resumed at its end, and written by beam search


@pytest.mark.no_nnx
def test_vocabularies_are_of_both_sides_and_subwords_of_the_training_pairs():
    pairs = {"train": [("three times three", "9"), ("three times two", "6")], "test": [("three times six", "18")]}
    assert seq2seq.learn_vocabulary(pairs, None).alphabet == " 1689ehimorstwx"
    pytest.importorskip("tokenizers")
    vocabulary = seq2seq.learn_vocabulary(pairs, 40)
    assert vocabulary.decode(vocabulary.encode("18x")) == "18x"
    assert len(vocabulary.encode("three times")) == 2
    assert len(vocabulary.encode(" six")) == 4


@pytest.mark.no_nnx
def test_the_papers_preset():
    """Vaswani et al. 2017, section 5.3 and 5.4: width 512, 4,000 of 100,000 steps to warm up, smoothing of 0.1."""
    preset = seq2seq.PRESETS["base"]
    rates = replace(preset.optimizer, warmup_steps=4000).learning_rates(100_000)
    for step in (1, 100, 4000, 50_000):
        assert float(rates(step - 1)) == pytest.approx(512**-0.5 * min(step**-0.5, step * 4000**-1.5), rel=2e-3)
    assert preset.warmup * 100_000 == 4000
    assert (preset.optimizer.betas, preset.optimizer.epsilon, preset.label_smoothing) == ((0.9, 0.98), 1e-9, 0.1)


def test_wrong_calls_and_files(tmp_path):
    pairs = tmp_path / "pairs.tsv"
    with pytest.raises(InputError, match="beam is 0, expected 1"):
        run(task="dates", beam=0)
    for wrong in ({}, {"task": "dates", "data": pairs}):
        with pytest.raises(InputError, match="choose either --task"):
            run(**wrong)
    pairs.write_text("a\tb\nalone\n")
    with pytest.raises(InputError, match=r"pairs\.tsv, line 2 has no tab"):
        run(data=pairs)
    pairs.write_text("a\tb\nc\td\n")
    with pytest.raises(InputError, match="batch_size is 16, but pairs/train has 1 examples"):
        run(data=pairs)


@pytest.mark.no_nnx
def test_a_malformed_file_is_one_line_on_the_command_line(tmp_path, monkeypatch, capsys):
    pairs = tmp_path / "pairs.tsv"
    pairs.write_bytes(b"a\tb\n\xff\tb\n")
    monkeypatch.setattr("sys.argv", ["train.seq2seq", "--pairs", str(pairs)])
    monkeypatch.setattr("train.recipe.use_devices", lambda _: None)  # JAX is in use here
    with pytest.raises(SystemExit) as end:
        seq2seq.recipe.main(seq2seq.Config, seq2seq.run, seq2seq.__doc__ or "")
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: {pairs}, line 2: byte 1 is not UTF-8: save the file in that encoding\n"
