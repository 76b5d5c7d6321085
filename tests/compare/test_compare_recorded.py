"""Recorded runs: the same report as of the live model, without torch, and files that are none."""

import subprocess
import sys
from functools import partial

import ml_dtypes
import numpy as np
import optax
import pytest
import torch
from compare import eager as compare
from compare.small_pairs import LAYOUT, X, small
from flax import nnx
from parity.vit_libraries import randomised

from flaxformer_edu import cli, convert
from flaxformer_edu.compare.sides.ours import Call
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.runs import save_model
from tests.twins import torch_twins

pytestmark = pytest.mark.usefixtures("unchecked")
SGD = partial(torch.optim.SGD, lr=0.1)
FACTORY = """
from tests.twins.torch_twins import VisionTransformer

def build():
    return VisionTransformer(12, 4, 3, 16, 1, 2, 24, 5)
"""
WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "torch":
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, NoTorch())
from flaxformer_edu import cli

sys.argv = ["flaxformer-edu", *sys.argv[1:]]
cli.main()
"""


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, x in ours.items():
        assert x.dtype == theirs[name].dtype
        np.testing.assert_array_equal(x, theirs[name])


def test_a_run_comes_back_from_its_file(float64, tmp_path):
    ours, theirs = small()
    path = tmp_path / "run.npz"
    run = compare.record(path, theirs, X, loss=lambda y: y.mean(), step=SGD)
    back = compare.Recorded.load(path)
    assert [file.name for file in tmp_path.iterdir()] == ["run.npz"]
    assert (run.framework, run.leaves, list(run.calls)) == (back.framework, back.leaves, list(back.calls))
    for group, arrays in run._groups().items():
        same(arrays, back._groups()[group])
    live = compare.models(
        ours, theirs, X, layout=LAYOUT, loss=(lambda y: y.mean(), lambda y: y.mean()), step=(optax.sgd(0.1), SGD)
    )
    options = {"layout": LAYOUT, "loss": (lambda y: y.mean(), None), "step": (optax.sgd(0.1), None)}
    assert live == compare.models(ours, path, **options) == compare.models(ours, run, **options)
    assert live.agrees
    assert len(live.stepped) == 6


def test_a_recorded_run_does_not_change_with_the_model(float64):
    ours, theirs = small()
    run = compare.record(None, theirs, X)
    torch.nn.init.zeros_(theirs.last.bias)
    assert compare.models(ours, run, layout=LAYOUT).agrees


def test_a_fault_in_a_recorded_run_is_named(float64, tmp_path):
    theirs = randomised(torch_twins.VisionTransformer(12, 4, 3, 16, 1, 2, 24, 5), torch.float64)
    sizes = {"image_size": 12, "patch_size": 4, "width": 16, "layers": 1, "heads": 2, "hidden": 24, "classes": 5}
    config = ViTConfig(**sizes, final_norm="none", activation="relu")
    images = np.random.default_rng(0).normal(size=(2, 12, 12, 3))
    compare.record(tmp_path / "run.npz", theirs, images)
    weights = compare.Recorded.load(tmp_path / "run.npz").parameters
    ours = convert.from_torch(VisionTransformer, config, weights, layout="cs231n", param_dtype=np.float64)
    report = compare.models(ours, str(tmp_path / "run.npz"), layout="cs231n")
    assert report.first_divergence.layer == "encoder.blocks.0.mlp.down"
    assert report.diagnosis.explanation == "their activation is gelu"


def test_what_needs_a_run_of_theirs_is_not_tried_on_a_recorded_one(float64):
    ours, theirs = small()
    theirs.activation = torch.nn.Sequential(theirs.activation, torch.nn.Dropout(0.5)).train()
    live = compare.models(ours, theirs, X, layout=LAYOUT)
    assert live.diagnosis.cause == "dropout"
    report = compare.models(ours, compare.record(None, theirs, X), layout=LAYOUT)
    assert report.first_divergence.layer == "last"
    assert report.diagnosis is None
    assert "none of the" in report.summary


def test_ours_recorded(float64, tmp_path):
    ours, _ = small()
    compare.record(tmp_path / "run.npz", ours, X, step=optax.sgd(0.1))
    report = compare.models(ours, tmp_path / "run.npz", step=(optax.sgd(0.1), None))
    assert report.agrees
    assert max(row.max_abs for row in (*report.layers, *report.gradients, *report.stepped)) == 0
    other = nnx.clone(ours)
    other.norm.bias[...] += 1
    assert compare.models(other, tmp_path / "run.npz").first_divergence.layer == "norm"


def test_bfloat16_comes_back(tmp_path):
    x = np.arange(3).astype(ml_dtypes.bfloat16)
    run = compare.Recorded(
        framework="torch", inputs=(x,), parameters={"p": x}, leaves={"": True}, calls={"": Call(x, None)}
    )
    run.save(tmp_path / "run.npz")
    back = compare.Recorded.load(tmp_path / "run.npz")
    same(back.parameters, run.parameters)
    assert back.calls[""].output.dtype == ml_dtypes.bfloat16
    assert back.calls[""].input is back.gradients is back.stepped is None


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A file's bytes."""
    path = tmp_path_factory.mktemp("run") / "run.npz"
    compare.record(path, small()[1], X.astype(np.float32))
    return path.read_bytes()


