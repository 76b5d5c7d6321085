"""`flaxformer-edu compare`: its exit status, and wrong input as one line."""

import json
import sys

import numpy as np
import pytest
import torch
from parity.vit_libraries import randomised

from flaxformer_edu import cli, convert
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.runs import save_model
from tests.twins import torch_twins

FACTORY = """
from tests.twins.torch_twins import VisionTransformer

def build():
    return VisionTransformer(12, 4, 3, 16, 1, 2, 24, 5)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model and its twin's weights, images, and the module of a factory."""
    folder = tmp_path_factory.mktemp("place")
    twin = randomised(torch_twins.VisionTransformer(12, 4, 3, 16, 1, 2, 24, 5), torch.float32)
    sizes = {"image_size": 12, "patch_size": 4, "width": 16, "layers": 1, "heads": 2, "hidden": 24, "classes": 5}
    config = ViTConfig(**sizes, final_norm="none")
    save_model(folder / "ours", convert.from_torch(VisionTransformer, config, twin.state_dict()))
    torch.save(twin.state_dict(), folder / "theirs.pth")
    with torch.no_grad():
        twin.transformer.layers[0].ffn.fc1.weight[0, 0] += 1
    torch.save(twin.state_dict(), folder / "other.pth")
    np.save(folder / "images.npy", np.random.default_rng(0).normal(size=(2, 12, 12, 3)))
    (folder / "their_vit.py").write_text(FACTORY)
    return folder


@pytest.fixture
def run(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(**changes):
        options = {"ours": "ours", "theirs": "theirs.pth", "torch-model": "their_vit:build", "input": "images.npy"}
        arguments = [part for name, value in {**options, **changes}.items() for part in (f"--{name}", str(value))]
        monkeypatch.setattr(sys, "argv", ["flaxformer-edu", "compare", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, capsys.readouterr()

    return call


def test_a_pair_that_agrees(run):
    status, printed = run()
    assert status == 0
    assert "layers agree" in printed.out


def test_a_pair_that_differs(run, tmp_path):
    status, printed = run(theirs="other.pth", json=tmp_path / "report.json")
    assert status == 1
    assert "first divergence: encoder.blocks.0.mlp.up" in printed.out
    assert "1 of 20 parameters differ: encoder.blocks.0.mlp.up.kernel" in printed.out
    assert json.loads((tmp_path / "report.json").read_text())["diagnosis"]["cause"] == "other_weights"


def test_in_float64(run, monkeypatch, place, capsys):
    arguments = ["--ours", "ours", "--theirs", "theirs.pth", "--torch-model", "their_vit:build", "--float64"]
    monkeypatch.setattr(
        sys, "argv", ["flaxformer-edu", "compare", *arguments, "--input", "images.npy", "--tolerance", "1e-12"]
    )
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0, capsys.readouterr().out


def test_help_has_examples(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["flaxformer-edu", "compare", "--help"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    assert "$ flaxformer-edu compare --ours" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ours": "nowhere"}, "nowhere holds no model"),
        ({"theirs": "nothing.pth"}, "no file nothing.pth"),
        ({"torch-model": "their_vit"}, "--torch-model is 'their_vit', expected package.module:factory"),
        (
            {"torch-model": "not_there:build"},
            "not_there:build gives no model with the weights of theirs.pth (ModuleNotFound",
        ),
        ({"torch-model": "their_vit:other"}, "AttributeError"),
        ({"torch-model": "torch.nn:Identity"}, "Unexpected key"),
        ({"input": "nothing.npy"}, "no file nothing.npy"),
        ({"input": "theirs.pth"}, "theirs.pth"),
        ({"layout": "tim"}, "unknown layout 'tim'"),
    ],
)
def test_wrong_input_is_one_line(run, changes, message):
    status, printed = run(**changes)
    assert status == 2
    assert message in printed.err
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
