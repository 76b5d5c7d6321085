"""What a bare file leaves open: taken from a published preset aloud, asked for by name, or said by the user."""

import json
from dataclasses import replace

import numpy as np
import pytest
from flax import nnx

from flaxformer_edu import convert
from flaxformer_edu.convert.inference import infer
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import VisionTransformer, ViTConfig

pytestmark = pytest.mark.one_mode
TINY = ViTConfig.b16(image_size=8, patch_size=4, classes=3, width=8, layers=2, heads=2, hidden=12)


def vit(**changes):
    return VisionTransformer(replace(TINY, **changes), rngs=nnx.Rngs(0))


def weights(layout="timm", **changes):
    return convert.to_torch(vit(**changes), layout=layout)


@pytest.fixture
def ti16_is_tiny(monkeypatch):
    """A published size that a test can afford."""
    monkeypatch.setattr(ViTConfig, "ti16", lambda **changes: replace(TINY, **changes))


class TestPublishedSizes:
    def test_what_no_tensor_tells_is_said(self, ti16_is_tiny, capsys):
        config, layout = convert.find_config(weights(activation="relu", heads=4, norm_epsilon=1e-3))
        assert (config, layout) == (TINY, "timm")
        values = "heads 2, activation gelu, norm pre, norm_epsilon 1e-06, pooling class"
        line = f"assumed: {values}: those of the preset ti16 in the layout timm, as no tensor tells\n"
        assert capsys.readouterr().err == line

    def test_what_they_tell_is_read(self, ti16_is_tiny):
        for changes in (
            {"image_size": 16, "classes": 5},
            {"class_token": False, "pooling": "mean"},
            {"pooling": "mean", "final_norm": "pooled"},
            {"qkv_bias": False},
            {"prefix_positions": False},
            {"distilled": True},
            {"classes": None},
        ):
            assert convert.find_config(weights(**changes))[0] == replace(TINY, **changes)

    def test_what_the_user_says_goes_before_the_preset(self, ti16_is_tiny, tmp_path, capsys):
        convert.write(tmp_path / "w.pth", weights(activation="relu", heads=4))
        model, notes = convert.open(tmp_path / "w.pth", settings={"activation": "relu", "heads": 4})
        assert model.config == replace(TINY, activation="relu", heads=4)
        assert notes["assumed"][0].startswith("norm pre, norm_epsilon 1e-06, pooling class: those of the preset ti16")
        assert notes["assumed"][1] == "activation relu, heads 4: as was said on opening"
        read, *assumed = capsys.readouterr().err.splitlines()
        assert read == f"read: {tmp_path / 'w.pth'}, 32 tensors with the names of timm"
        assert tuple(assumed) == tuple(f"assumed: {line}" for line in notes["assumed"])

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (["heads"], "--set 'heads' has no value: write it like heads=6"),
            (["head=6"], "ViTConfig has no field head: its fields are width, heads"),
            (["heads=six"], "heads is 'six', expected a value like 2"),
            (["activation=6"], "activation is 6, expected a value like 'gelu'"),
            (["heads=3"], "width 8 is not divisible by 3 heads"),
        ],
    )
    def test_what_cannot_be_said(self, settings, message, ti16_is_tiny, tmp_path):
        convert.write(tmp_path / "w.pth", weights())
        with pytest.raises(InputError, match=message):
            convert.open(tmp_path / "w.pth", settings=settings)


class TestOtherSizes:
    def test_the_open_field_is_asked_for(self):
        with pytest.raises(InputError, match=r"width 8, layers 2, .*the number of heads .*--set heads=1 or what"):
            infer(weights())

    @pytest.mark.parametrize("layout", ["timm", "torchvision", "hf_vit"])
    def test_and_then_taken(self, layout):
        found = infer(weights(layout, heads=4), settings=["heads=4"])
        usual = {"norm_epsilon": 1e-12, "hidden_dropout": 0.0} if layout == "hf_vit" else {}
        assert found.config == replace(TINY, heads=4, **usual)
        assert "norm pre" in found.assumed[0]
        assert f"those of most models in the layout {layout}" in found.assumed[0]

    def test_google_has_an_axis_of_heads_and_the_tutorials_a_module_for_each(self):
        google = infer(weights("google_npz", heads=4))
        assert (google.config.heads, google.config.activation) == (4, "gelu_tanh")
        scratch = infer(weights("scratch", heads=4, final_norm="none"))
        assert (scratch.config.heads, scratch.config.final_norm, scratch.config.norm_epsilon) == (4, "none", 1e-5)

    @pytest.mark.parametrize(
        ("name", "feature"),
        [
            ("patch_embed.backbone.stem.conv.weight", "patches by a network"),
            ("blocks.0.attn.relative_position_bias_table", "relative position biases"),
            ("blocks.0.unheard.of", None),
        ],
    )
    def test_an_unknown_feature_is_named(self, name, feature):
        with pytest.raises(InputError, match=f"has all of these: {name}{f': {feature}' if feature else '. Name'}"):
            infer({**weights(), name: np.zeros(3, np.float32)})


class TestDescriptions:
    def test_a_file_beside_its_config_is_opened_by_that(self, tmp_path):
        model = vit(activation="relu", norm_epsilon=1e-3)
        convert.save_huggingface(tmp_path / "hf", model, {"class_names": ("a", "b", "c")})
        opened = convert.open(tmp_path / "hf" / "model.safetensors")
        assert opened.model.config == convert.open(tmp_path / "hf").model.config
        assert (opened.model.config.activation, opened.model.config.norm_epsilon) == ("relu", 1e-3)
        assert opened.notes["class_names"] == ("a", "b", "c")
        said = convert.open(tmp_path / "hf" / "model.safetensors", settings=["heads=4"])  # the user knows better
        assert (said.model.config.heads, said.model.config.activation) == (4, "gelu")

    def test_a_config_of_something_else_says_nothing(self, tmp_path, ti16_is_tiny):
        (tmp_path / "config.json").write_text(json.dumps({"theme": "dark"}))
        convert.write(tmp_path / "w.pth", weights())
        assert "the preset ti16" in convert.open(tmp_path / "w.pth").notes["assumed"][0]

    def test_what_export_wrote_says_all(self, tmp_path):
        model = vit(activation="relu", heads=4)
        convert.export(tmp_path / "w.safetensors", model, layout="timm", built_with=["activation"])
        opened = convert.open(tmp_path / "w.safetensors")
        assert opened.model.config == model.config
        assert opened.notes["layout"] == "timm"

    @pytest.mark.parametrize("kept", ["", "{}", '{"layout": "timm", "config": 3}', "[" * 9999, '{"layout": 1}'])
    def test_other_words_are_refused(self, kept, tmp_path):
        convert.write(tmp_path / "w.safetensors", weights(), metadata={"flaxformer_edu": kept})
        with pytest.raises(InputError, match="is no configuration: say which it is with --preset"):
            convert.open(tmp_path / "w.safetensors")
