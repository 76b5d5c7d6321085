"""Hugging Face folders: opened without a preset, and written so that transformers opens them."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from parity.vit_libraries import library, randomised

from flaxformer_edu import convert
from flaxformer_edu.convert import open_huggingface, save_huggingface
from flaxformer_edu.convert.huggingface_config import HARMLESS
from flaxformer_edu.data.preprocessing import Preprocessing
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import VisionTransformer, ViTConfig

SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
IMAGE = {"image_size": 12, "patch_size": 4}
OURS = {"width": 8, "layers": 2, "heads": 2, "hidden": 12, "image_size": 12, "patch_size": 4, "classes": 3}
IMAGES = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)
PIXELS = torch.tensor(IMAGES.transpose(0, 3, 1, 2))
NAMES = ("cat", "dog", "sea horse")


def theirs(name="ViTForImageClassification", **changes):
    transformers = library("transformers")
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    config = transformers.ViTConfig(**SIZES, **IMAGE, **labels, **changes)
    return randomised(getattr(transformers, name)(config), torch.float32)


def ours(**changes):
    return VisionTransformer(ViTConfig.b16(**{**OURS, **changes}), rngs=nnx.Rngs(0))


def edit(folder, **changes):
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, **changes}))
    return folder


@pytest.fixture
def folder(tmp_path):
    save_huggingface(tmp_path / "vit", ours(), {"class_names": NAMES, "mean": (0.5,), "std": (0.25,)})
    (tmp_path / "vit" / "SHA256SUMS").unlink()  # transformers writes none, and its files may be edited
    return tmp_path / "vit"


class TestOpen:
    @pytest.mark.parametrize(
        "changes",
        [
            {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3, "qkv_bias": False, "attention_probs_dropout_prob": 0.1},
            {"hidden_act": "relu", "hidden_dropout_prob": 0.2},
        ],
    )
    def test_a_classifier(self, changes, tmp_path):
        twin = theirs(**changes)
        twin.save_pretrained(tmp_path)
        model, notes = open_huggingface(tmp_path)
        np.testing.assert_allclose(model(IMAGES), twin(PIXELS).logits.detach(), atol=1e-5)
        assert notes == {"class_names": NAMES}
        assert model.config.dropout == changes.get("hidden_dropout_prob", 0)
        assert model.config.attention_dropout == changes.get("attention_probs_dropout_prob", 0)
        assert model.config.hidden_dropout == 0

    @pytest.mark.parametrize("pooler", [True, False])
    def test_a_model_without_classifier(self, pooler, tmp_path):
        twin = theirs("ViTModel")
        if not pooler:
            twin.pooler = None
        twin.save_pretrained(tmp_path)
        model, notes = open_huggingface(tmp_path)
        answer = twin(PIXELS)
        expected = answer.pooler_output if pooler else answer.last_hidden_state[:, 0]
        np.testing.assert_allclose(model(IMAGES), expected.detach(), atol=1e-5)
        assert notes == {}

    def test_shards_and_pytorch_files(self, tmp_path):
        twin = theirs()
        twin.save_pretrained(tmp_path / "shards", max_shard_size="2KB")
        assert (tmp_path / "shards/model.safetensors.index.json").is_file()
        expected = twin(PIXELS).logits.detach()
        np.testing.assert_allclose(open_huggingface(tmp_path / "shards")[0](IMAGES), expected, atol=1e-5)
        twin.config.save_pretrained(tmp_path / "bin")
        torch.save(twin.state_dict(), tmp_path / "bin/pytorch_model.bin")
        np.testing.assert_allclose(open_huggingface(tmp_path / "bin")[0](IMAGES), expected, atol=1e-5)

    def test_pixels_and_class_names(self, folder):
        notes = open_huggingface(folder)[1]
        assert (notes["class_names"], notes["mean"], notes["std"]) == (NAMES, (0.5,) * 3, (0.25,) * 3)
        size = open_huggingface(folder)[0].config.image_size
        (folder / "preprocessor_config.json").write_text('{"do_normalize": false, "image_mean": [0.1]}')
        notes = open_huggingface(folder)[1]
        assert (notes["mean"], notes["std"], notes["preprocessing"]["size"]) == ((0.0,), (1.0,), size)
        (folder / "preprocessor_config.json").write_text('{"size": 224, "image_processor_type": "BeitImageProcessor"}')
        kept = Preprocessing.from_json(open_huggingface(folder)[1]["preprocessing"])
        assert (kept.size, kept.interpolation, kept.mean) == (224, "bicubic", (0.5, 0.5, 0.5))
        (folder / "preprocessor_config.json").unlink()
        assert open_huggingface(folder)[1] == {"class_names": NAMES}

    def test_preprocessing_survives(self, tmp_path):
        size = ours().config.image_size
        stretched = {"resize": "exact", "interpolation": "bilinear"}
        for options in (stretched, {"resize": "shortest", "resize_to": size + 3}):
            kept = Preprocessing(size=size, arithmetic="torch", centre="floor", colours="white", **options)
            kept = replace(kept, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), resize_to=kept.resize_to or size)
            save_huggingface(tmp_path / kept.resize, ours(), kept.notes())
            assert Preprocessing.in_notes(open_huggingface(tmp_path / kept.resize)[1], size=size, channels=3) == kept
            library("transformers").AutoImageProcessor.from_pretrained(tmp_path / kept.resize)

    def test_defaults_are_those_of_transformers(self, folder):
        described = json.loads((folder / "config.json").read_text())
        defaults = library("transformers").ViTConfig().to_dict()
        for name in list(described):
            if name != "model_type" and described[name] == defaults.get(name):
                del described[name]
        assert "num_channels" not in described
        assert "hidden_act" not in described
        (folder / "config.json").write_text(json.dumps(described))
        assert open_huggingface(folder)[0].config == open_huggingface(edit(folder, num_channels=3))[0].config

    def test_sizes_as_pairs_and_fields_without_effect(self, folder):
        before = open_huggingface(folder)[0].config
        edit(folder, image_size=[12, 12], patch_size=[4, 4], **dict.fromkeys(HARMLESS, "whatever"))
        assert open_huggingface(folder)[0].config == before


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"layer_scale_init": 0.1, "registers": 4}, "has layer_scale_init = 0.1, registers = 4, which is"),
            ({"model_type": "deit"}, "model_type is 'deit', and of Hugging Face's models only 'vit' is known"),
            ({"architectures": ["ViTForMaskedImageModeling"]}, "architectures is .*Masked.*, expected one of ViTFor"),
            ({"hidden_size": "8"}, "hidden_size is '8', expected a whole number above 0"),
            ({"hidden_size": True}, "hidden_size is True, expected a whole number above 0"),
            ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, but the weights have 2 layers"),
            ({"num_attention_heads": 0}, "num_attention_heads is 0, expected a whole number above 0"),
            ({"hidden_act": "swish"}, "hidden_act is 'swish', expected one of gelu, "),
            ({"hidden_act": ["gelu"]}, "hidden_act is .*expected one of gelu, "),
            ({"hidden_dropout_prob": 1}, "hidden_dropout_prob is 1, expected a number from 0 to below 1"),
            ({"layer_norm_eps": None}, "layer_norm_eps is None, expected a number above 0"),
            ({"qkv_bias": 1}, "qkv_bias is 1, expected true or false"),
            ({"image_size": [12, 16]}, r"image_size is \[12, 16\], expected a whole number"),
            ({"image_size": 14}, "image_size 14 is not divisible by patch_size 4"),
            ({"num_labels": 4}, "id2label and num_labels disagree"),
            ({"id2label": ["cat"]}, "id2label and num_labels disagree"),
            ({"id2label": {"1": "a", "2": "b", "3": "c"}}, "id2label has no name for class '0'"),
            ({"id2label": {"0": "cat"}}, r"misshapen  classifier\.bias"),
            ({"qkv_bias": False}, r"unused     vit\.encoder"),
            ({"hidden_size": 10}, r"misshapen"),
        ],
    )
    def test_by_name(self, changes, message, folder):
        with pytest.raises(InputError, match=message):
            open_huggingface(edit(folder, **changes))

    def test_a_pooler_that_is_no_tanh(self, tmp_path):
        save_huggingface(tmp_path / "vit", ours(classes=None, representation=6))
        (tmp_path / "vit" / "SHA256SUMS").unlink()
        assert open_huggingface(tmp_path / "vit")[0].config.representation == 6
        with pytest.raises(InputError, match="the pooler has 6 features and the activation 'gelu', expected"):
            open_huggingface(edit(tmp_path / "vit", pooler_act="gelu"))

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"[" * 100_000, b"null"])
    def test_a_damaged_config(self, content, folder):
        (folder / "config.json").write_bytes(content)
        with pytest.raises(InputError, match=r"config\.json (is not valid JSON|holds a \w+, expected)") as error:
            open_huggingface(folder)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 400

    def test_pixels_that_are_no_numbers(self, folder):
        (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5], "image_std": "grey"}')
        with pytest.raises(InputError, match=r"json: image_std is 'grey', expected a list of numbers"):
            open_huggingface(folder)

    def test_what_is_not_there(self, folder):
        (folder / "config.json").unlink()
        with pytest.raises(InputError, match=r"there is no .*config\.json"):
            open_huggingface(folder)


class TestSave:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"activation": "gelu_tanh", "norm_epsilon": 1e-3, "qkv_bias": False, "merged_qkv": True, "dropout": 0.1},
            {"activation": "relu", "drop_path": 0.1, "hidden_dropout": 0.2},
        ],
    )
    def test_transformers_opens_it(self, changes, tmp_path):
        transformers, model = library("transformers"), ours(**changes)
        save_huggingface(tmp_path / "vit", model, {"class_names": NAMES, "mean": [0.5] * 3, "std": [0.25] * 3})
        twin = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "vit").eval()
        np.testing.assert_allclose(twin(PIXELS).logits.detach(), model(IMAGES), atol=1e-5)
        assert twin.config.id2label == dict(enumerate(NAMES))
        assert twin.config.hidden_dropout_prob == model.config.dropout
        again, notes = open_huggingface(tmp_path / "vit")
        assert notes["class_names"] == NAMES
        for ours_, theirs_ in zip(*(convert.to_torch(m, layout="timm").values() for m in (model, again)), strict=True):
            np.testing.assert_array_equal(ours_, theirs_)

    def test_without_a_classifier(self, tmp_path):
        model = ours(classes=None, representation=8)
        save_huggingface(tmp_path / "vit", model)
        twin = library("transformers").AutoModel.from_pretrained(tmp_path / "vit").eval()
        np.testing.assert_allclose(twin(PIXELS).pooler_output.detach(), model(IMAGES), atol=1e-5)

    def test_float64(self, tmp_path, float64):
        model = VisionTransformer(ViTConfig.b16(**OURS), rngs=nnx.Rngs(0), param_dtype=jnp.float64)
        save_huggingface(tmp_path / "vit", model)
        again = open_huggingface(tmp_path / "vit", param_dtype=jnp.float64)[0]
        assert all((a == b).all() for a, b in zip(*map(jax.tree.leaves, map(nnx.state, (model, again))), strict=True))

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"pooling": "mean"}, "pooling = 'mean'"),
            ({"distilled": True}, "distilled = True"),
            ({"positions": "sinusoidal"}, "positions = 'sinusoidal'"),
            ({"norm": "post", "final_norm": "none"}, "norm = 'post', final_norm = 'none'"),
            ({"representation": 4}, "representation = 4 in front of a classifier"),
            ({"output_projection": False}, "output_projection = False"),
        ],
    )
    def test_what_transformers_cannot_compute(self, changes, named, tmp_path):
        with pytest.raises(InputError, match=f"transformers' ViT has no {named}: write the weights alone"):
            save_huggingface(tmp_path / "vit", ours(**changes))
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_in_use_and_a_failure_on_the_way(self, folder, tmp_path, monkeypatch):
        with pytest.raises(InputError, match="already exists: choose another folder"):
            save_huggingface(folder, ours())

        def fail(*_):
            raise OSError("no space left")

        monkeypatch.setattr("flaxformer_edu.convert.huggingface.write", fail)
        with pytest.raises(InputError, match="no space left"):
            save_huggingface(tmp_path / "other", ours())
        assert [path.name for path in tmp_path.iterdir()] == ["vit"]

    def test_wrong_class_names(self, tmp_path):
        with pytest.raises(InputError, match="2 class names for 3 classes"):
            save_huggingface(tmp_path / "vit", ours(), {"class_names": ("cat", "dog")})


def test_a_config_survives_both_ways(folder):
    config = open_huggingface(folder)[0].config
    assert config == replace(ours().config, hidden_dropout=0.0, attention_dropout=0.0)
