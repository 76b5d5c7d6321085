"""`flaxformer-edu convert`: every kind of source and target, and nothing half-written."""

import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx

from flaxformer_edu import cli
from flaxformer_edu.commands.convert import convert
from flaxformer_edu.convert import (
    ConversionError,
    find_config,
    find_layout,
    from_torch,
    open_huggingface,
    read,
    save_huggingface,
    to_torch,
    write,
)
from flaxformer_edu.convert.presets import PRESETS, preset_config
from flaxformer_edu.convert.rules import match, parameter_shapes
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import (
    CaptioningConfig,
    CaptioningTransformer,
    Seq2SeqConfig,
    Seq2SeqTransformer,
    VisionTransformer,
    ViTConfig,
)
from flaxformer_edu.models.abstract import abstract
from flaxformer_edu.runs import open_model, save_model

TINY = ViTConfig.b16(image_size=8, patch_size=4, classes=3, width=8, layers=2, heads=2, hidden=12)
SCRATCH = ViTConfig.scratch(classes=7, image_size=16)
NOTES = {"class_names": ("cat", "dog", "owl"), "mean": (0.5,), "std": (0.25,)}


def vit(config=TINY):
    return VisionTransformer(config, rngs=nnx.Rngs(0))


def hollow(config, layout):
    """Tensors of the right names and shapes that take no memory."""
    model = abstract(VisionTransformer, config)
    shapes = parameter_shapes(model)
    matches = match(find_layout(layout, model), shapes)
    return {name: np.broadcast_to(np.float32(0), m.torch_shape(shapes)) for m in matches for name in m.torch}


def same(first, second):
    pairs = zip(*map(jax.tree.leaves, map(nnx.state, (first, second))), strict=True)
    return all(a.dtype == b.dtype and (a == b).all() for a, b in pairs)