class TestWrongInput:
    @pytest.mark.parametrize("kind", ["cut", "flipped", "empty", "text", "weights", "format", "incomplete", "absent"])
    def test_a_file_that_is_none(self, content, kind, tmp_path):
        path = tmp_path / "run.npz"
        if kind in ("weights", "format", "incomplete"):
            abouts = {
                "format": b'{"format": "other"}',
                "incomplete": content[content.index(b'{"format"') :].split(b"PK")[0],
            }
            about = {"about": np.frombuffer(abouts[kind], np.uint8)} if kind in abouts else {}
            np.savez(path, **about, kernel=X)
        elif kind != "absent":
            middle = content.index(X.astype(np.float32).tobytes()) + 5
            flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            path.write_bytes({"cut": content[:-100], "flipped": flipped, "empty": b"", "text": b"text"}[kind])
        with pytest.raises(
            InputError, match=r"run\.npz.*: record it where the model is, with compare\.record"
        ) as found:
            compare.models(small()[0], path)
        assert "\n" not in str(found.value)

    @pytest.mark.parametrize("name", ["run.pth", "nowhere/run.npz"])
    def test_a_name_that_cannot_be_written(self, name, tmp_path):
        with pytest.raises(InputError, match="cannot write"):
            compare.record(tmp_path / name, small()[1], X)
        assert not list(tmp_path.iterdir())

    def test_what_a_run_does_not_have(self, float64):
        ours, theirs = small()
        run = compare.record(None, theirs, X, gradients=True)
        with pytest.raises(InputError, match="a recorded run has its own inputs"):
            compare.models(ours, run, X, layout=LAYOUT)
        with pytest.raises(InputError, match=r"theirs took no step: .* record the run with step"):
            compare.models(ours, run, layout=LAYOUT, step=(optax.sgd(0.1), None))
        with pytest.raises(InputError, match=r"no gradients: record it with gradients=True"):
            compare.models(ours, compare.record(None, theirs, X), layout=LAYOUT, gradients=True)
        with pytest.raises(InputError, match="no inputs to run the two models on"):
            compare.models(ours, theirs, layout=LAYOUT)
        with pytest.raises(InputError, match="theirs is int, expected a torch"):
            compare.record(None, 3, X)

    @pytest.mark.usefixtures("unchecked")
    def test_the_path_comes_first(self, tmp_path):
        expected = r"the first argument is Theirs, .*: compare\.record\(path, model, inputs\)"
        with pytest.raises(InputError, match=expected):
            compare.record(small()[1], X, tmp_path / "run.npz")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, its twin's weights with and without a fault, images, and the module of a factory."""
    folder = tmp_path_factory.mktemp("place")
    twin = randomised(torch_twins.VisionTransformer(12, 4, 3, 16, 1, 2, 24, 5), torch.float32)
    sizes = {"image_size": 12, "patch_size": 4, "width": 16, "layers": 1, "heads": 2, "hidden": 24, "classes": 5}
    config = ViTConfig(**sizes, final_norm="none")
    save_model(folder / "ours", convert.from_torch(VisionTransformer, config, twin.state_dict()))
    torch.save(twin.state_dict(), folder / "theirs.pth")
    np.save(folder / "images.npy", np.random.default_rng(0).normal(size=(2, 12, 12, 3)))
    (folder / "their_vit.py").write_text(FACTORY)
    return folder


@pytest.fixture
def command(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(arguments):
        monkeypatch.setattr(sys, "argv", ["flaxformer-edu", "compare", *arguments.split()])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, capsys.readouterr()

    return call


THEIRS = "--theirs theirs.pth --torch-model their_vit:build --input images.npy"


def test_record_here_and_compare_without_torch(command, place):
    status, printed = command(f"{THEIRS} --gradients --record run.npz")
    assert status == 0
    assert printed.out == "run.npz: outputs and gradients of 22 layers\n"
    arguments = ["compare", "--ours", "ours", "--theirs", "run.npz", "--gradients"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "gradients agree" in done.stdout


def test_gradients_that_differ_give_status_1(command, place):
    factory = FACTORY.replace("    return ", "    model = ") + (
        "    model.head.register_forward_hook(lambda *call: call[-1].detach())\n    return model\n"
    )
    (place / "cut_vit.py").write_text(factory)
    arguments = f"--ours ours {THEIRS.replace('their_vit', 'cut_vit')}"
    assert command(arguments)[0] == 0
    status, printed = command(f"{arguments} --gradients")
    assert status == 1
    assert "first gradient that differs: that of head.bias" in printed.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (f"{THEIRS} --ours ours --record run.npz", "--record runs theirs alone: leave --ours out"),
        ("--theirs theirs.pth --record run.npz", "add --torch-model package.module:factory and --input"),
        (f"{THEIRS}", "--ours is missing"),
        ("--ours ours --theirs theirs.pth", "--torch-model is missing"),
        ("--ours ours --theirs run.npz --input images.npy", "--torch-model is missing"),
        ("--ours ours --theirs theirs.pth --torch-model their_vit:build", "--input is missing"),
        ("--ours ours --theirs nothing.npz", "no file nothing.npz: record it"),
    ],
)
def test_options_that_do_not_go_together(command, arguments, message):
    status, printed = command(arguments)
    assert status == 2
    assert message in printed.err
    assert printed.err.count("\n") == 1
