"""Models opened from their folders alone, and configurations as JSON."""

import json
import shutil
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from training.tiny import Tiny, TinyConfig, assert_same, tiny

from flaxformer_edu.errors import InputError
from flaxformer_edu.models import MLP, CaptioningConfig, CaptioningTransformer, MLPConfig, VisionTransformer, ViTConfig
from flaxformer_edu.runs import decode, describe_model, encode, open_model, save_model
from flaxformer_edu.runs.description import differences
from flaxformer_edu.runs.folder import register_run
from flaxformer_edu.training import split_model


@pytest.mark.parametrize(
    ("model_class", "config"),
    [
        (VisionTransformer, replace(ViTConfig.cs231n(), layers=1, width=8, hidden=8)),
        (VisionTransformer, replace(ViTConfig.tiles(positions="rotary"), width=8, hidden=8)),
        (CaptioningTransformer, replace(CaptioningConfig.cs231n(vocab=9, features=5), width=8, hidden=8)),
    ],
)
def test_a_model_opens_from_its_folder(tmp_path, caplog, model_class, config):
    model = model_class(config, rngs=nnx.Rngs(0))
    save_model(tmp_path / "saved", model, notes={"words": ["a", "b"], "mean": np.array([0.5, 0.25])})
    opened, notes = open_model(tmp_path / "saved")
    assert not caplog.records
    assert type(opened) is model_class
    assert opened.config == config
    assert_same(split_model(opened)[1], split_model(model)[1])
    assert notes == {"words": ("a", "b"), "mean": (0.5, 0.25)}


def test_options_reach_the_model(tmp_path):
    save_model(tmp_path, tiny())
    opened, _ = open_model(tmp_path, classes=[Tiny, TinyConfig], dtype=jnp.bfloat16)
    assert opened(jnp.ones((1, 6))).dtype == jnp.bfloat16
    with pytest.raises(InputError, match=r"head.bias is float32\[4\], expected bfloat16\[4\]"):
        open_model(tmp_path, classes=[Tiny, TinyConfig], param_dtype=jnp.bfloat16)


def test_a_class_from_elsewhere_must_be_handed_in(tmp_path):
    save_model(tmp_path, tiny())
    with pytest.raises(InputError, match=r"training\.tiny:Tiny is not a class of flaxformer_edu\.models"):
        open_model(tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        "os:system",
        "flaxformer_edu.models",
        "flaxformer_edu.models:nothing",
        "flaxformer_edu.models.nowhere:X",
        "flaxformer_edu.models.vit:nnx",
        "flaxformer_edu.models.vit:check_shape",
        "flaxformer_edu.models.vit:InputError",
    ],
)
def test_a_folder_cannot_name_anything_else(path):
    with pytest.raises(InputError, match="is not a class of"):
        decode({"$class": path})


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(InputError, match="holds no model"):
        open_model(tmp_path)


def test_a_folder_without_a_checkpoint(tmp_path):
    save_model(tmp_path, tiny())
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(InputError, match="holds no checkpoint"):
        open_model(tmp_path, classes=[Tiny, TinyConfig])


def test_opening_a_model_leaves_alone_what_is_being_written(tmp_path):
    save_model(tmp_path, tiny())
    unfinished = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp"
    unfinished.mkdir()
    open_model(tmp_path, classes=[Tiny, TinyConfig])
    assert unfinished.exists()


def test_a_model_saved_again_replaces_the_first(tmp_path):
    for seed in (0, 1):
        save_model(tmp_path, tiny(seed))
    opened, _ = open_model(tmp_path, classes=[Tiny, TinyConfig])
    assert_same(split_model(opened)[1], split_model(tiny(1))[1])


def test_a_run_and_a_saved_model_do_not_share_a_folder(tmp_path):
    save_model(tmp_path / "model", tiny())
    with pytest.raises(InputError, match="holds a saved model, not a run"):
        register_run(tmp_path / "model", describe_model(tiny(), {}), {})
    register_run(tmp_path / "run", describe_model(tiny(), {}), {})
    with pytest.raises(InputError, match="holds a run"):
        save_model(tmp_path / "run", tiny())


