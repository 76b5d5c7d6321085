"""A file for another library is refused, by name, where that library would compute something else from it."""

from dataclasses import replace

import pytest
from flax import nnx

from flaxformer_edu import convert
from flaxformer_edu.commands.convert import convert as command
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.runs import save_model

pytestmark = pytest.mark.one_mode
TINY = ViTConfig.b16(image_size=8, patch_size=4, classes=3, width=8, layers=2, heads=2, hidden=12)
COMPUTED = {"google_npz": {"activation": "gelu_tanh"}, "hf_vit": {"norm_epsilon": 1e-12}}


def vit(**changes):
    return VisionTransformer(replace(TINY, **changes), rngs=nnx.Rngs(0))


@pytest.mark.parametrize("layout", ["timm", "torchvision", "hf_vit", "google_npz"])
def test_what_the_library_computes_is_written(layout, tmp_path):
    model = vit(**COMPUTED.get(layout, {}), dropout=0.1, drop_path=0.1, merged_qkv=True, init="normal")
    convert.export(tmp_path / "w.npz", model, layout=layout)
    assert convert.read(tmp_path / "w.npz").keys() == convert.to_torch(model, layout=layout).keys()


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        ("timm", {"norm": "post", "final_norm": "none"}, "computes norm = 'pre', whatever .* has norm = 'post'"),
        ("timm", {"activation": "relu"}, "'gelu' unless .* 'relu', .*act_layer='relu' .*--built-with activation"),
        ("timm", {"pooling": "mean"}, "build the module with global_pool='avg', fc_norm=False and"),
        ("timm", {"pooling": "both"}, "has pooling = 'both': choose another layout"),
        ("torchvision", {"norm": "post", "final_norm": "tokens"}, "has norm = 'post'"),
        ("torchvision", {"norm_epsilon": 1e-5}, r"eps=1e-05\) and repeat this with --built-with norm_epsilon"),
        ("torchvision", {"activation": "gelu_tanh"}, "computes activation = 'gelu', whatever"),
        ("google_npz", {}, "computes activation = 'gelu_tanh', whatever .* has activation = 'gelu'"),
        ("google_npz", {"activation": "gelu_tanh", "norm_epsilon": 1e-5}, "has norm_epsilon = 1e-05"),
        ("hf_vit", {}, "norm_epsilon = 1e-12 unless .* a folder .*--target-layout hf_vit"),
        ("hf_vit", {"pooling": "mean"}, "computes pooling = 'class', whatever"),
        ("scratch", {"final_norm": "none"}, "computes activation = 'gelu_tanh', norm_epsilon = 1e-05, whatever"),
    ],
)
def test_what_it_does_not_is_refused_by_name(layout, changes, message, tmp_path):
    save_model(tmp_path / "ours", vit(**changes))
    with pytest.raises(InputError, match=message):
        command(str(tmp_path / "ours"), tmp_path / "w.pth", target_layout=layout, dry_run=True)
    assert not (tmp_path / "w.pth").exists()


def test_post_norm_is_not_timms_although_its_names_are(tmp_path):
    save_model(tmp_path / "ours", vit(norm="post", pooling="mean", final_norm="pooled"))
    with pytest.raises(InputError, match="norm = 'post'"):
        command(str(tmp_path / "ours"), tmp_path / "w.pth")


def test_a_module_that_is_built_otherwise_takes_it(tmp_path):
    save_model(tmp_path / "ours", vit(activation="relu", norm_epsilon=1e-5))
    with pytest.raises(InputError, match="--built-with norm_epsilon;"):
        command(str(tmp_path / "ours"), tmp_path / "w.pth", target_layout="timm", built_with=("activation",))
    built_with = ("activation", "norm_epsilon")
    command(str(tmp_path / "ours"), tmp_path / "w.pth", target_layout="timm", built_with=built_with)
    assert (tmp_path / "w.pth").exists()