def content(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model of each kind, not to be changed."""
    folder = tmp_path_factory.mktemp("place")
    save_model(folder / "ours", vit(), notes=NOTES)
    save_model(folder / "tanh", vit(replace(TINY, activation="gelu_tanh")))
    save_huggingface(folder / "hf", vit(), NOTES)
    write(folder / "scratch.pth", to_torch(vit(SCRATCH), layout="scratch"))
    write(folder / "tiny.pth", to_torch(vit(), layout="timm"))
    return folder


class TestThereAndBack:
    @pytest.mark.parametrize("layout", ["torchvision", "timm", "hf_vit", "google_npz"])
    @pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt", ".bin", ".npz"])
    def test_files(self, layout, ending, place, tmp_path):
        target, source = tmp_path / f"weights{ending}", {"google_npz": "tanh", "hf_vit": "hf"}.get(layout, "ours")
        built = ("norm_epsilon",) if layout == "hf_vit" else ()
        assert convert(str(place / source), target, target_layout=layout, built_with=built) == 0
        weights = read(target)
        assert weights.keys() == to_torch(vit(), layout=layout).keys()
        assert same(from_torch(VisionTransformer, TINY, weights), vit())

    def test_transformers_folder(self, place, tmp_path):
        convert(str(place / "ours"), tmp_path / "hf", target_layout="hf_vit")
        assert same(open_huggingface(tmp_path / "hf")[0], vit())
        convert(str(tmp_path / "hf"), tmp_path / "ours")
        model, notes = open_model(tmp_path / "ours")
        assert same(model, vit())
        pixels = {"mean": (0.5,) * 3, "std": (0.25,) * 3}  # as many as the model has channels
        assert notes.pop("preprocessing")["mean"] == (0.5,) * 3
        assert notes == {"layout": "hf_vit", "assumed": (), "class_names": NOTES["class_names"], **pixels}

    def test_a_file_becomes_a_folder_and_a_file_again(self, place, tmp_path):
        convert(str(place / "scratch.pth"), tmp_path / "ours")
        model, notes = open_model(tmp_path / "ours")
        assert model.config == SCRATCH
        assert notes["layout"] == "scratch"
        convert(str(tmp_path / "ours"), tmp_path / "back.pth", target_layout="scratch")
        assert (tmp_path / "back.pth").read_bytes() == (place / "scratch.pth").read_bytes()
        convert(str(place / "scratch.pth"), tmp_path / "same.safetensors")  # in the names that it had
        assert read(tmp_path / "same.safetensors").keys() == read(place / "scratch.pth").keys()

    def test_other_models(self, tmp_path):
        captioner = CaptioningTransformer(
            CaptioningConfig.cs231n(vocab=7, features=5, width=8, max_length=6), rngs=nnx.Rngs(0)
        )
        save_model(tmp_path / "captioner", captioner)
        convert(str(tmp_path / "captioner"), tmp_path / "captioner.pth")
        assert "transformer.layers.0.self_attn.proj.weight" in read(tmp_path / "captioner.pth")
        sizes = {"width": 8, "heads": 2, "hidden": 12, "encoder_layers": 1, "decoder_layers": 1}
        config = Seq2SeqConfig(**sizes, source_vocab=5, vocab=6, max_length=7)
        save_model(tmp_path / "translator", Seq2SeqTransformer(config, rngs=nnx.Rngs(0)))
        convert(str(tmp_path / "translator"), tmp_path / "translator.safetensors")
        assert "generator.weight" in read(tmp_path / "translator.safetensors")
        with pytest.raises(InputError, match="--image-size is for a VisionTransformer, and this is a Captioning"):
            convert(str(tmp_path / "captioner"), tmp_path / "x.pth", image_size=32)

    def test_another_image_size(self, place, tmp_path):
        convert(str(place / "ours"), tmp_path / "large", image_size=16, resize="linear")
        model, _ = open_model(tmp_path / "large")
        assert model.config.image_size == 16
        assert model(np.zeros((1, 16, 16, 3), np.float32)).shape == (1, 3)


class TestPresets:
    @pytest.mark.parametrize("preset", PRESETS)
    def test_each_is_found_by_its_shapes(self, preset):
        layout = {"cs231n": "cs231n", "scratch": "scratch", "scratch_large": "scratch"}.get(preset, "timm")
        config = replace(preset_config(preset), classes=5)
        assert find_config(hollow(config, layout)) == (config, layout)

    def test_classes_image_size_and_habits_are_read(self, place):
        assert find_config(read(place / "scratch.pth")) == (SCRATCH, "scratch")
        google = ViTConfig.ti16(classes=21, image_size=64, representation=192)
        found, layout = find_config(hollow(google, "google_npz"))
        assert (found, layout) == (replace(google, activation="gelu_tanh"), "google_npz")
        distilled = ViTConfig.ti16(classes=4, distilled=True)
        assert find_config(hollow(distilled, "timm")) == (distilled, "timm")
        pooled = ViTConfig.ti16(classes=None, representation=192, norm_epsilon=1e-12, hidden_dropout=0.0)
        assert find_config(hollow(pooled, "hf_vit")) == (pooled, "hf_vit")

    def test_named_or_not_there(self, place, tmp_path):
        sizes = "width 8, layers 2, hidden 12, patch_size 4, channels 3"
        with pytest.raises(InputError, match=rf"names of timm, .*\({sizes}\), and the number of heads .*--set heads=1"):
            convert(str(place / "tiny.pth"), tmp_path / "ours")
        with pytest.raises(ConversionError, match=r"misshapen  cls_token: \(1, 1, 8\) given, \(1, 1, 192\) expected"):
            convert(str(place / "tiny.pth"), tmp_path / "ours", preset="ti16")
        with pytest.raises(InputError, match="unknown preset 'b7': choose one of b16, "):
            convert(str(place / "tiny.pth"), tmp_path / "ours", preset="b7")
        with pytest.raises(InputError, match="says itself which model it holds: leave layout and preset out"):
            convert(str(place / "ours"), tmp_path / "x.pth", preset="b16")
        assert list(tmp_path.iterdir()) == []


class TestReport:
    def test_one_line(self, place, tmp_path, capsys):
        convert(str(place / "scratch.pth"), tmp_path / "ours")
        out = capsys.readouterr().out
        assert out.endswith("VisionTransformer, 116,647 parameters, scratch -> flaxformer_edu\n")
        assert out.count("\n") == 1

    def test_dry_run_shows_what_would_go_where(self, place, tmp_path, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "250")
        target = tmp_path / "new.safetensors"
        convert(str(place / "hf"), target, target_layout="timm", dry_run=True)
        rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
        name = "vit.encoder.layer.1.attention.attention.key.weight"
        ours = "encoder.blocks.1.attention.key.kernel"
        assert [name, ours, "8 x 8", "blocks.1.attn.qkv.weight"] in rows
        assert len([row for row in rows if row]) == len(jax.tree.leaves(nnx.state(vit())))
        assert list(tmp_path.iterdir()) == []
        convert(str(place / "scratch.pth"), tmp_path / "ours", verbose=True)
        out = capsys.readouterr().out
        assert all(f"encoder.blocks.0.attention.heads.{i}.key.bias" in out for i in range(4))
        assert (tmp_path / "ours").is_dir()


class TestNothingIsLost:
    def test_a_target_that_is_there(self, place, tmp_path):
        (tmp_path / "w.pth").write_text("precious")
        with pytest.raises(InputError, match=r"w\.pth already exists: choose another name, or delete it first"):
            convert(str(place / "ours"), tmp_path / "w.pth", target_layout="timm")
        for folder in (place / "hf", tmp_path):
            with pytest.raises(InputError, match="already exists and is no saved model: choose another folder"):
                convert(str(place / "ours"), folder)
        assert (tmp_path / "w.pth").read_text() == "precious"

    def test_a_saved_model_is_replaced(self, place, tmp_path):
        save_model(tmp_path / "ours", vit(SCRATCH))
        convert(str(place / "ours"), tmp_path / "ours")
        assert same(open_model(tmp_path / "ours")[0], vit())
        convert(str(tmp_path / "ours"), tmp_path / "ours", image_size=12)
        assert open_model(tmp_path / "ours")[0].config.image_size == 12
        assert [path.name for path in tmp_path.iterdir()] == ["ours"]

    @pytest.mark.parametrize("layout", [None, "hf_vit"])
    def test_and_comes_back_where_writing_fails(self, layout, place, tmp_path, monkeypatch):
        def fail(*_, **__):
            raise OSError("no space left")

        save_model(tmp_path / "ours", vit(SCRATCH))
        before = content(tmp_path)
        monkeypatch.setattr("flaxformer_edu.commands.convert.save_model", fail)
        monkeypatch.setattr("flaxformer_edu.convert.huggingface.write", fail)
        for target in ("ours", "new"):
            with pytest.raises(InputError, match="no space left"):
                convert(str(place / "ours"), tmp_path / target, target_layout=layout)
        assert content(tmp_path) == before

    def test_a_run_is_never_replaced(self, place, tmp_path):
        save_model(tmp_path / "run", vit())
        (tmp_path / "run" / "run.json").write_text("{}")
        with pytest.raises(InputError, match="already exists and is no saved model"):
            convert(str(place / "hf"), tmp_path / "run")


class TestWrongInput:
    def test_sources(self, place, tmp_path):
        with pytest.raises(InputError, match=r"no file or folder .*nothing"):
            convert(str(place / "nothing"), tmp_path / "ours")
        (tmp_path / "text.pth").write_text("import os")
        with pytest.raises(InputError, match=r"text\.pth"):
            convert(str(tmp_path / "text.pth"), tmp_path / "ours")
        write(tmp_path / "strange.pth", {"conv1.weight": np.zeros((3, 3))})
        with pytest.raises(ConversionError, match=r"no layout for VisionTransformer knows the names conv1\.weight"):
            convert(str(tmp_path / "strange.pth"), tmp_path / "ours")

    def test_layouts(self, place, tmp_path):
        source, target = str(place / "ours"), tmp_path / "w.pth"
        with pytest.raises(InputError, match=r"the names to write are not known: .* are torchvision, timm, hf_vit"):
            convert(source, target)
        with pytest.raises(InputError, match="unknown layout 'tim': choose one of cs231n"):
            convert(source, target, target_layout="tim")
        with pytest.raises(ConversionError, match=r"no rule makes our parameter encoder\.norm\.scale"):
            convert(source, target, target_layout="scratch")
        with pytest.raises(InputError, match=r"for timm give a file that ends in \.safetensors"):
            convert(source, tmp_path / "folder", target_layout="timm")
        with pytest.raises(InputError, match="image_size 9 is not divisible by patch_size 4"):
            convert(source, target, target_layout="timm", image_size=9)
        (tmp_path / "file").touch()
        for below in ("below", "below.pth"):
            with pytest.raises(InputError, match=r"cannot be written .*: a part of its path is a file"):
                convert(str(place / "scratch.pth"), tmp_path / "file" / below)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_help_has_examples(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["flaxformer-edu", "convert", "--help"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 0
        assert "$ flaxformer-edu convert vit_b_16.pth runs/vit" in capsys.readouterr().out

    def test_on_the_command_line_it_is_one_line(self, place, tmp_path, monkeypatch, capsys):
        arguments = ["convert", str(place / "tiny.pth"), str(tmp_path / "ours"), "--preset", "b7"]
        monkeypatch.setattr(sys, "argv", ["flaxformer-edu", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 2
        assert "error: unknown preset 'b7'" in capsys.readouterr().err
