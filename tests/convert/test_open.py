"""`convert.open`: any source in one call, with what is known about the model, and what had to be assumed."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from flaxformer_edu import convert
from flaxformer_edu.convert import sources
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import CaptioningConfig, CaptioningTransformer, VisionTransformer, ViTConfig
from flaxformer_edu.runs import save_model

SCRATCH = ViTConfig.scratch(classes=7, image_size=16)
TINY = ViTConfig.b16(image_size=8, patch_size=4, classes=3, width=8, layers=2, heads=2, hidden=12)
NOTES = {"class_names": ("cat", "dog", "owl"), "mean": (0.25,), "std": (0.125,)}
IMAGES = np.linspace(-1, 1, 2 * 16 * 16 * 3, dtype=np.float32).reshape(2, 16, 16, 3)


def vit(config=SCRATCH) -> VisionTransformer:
    return VisionTransformer(config, rngs=nnx.Rngs(0))


def same(first, second) -> bool:
    pairs = zip(*map(jax.tree.leaves, map(nnx.state, (first, second))), strict=True)
    return all(a.dtype == b.dtype and (a == b).all() for a, b in pairs)


class TestFiles:
    @pytest.mark.parametrize("kind", [str, Path])
    @pytest.mark.parametrize("ending", [".pth", ".pt", ".bin", ".safetensors", ".npz"])
    def test_of_weights_alone(self, ending, kind, tmp_path):
        convert.write(tmp_path / f"w{ending}", convert.to_torch(vit(), layout="scratch"))
        model, notes = convert.open(kind(tmp_path / f"w{ending}"))
        assert same(model, vit())
        assert model.config == SCRATCH
        (assumed,) = notes.pop("assumed")
        values = "heads 4, activation gelu_tanh, norm pre, norm_epsilon 1e-05, pooling class"
        assert assumed == f"{values}: those of the preset scratch in the layout scratch, as no tensor tells"
        assert notes == {"layout": "scratch"}  # what its pixels were normalised by is anybody's guess
        assert (model(IMAGES) == vit()(IMAGES)).all()

    def test_what_most_models_of_a_layout_have_is_said(self, tmp_path, monkeypatch):
        monkeypatch.setattr(ViTConfig, "ti16", lambda **changes: TINY)
        for layout, mean in {"torchvision": (0.485, 0.456, 0.406), "timm": (0.5,), "google_npz": (0.5,)}.items():
            convert.write(tmp_path / f"{layout}.npz", convert.to_torch(vit(TINY), layout=layout))
            opened = convert.open(tmp_path / f"{layout}.npz", preset="ti16")
            assert (opened.layout, opened.notes["layout"], opened.notes["mean"]) == (layout, layout, mean)
            configuration, pixels = opened.notes["assumed"]
            assert f"those of the preset ti16 in the layout {layout}" in configuration
            assert f"pixels normalised by mean {mean}, std" in pixels
            assert set(opened.names) == convert.read(tmp_path / f"{layout}.npz").keys()
        assert "activation gelu_tanh" in configuration  # Google's

    def test_parameters_are_copies_unless_views_will_do(self, tmp_path):
        convert.write(tmp_path / "w.safetensors", convert.to_torch(vit(), layout="scratch"))
        model, _ = convert.open(tmp_path / "w.safetensors")
        views, _ = convert.open(tmp_path / "w.safetensors", views=True)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(nnx.state(model)))
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(nnx.state(views)))
        assert same(views, model)

    def test_options_go_to_the_model(self, tmp_path):
        convert.write(tmp_path / "w.pth", convert.to_torch(vit(), layout="scratch"))
        model, _ = convert.open(tmp_path / "w.pth", dtype="bfloat16")
        assert model(IMAGES).dtype == "bfloat16"


class TestFolders:
    def test_of_ours(self, tmp_path):
        save_model(tmp_path / "ours", vit(), notes=NOTES)
        opened = convert.open(tmp_path / "ours")
        model, notes = opened
        assert same(model, vit())
        assert notes == NOTES
        assert (opened.layout, opened.names) == (None, ())

    def test_of_other_models(self, tmp_path):
        config = CaptioningConfig.cs231n(vocab=7, features=5, width=8, max_length=6)
        save_model(tmp_path / "ours", CaptioningTransformer(config, rngs=nnx.Rngs(0)))
        model, notes = convert.open(str(tmp_path / "ours"))
        assert (type(model), model.config, notes) == (CaptioningTransformer, config, {})

    def test_of_transformers(self, tmp_path):
        convert.save_huggingface(tmp_path / "hf", vit(TINY), NOTES)
        model, notes = convert.open(tmp_path / "hf")
        assert same(model, vit(TINY))
        assert (notes["layout"], notes["assumed"], notes["class_names"]) == ("hf_vit", (), NOTES["class_names"])
        assert (notes["mean"], notes["preprocessing"]["mean"]) == (NOTES["mean"] * 3,) * 2
        for name in ("preprocessor_config.json", "SHA256SUMS"):
            (tmp_path / "hf" / name).unlink()
        _, notes = convert.open(tmp_path / "hf")
        assert notes["mean"] == (0.5,)
        assert notes["assumed"][0].startswith("pixels normalised by mean (0.5,)")

    def test_of_weights_without_a_word(self, tmp_path):
        convert.write(tmp_path / "model.safetensors", convert.to_torch(vit(), layout="scratch"))
        model, notes = convert.open(tmp_path)
        assert same(model, vit())
        assert notes["layout"] == "scratch"

    def test_converted_and_opened_again_it_knows_the_same(self, tmp_path):
        convert.write(tmp_path / "w.pth", convert.to_torch(vit(), layout="scratch"))
        model, notes = convert.open(tmp_path / "w.pth")
        save_model(tmp_path / "ours", model, notes=notes)
        assert convert.open(tmp_path / "ours").notes == notes


def test_a_name_is_downloaded_once(tmp_path, monkeypatch):
    weights = tmp_path / "weights" / "vit_b_16-0123abcd.pth"
    weights.parent.mkdir()
    convert.write(weights, convert.to_torch(vit(), layout="scratch"))
    monkeypatch.setenv("FLAXFORMER_EDU_CACHE", str(tmp_path))
    monkeypatch.setitem(sources.TORCHVISION_FILES, "vit_b_16", weights.name)
    with pytest.raises(InputError, match=r"has SHA-256 .*, expected 0123abcd"):  # it is there, and not the right one
        convert.open("torchvision://vit_b_16")
    with pytest.raises(InputError, match="torchvision's 'resnet50' is not known here"):
        convert.open("torchvision://resnet50")


class TestWrongInput:
    def test_nothing_there_or_nothing_known(self, tmp_path):
        with pytest.raises(InputError, match=r"no file or folder .*nothing"):
            convert.open(tmp_path / "nothing")
        with pytest.raises(InputError, match="holds none of"):
            convert.open(tmp_path)
        with pytest.raises(InputError, match="unknown layout 'tim': choose one of cs231n"):
            convert.open(tmp_path, layout="tim")

    def test_a_folder_that_describes_itself_takes_no_choices(self, tmp_path):
        save_model(tmp_path / "ours", vit())
        convert.save_huggingface(tmp_path / "hf", vit(TINY))
        for folder, choice in (("ours", {"preset": "b16"}), ("hf", {"layout": "timm"})):
            with pytest.raises(InputError, match="says itself which model it holds: leave layout and preset out"):
                convert.open(tmp_path / folder, **choice)

    def test_a_description_that_is_none(self, tmp_path):
        convert.save_huggingface(tmp_path / "hf", vit(TINY))
        (tmp_path / "hf" / "config.json").write_text(json.dumps([]))
        (tmp_path / "hf" / "SHA256SUMS").unlink()
        with pytest.raises(InputError, match=r"config\.json holds a list, expected a JSON object"):
            convert.open(tmp_path / "hf")