def test_a_configuration_of_another_version():
    with pytest.raises(
        InputError, match=r"unexpected keyword argument 'depth'.*another version of training\.tiny:Tiny"
    ):
        decode({"$class": "training.tiny:TinyConfig", "depth": 3}, [TinyConfig])


def test_a_damaged_description(tmp_path):
    save_model(tmp_path, tiny())
    (tmp_path / "model.json").write_text('{"model": ')
    with pytest.raises(InputError, match=r"model\.json is not as it was when .*checkpoints/0 was written"):
        open_model(tmp_path)


def test_a_model_without_config(tmp_path):
    model = tiny()
    del model.config
    with pytest.raises(InputError, match="Tiny has no attribute config"):
        save_model(tmp_path, model)


@dataclass(frozen=True, kw_only=True)
class Everything:
    number: float
    whole: int
    text: str
    several: tuple
    inner: TinyConfig | None


@given(
    st.builds(
        Everything,
        number=st.floats(allow_nan=False),
        whole=st.integers(),
        text=st.text(),
        several=st.recursive(st.tuples(st.booleans()), lambda x: st.tuples(x, x)),
        inner=st.none() | st.builds(TinyConfig, width=st.integers()),
    )
)
def test_a_configuration_survives_json(config):
    assert decode(json.loads(json.dumps(encode(config))), [Everything, TinyConfig]) == config


def test_types_survive_json():
    assert decode(encode({"dtype": jnp.bfloat16})) == {"dtype": jnp.bfloat16}


def test_what_json_cannot_hold():
    with pytest.raises(InputError, match="cannot be written as JSON"):
        encode({"f": lambda: None})


def test_differences_are_named():
    saved, now = (
        {"optimizer": encode(TinyConfig(width=w)), "steps": 3, **more} for w, more in [(1, {}), (2, {"x": 1})]
    )
    assert differences(saved, now) == [
        "optimizer.width: 1 in the folder, 2 now",
        "x: nothing in the folder, 1 now",
    ]
    assert differences(saved, saved) == []


def test_a_run_of_an_earlier_version_is_recognised(tmp_path):
    """Its model's configuration lacks a field that was added since; what differs is still refused."""
    model = VisionTransformer(replace(ViTConfig.cs231n(), layers=1, width=8, hidden=8), rngs=nnx.Rngs(0))
    today = describe_model(model, {"classes": ["a"]})
    before = {**today, "config": {name: value for name, value in today["config"].items() if name != "init_std"}}
    assert before != today
    register_run(tmp_path, before, {})
    register_run(tmp_path, today, {})
    with pytest.raises(InputError, match=r"config\.width: 8 in the folder, 12 now"):
        register_run(tmp_path, {**today, "config": {**today["config"], "width": 12}}, {})


def test_a_run_of_a_model_that_is_public_now_is_recognised(tmp_path):
    today = describe_model(MLP(MLPConfig.digits(), rngs=nnx.Rngs(0)), {})
    before = json.loads(json.dumps(today).replace("flaxformer_edu.models:", "flaxformer_edu.models.course:"))
    assert before != today
    register_run(tmp_path, before, {})
    register_run(tmp_path, today, {})


def test_a_run_that_goes_on_on_other_devices_says_so(tmp_path, capsys):
    register_run(tmp_path, {}, {"seed": 0, "devices": 2})
    register_run(tmp_path, {}, {"seed": 0, "devices": 2})
    assert capsys.readouterr().err == ""
    register_run(tmp_path, {}, {"seed": 0, "devices": 1})
    assert "was begun on 2 devices and goes on on 1: sums are rounded in another order" in capsys.readouterr().err


def test_a_folder_belongs_to_one_run(tmp_path):
    register_run(tmp_path, {"config": 1}, {"seed": 0})
    register_run(tmp_path, {"config": 1}, {"seed": 0})
    with pytest.raises(InputError, match=r"a different run \(seed: 0 in the folder, 1 now\).*choose another folder"):
        register_run(tmp_path, {"config": 1}, {"seed": 1})
