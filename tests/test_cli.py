"""The command line: help with examples, verdicts as exit statuses, and errors as one line."""

import json
import sys

import numpy as np
import pytest

from flaxformer_edu import cli
from flaxformer_edu.errors import InputError
from flaxformer_edu.reference import published


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["flaxformer-edu", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


@pytest.mark.parametrize(
    "command",
    [
        "verify",
        "demo",
        "data",
        "data list",
        "data fetch",
        "data show",
        "caption",
        "classify",
        "identify",
        "translate",
        "convert",
        "features",
        "explain",
        "compare",
    ],
)
@pytest.mark.no_nnx
def test_help_has_examples(monkeypatch, capsys, command):
    assert run(monkeypatch, *command.split(), "--help") == 0
    assert f"$ flaxformer-edu {command}" in capsys.readouterr().out


def test_verify_writes_its_rows(monkeypatch, capsys, tmp_path):
    file = tmp_path / "report.json"
    assert run(monkeypatch, "verify", "--edition", "cs231n", "--json", file) == 0
    assert "9 of 9 tensors agree" in capsys.readouterr().out
    rows = json.loads(file.read_text())
    assert len(rows) == 9
    assert set(rows[0]) == {"edition", "id", "max_abs_error", "max_rel_error", "tolerance", "ok"}
    assert all(row["ok"] is True and row["max_abs_error"] <= row["tolerance"] for row in rows)


def test_verify_fails_where_a_tensor_differs(monkeypatch, capsys, tmp_path):
    """One recipe goes wrong: its row fails, the others pass, and the exit status says so."""

    def wrong(generator):
        return {"positional_encoding": np.zeros((1, 2, 6), np.float32)}

    recipes = [wrong if recipe.__name__ == "positional_encoding" else recipe for recipe in published.RECIPES]
    monkeypatch.setattr(published, "RECIPES", recipes)
    file = tmp_path / "report.json"
    assert run(monkeypatch, "verify", "--edition", "cs231n", "--json", file) == 1
    assert [row["id"] for row in json.loads(file.read_text()) if not row["ok"]] == ["positional_encoding"]
    assert "FAIL" in capsys.readouterr().out


@pytest.mark.no_nnx
def test_an_edition_that_does_not_exist(monkeypatch, capsys):
    assert run(monkeypatch, "verify", "--edition", "cs224n") == 2
    assert "xcs231n" in capsys.readouterr().err


@pytest.mark.no_nnx
def test_wrong_input_is_one_line_without_a_traceback(monkeypatch, capsys):
    def refuse(*_):
        raise InputError("the file [x] is no checkpoint: choose another")

    monkeypatch.setattr("flaxformer_edu.commands.verify.run", refuse)
    assert run(monkeypatch, "verify") == 2
    assert capsys.readouterr().err == "error: the file [x] is no checkpoint: choose another\n"
