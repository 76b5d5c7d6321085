"""Files and names that no command expects: refused by name, or shown as they are."""

import io
import struct

import numpy as np
import pytest

from flaxformer_edu.commands.compare import read_array
from flaxformer_edu.commands.data import list_sources
from flaxformer_edu.commands.identify import print_table
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import write_json
from flaxformer_edu.runs import open_model
from train import recipe

pytestmark = pytest.mark.no_nnx


def saved(save, *arrays, **named):
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


def promising(length):
    """A .npy file that says it has so many numbers, and has none."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({length},), }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (promising(40 * 10**12), "is no .npy file .*: write it with numpy.save"),
        (promising(-1), "is no .npy file"),
        (b"", "is no .npy file"),
        (b"\x93NUMPY\x01\x00\x05\x00{[(((", "is no .npy file"),
        (saved(np.savez, a=np.ones(3)), "holds no single array of numbers"),
        (saved(np.save, np.array(["a"])), "holds no single array of numbers"),
    ],
    ids=["320 TB", "less than nothing", "empty", "no header", "npz called npy", "text"],
)
def test_arrays_to_compare_on(content, said, tmp_path):
    (tmp_path / "input.npy").write_bytes(content)
    with pytest.raises(InputError, match=rf"input\.npy {said}"):
        read_array(tmp_path / "input.npy")


@pytest.mark.parametrize("array", [np.float32(2), np.zeros((0, 3)), np.arange(6).reshape(2, 3)])
def test_arrays_that_are_fine(array, tmp_path):
    np.save(tmp_path / "input.npy", array)
    np.testing.assert_array_equal(read_array(tmp_path / "input.npy"), array)


@pytest.mark.parametrize(
    ("content", "said"), [([], "holds a list, expected a JSON object"), ({}, "lacks model, config, notes, best")]
)
def test_descriptions_of_models(content, said, tmp_path):
    write_json(tmp_path / "model.json", content)
    with pytest.raises(InputError, match=rf"model\.json {said}"):
        open_model(tmp_path)


def test_names_that_look_like_markup(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FLAXFORMER_EDU_CACHE", str(tmp_path / "[/red]"))
    monkeypatch.setenv("COLUMNS", "400")
    list_sources()
    recipe.report("[/red]", {"[/red] name": "[/red]"}, None)
    print_table(["[/red]"], ["[/red]"], np.ones((1, 1)))
    assert capsys.readouterr().out.count("[/red]") >= 7
