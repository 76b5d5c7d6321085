"""Configs: one vocabulary, presets that all take changes, and folders written when the words were different."""

import dataclasses
import inspect

import jax
import numpy as np
import pytest

from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import Multiplied, Rotary
from flaxformer_edu.models import (
    CaptioningConfig,
    CharRNNConfig,
    ConvNetConfig,
    MLPConfig,
    Seq2SeqConfig,
    ViTCaptionerConfig,
    ViTConfig,
)
from flaxformer_edu.models.config import TransformerConfig
from flaxformer_edu.runs import decode

WORDS = {"alphabet": "ab", "languages": ("x", "y")}
REQUIRED = {"vocab": 7, "source_vocab": 7, **WORDS}
TRANSFORMERS = (ViTConfig, CaptioningConfig, Seq2SeqConfig, ViTCaptionerConfig)
PRESETS = [
    (config, name)
    for config in (*TRANSFORMERS, ConvNetConfig, MLPConfig, CharRNNConfig)
    for name, member in inspect.getmembers(config, inspect.ismethod)
    if name in vars(config) and name != "from_saved"
]
BLOCKS = {  # as version 0.1 wrote them
    "width": 8, "heads": 2, "hidden": 8, "dropout": 0.1, "attention_dropout": None, "hidden_dropout": None,
    "drop_path": 0.0, "norm": "pre", "activation": "gelu", "norm_epsilon": 1e-05, "qkv_bias": True,
    "merged_qkv": False, "output_projection": True, "rotary": None,
}  # fmt: skip
VIT = {
    **BLOCKS, "$class": "flaxformer_edu.models:ViTConfig", "image_size": 8, "patch_size": 4, "channels": 1,
    "classes": None, "layers": 1, "stem": "linear", "class_token": False, "distilled": False,
    "positions": "sinusoidal", "prefix_positions": True, "pooling": "mean", "final_norm": "pooled",
    "representation": None, "init": "lecun",
}  # fmt: skip
TOKENS = {"max_length": 5, "padding_id": 0, "start_id": 1, "end_id": 2}
CAPTIONS = {**BLOCKS, **TOKENS, "vocab": 7, "features": 8, "layers": 1, "init_std": 0.3}
SEQ2SEQ = {
    **BLOCKS, **TOKENS, "$class": "flaxformer_edu.models:Seq2SeqConfig", "source_vocab": 7, "vocab": 7,
    "encoder_layers": 1, "decoder_layers": 1, "tied": True,
}  # fmt: skip


def arguments(config, name):
    """What a preset must be given, and one thing that it need not be."""
    needed = inspect.signature(getattr(config, name)).parameters
    change = {"widths": (3, 2)} if config is MLPConfig else {"width": 24}
    return {key: value for key, value in REQUIRED.items() if key in needed}, change


@pytest.mark.parametrize(("config", "name"), PRESETS, ids=[f"{config.__name__}.{name}" for config, name in PRESETS])
def test_a_preset_takes_changes_of_any_field(config, name):
    given, change = arguments(config, name)
    changed, plain = getattr(config, name)(**given, **change), getattr(config, name)(**given)
    assert changed == dataclasses.replace(plain, **change) != plain
    with pytest.raises(InputError, match=rf"{config.__name__} has no field widht: its fields are .*width"):
        getattr(config, name)(**given, widht=24)


class TestOneVocabulary:
    def test_final_norm_follows_the_norm_unless_given(self):
        sizes = {"width": 8, "heads": 2, "hidden": 8}
        assert TransformerConfig(**sizes, norm="pre").final_norm == "tokens"
        assert TransformerConfig(**sizes, norm="post").final_norm == "none"
        assert TransformerConfig(**sizes, norm="post", final_norm="tokens").final_norm == "tokens"

    @pytest.mark.parametrize("config", TRANSFORMERS)
    def test_every_model_has_the_same_fields(self, config):
        assert {"final_norm", "init", "init_std"} <= {field.name for field in dataclasses.fields(config)}

    @pytest.mark.parametrize("init", ["normal", "truncated_normal", "lecun", "xavier"])
    def test_init_means_the_same_in_every_model(self, init):
        configs = (
            ViTConfig.digits(init=init, init_std=0.5),
            CaptioningConfig.cs231n(vocab=7, init=init, init_std=0.5),
            Seq2SeqConfig.tiny(source_vocab=7, vocab=7, init=init, init_std=0.5),
        )
        drawn = [config.kernel_init(jax.random.key(0), (64, 256), np.float32) for config in configs]
        std = {"normal": 0.5, "truncated_normal": 0.5, "lecun": 1 / 8, "xavier": (2 / 320) ** 0.5}[init]
        np.testing.assert_allclose(drawn[0].std(), std, rtol=0.03)
        for other in drawn[1:]:
            np.testing.assert_array_equal(other, drawn[0])

    @pytest.mark.usefixtures("unchecked")
    @pytest.mark.parametrize("config", [CaptioningConfig.cs231n, Seq2SeqConfig.tiny])
    @pytest.mark.parametrize("change", [{"final_norm": "pooled"}, {"init": "ones"}])
    def test_a_word_that_a_model_does_not_know(self, config, change):
        given = {"vocab": 7, **({"source_vocab": 7} if config == Seq2SeqConfig.tiny else {})}
        with pytest.raises(InputError, match=rf"{next(iter(change))} is .*, expected one of "):
            config(**given, **change)


class TestFoldersWrittenBefore:
    @pytest.mark.parametrize(
        ("rotary", "expected"),
        [
            (None, None),
            ({"$class": "flaxformer_edu.layers:Rotary", "base": 9.0, "interleaved": False}, Rotary(base=9.0)),
            ({"$class": "flaxformer_edu.layers:Multiplied", "base": 9.0}, Multiplied(base=9.0)),
        ],
    )
    def test_vision_transformer(self, rotary, expected):
        config = decode({**VIT, "rotary": rotary})
        assert (config.final_norm, config.init, config.init_std, config.rotary) == ("pooled", "lecun", 0.02, expected)

    @pytest.mark.parametrize(("norm", "final_norm"), [("pre", "tokens"), ("post", "none")])
    def test_captioners(self, norm, final_norm):
        blind = decode({**CAPTIONS, "$class": "flaxformer_edu.models:CaptioningConfig", "norm": norm})
        seeing = decode({**CAPTIONS, "$class": "flaxformer_edu.models:ViTCaptionerConfig", "norm": norm, "vision": VIT})
        for config in (blind, seeing):
            assert (config.final_norm, config.init, config.init_std) == (final_norm, "normal", 0.3)
        assert seeing.vision == decode(VIT)

    @pytest.mark.parametrize(("before", "now"), [(True, "tokens"), (False, "none"), ("tokens", "tokens")])
    def test_translator(self, before, now):
        config = decode({**SEQ2SEQ, "final_norm": before})
        assert (config.final_norm, config.init) == (now, "xavier")
