"""The command `explain`: pictures of what a model looks at, and one line where there is nothing to look at."""

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from flaxformer_edu.commands.explain import explain, position_vectors
from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import sinusoidal_positions
from flaxformer_edu.models import (
    CaptioningConfig,
    CaptioningTransformer,
    VisionTransformer,
    ViTCaptioner,
    ViTCaptionerConfig,
    ViTConfig,
)
from flaxformer_edu.runs import save_model

WORDS = ("<NULL>", "<START>", "<END>", "<UNK>", "a", "red", "ball")
PIXELS = {"mean": (0.5,), "std": (0.25,)}
CLASSES = {"class_names": ("zero", "one", "two"), **PIXELS}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkpoint of each kind, and a picture."""
    folder = tmp_path_factory.mktemp("explain")
    rotary = VisionTransformer(ViTConfig.tiles(positions="rotary", classes=3), rngs=nnx.Rngs(0))
    rotary.head.bias[...] = np.array([0.0, 9.0, 4.0])
    save_model(folder / "tiles", rotary, notes=CLASSES)
    save_model(folder / "mean", VisionTransformer(ViTConfig.digits(classes=3), rngs=nnx.Rngs(0)), notes=CLASSES)
    seeing = ViTCaptioner(ViTCaptionerConfig.small(vocab=7, image_size=16, max_length=4), rngs=nnx.Rngs(0))
    seeing.output.bias[...] = np.array([0, 0, 0, 0, 0, 50.0, 0])
    save_model(folder / "pixels", seeing, notes={"idx_to_word": WORDS, **PIXELS})
    save_model(folder / "no words", seeing, notes=PIXELS)
    blind = CaptioningTransformer(CaptioningConfig.cs231n(vocab=7, features=30, width=8), rngs=nnx.Rngs(0))
    save_model(folder / "features", blind, notes={"idx_to_word": WORDS, **PIXELS})
    Image.fromarray(np.arange(600, dtype=np.uint32).astype(np.uint8).reshape(20, 30)).save(folder / "picture.png")
    return folder


def written(folder):
    return sorted(path.name for path in folder.iterdir() if path.stat().st_size > 1000)


def test_a_class_token(place, tmp_path, capsys):
    assert explain(place / "picture.png", checkpoint=place / "tiles", out=tmp_path / "new" / "folder") == 0
    assert written(tmp_path / "new" / "folder") == ["attention.png", "layer_2.png", "rollout.png"]  # nothing is added
    assert "taken for: one (0.9" in capsys.readouterr().out


def test_the_mean_over_the_patches(place, tmp_path, capsys):
    options = {"layer": 1, "head": 3, "kind": "svg"}
    assert explain(place / "picture.png", checkpoint=place / "mean", out=tmp_path, **options) == 0
    assert written(tmp_path) == ["attention.svg", "layer_1_head_3.svg", "positions.svg", "rollout.svg"]
    assert f"wrote {tmp_path / 'rollout.svg'}" in capsys.readouterr().out


def test_a_caption(place, tmp_path, capsys):
    assert explain(place / "picture.png", checkpoint=place / "pixels", out=tmp_path) == 0
    assert "layer 2: red red red red" in capsys.readouterr().out
    assert written(tmp_path) == ["positions.png", "words.png"]
    own = {"caption": "a red ball", "layer": 1, "head": 4}
    assert explain(place / "picture.png", checkpoint=place / "pixels", out=tmp_path, **own) == 0
    assert "layer 1 head 4: a red ball" in capsys.readouterr().out


def test_position_vectors_are_those_that_are_added():
    added = position_vectors(VisionTransformer(ViTConfig.tiles(), rngs=nnx.Rngs(0)))
    np.testing.assert_allclose(added, sinusoidal_positions(17, 64), atol=1e-6)
    learned = VisionTransformer(ViTConfig.tiles(positions="learned"), rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(position_vectors(learned), learned.positions.embedding)
    assert position_vectors(VisionTransformer(ViTConfig.tiles(positions="rotary"), rngs=nnx.Rngs(0))) is None


@pytest.mark.parametrize(
    ("checkpoint", "options", "message"),
    [
        ("none", {}, "no checkpoint .*none"),
        ("features", {}, "holds a CaptioningTransformer, which sees no pixels: hand in a model trained by python -m"),
        ("no words", {}, "was saved without idx_to_word"),
        ("tiles", {"layer": 3}, "layer is 3, but the model has layers 1 to 2"),
        ("tiles", {"head": 0}, "head is 0, but the model has heads 1 to 1"),
        ("tiles", {"caption": "a"}, "--caption is given, but .*tiles holds a model that writes none"),
        ("pixels", {"caption": ""}, "the caption has no words"),
        ("pixels", {"caption": "a blue cube"}, "vocabulary of 7 words lacks 'blue', 'cube'"),
        ("pixels", {"caption": "a red red red red ball"}, "6 tokens is longer than the position table of 4"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_done_is_said(place, tmp_path, checkpoint, options, message):
    with pytest.raises(InputError, match=message):
        explain(place / "picture.png", checkpoint=place / checkpoint, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_no_picture(place):
    with pytest.raises(InputError, match=r"no picture .*gone\.png"):
        explain(place / "gone.png", checkpoint=place / "tiles")
