"""The recipes `train.finetune` and `train.cnn_vs_vit` on tiny budgets."""

import json
from dataclasses import replace

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from flaxformer_edu import convert
from flaxformer_edu.commands.classify import classify
from flaxformer_edu.data import load_digits
from flaxformer_edu.data.preprocessing import Preprocessing
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.runs import open_model, save_model
from train import cnn_vs_vit, finetune

pytestmark = pytest.mark.one_mode

TINY = {"dataset": "digits", "epochs": 3, "batch_size": 64}
SMALL = {"image_size": 8, "patch_size": 2, "width": 16, "layers": 2, "heads": 2, "hidden": 32, "final_norm": "tokens"}


@pytest.fixture
def pretrained():
    return VisionTransformer(ViTConfig.scratch(**SMALL, classes=7, init="lecun"), rngs=nnx.Rngs(0))


@pytest.mark.parametrize("kind", ["folder", "transformers", "file"])
def test_fine_tuning_learns_from_any_source(kind, pretrained, tmp_path, monkeypatch):
    source = tmp_path / ("weights.safetensors" if kind == "file" else "weights")
    if kind == "folder":
        save_model(source, pretrained, notes={"mean": [0.3], "std": [0.4]})
    elif kind == "transformers":
        convert.save_huggingface(source, pretrained, {"mean": [0.3], "std": [0.4]})
    else:
        convert.write(source, convert.to_torch(pretrained, layout="timm"))
        monkeypatch.setattr(ViTConfig, "ti16", lambda: pretrained.config)
    config = finetune.Config(
        **TINY, source=str(source), preset="ti16" if kind == "file" else None, image_size=12, decay=0.75,
        learning_rate=3e-3, out=tmp_path / "run", json=tmp_path / "figures.json",
    )  # fmt: skip
    finetune.run(config)
    assert json.loads((tmp_path / "figures.json").read_text())["accuracy"] > 0.2  # by chance 0.1
    model, notes = open_model(tmp_path / "run")
    assert (model.config.image_size, model.config.classes) == (12, 10)
    assert notes["mean"] == {"file": (0.5,), "folder": (0.3,), "transformers": (0.3,) * 3}[kind]


@pytest.fixture
def pictures(tmp_path):
    """Two digits in subfolders: enlarged, of several shapes and modes."""
    digits = load_digits()["train"]
    chosen = digits["labels"] < 2
    for number, (image, label) in enumerate(zip(digits["images"][chosen], digits["labels"][chosen], strict=True)):
        folder = tmp_path / "pictures" / f"digit {label}"
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(image[..., 0]).resize((20 + number % 7, 24))
        picture.convert(("L", "RGB", "RGBA")[number % 3]).save(folder / f"{number}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize(("kind", "decay"), [("transformers", 0.0), pytest.param("timm", 0.75, marks=pytest.mark.slow)])
def test_own_pictures_are_learned_from_published_formats(kind, decay, pretrained, pictures, tmp_path, monkeypatch):
    """A linear probe and a fine-tuning; what comes out classifies."""
    kept = Preprocessing(size=8, resize="exact", interpolation="bilinear", arithmetic="torch", centre="floor")
    kept = replace(kept, resize_to=8, colours="white", mean=(0.3, 0.3, 0.3), std=(0.4, 0.4, 0.4))
    if kind == "transformers":
        convert.save_huggingface(source := tmp_path / "weights", pretrained, kept.notes())
    else:
        convert.write(source := tmp_path / "weights.safetensors", convert.to_torch(pretrained, layout="timm"))
        monkeypatch.setattr(ViTConfig, "ti16", lambda **changes: replace(pretrained.config, **changes))
    config = finetune.Config(
        source=str(source), preset="ti16" if kind == "timm" else None, data=pictures, val=0.25, decay=decay,
        epochs=6, batch_size=30, learning_rate=1e-2, augment=False, evaluate_every=36, out=tmp_path / "run",
        json=tmp_path / "figures.json",
    )  # fmt: skip
    finetune.run(config)
    assert json.loads((tmp_path / "figures.json").read_text())["accuracy"] > 0.8  # by chance 0.5
    model, notes = open_model(tmp_path / "run")
    assert notes["class_names"] == ("digit 0", "digit 1")
    if kind == "transformers":
        assert Preprocessing.from_json(notes["preprocessing"]) == kept
        frozen = [at.encoder.blocks[0].mlp.up.kernel[...] for at in (model, pretrained)]
        np.testing.assert_array_equal(*frozen)
    else:
        assert notes["preprocessing"]["interpolation"] == "bicubic"
    names = sorted((pictures / "digit 1").iterdir())[:40]
    assert classify(tuple(names), checkpoint=tmp_path / "run", json=tmp_path / "rows.json") == 0
    first = [row["classes"][0]["class"] for row in json.loads((tmp_path / "rows.json").read_text())]
    assert first.count("digit 1") > 24


@pytest.mark.no_nnx
def test_what_is_meant_by_data(pictures, tmp_path):
    def named(**options):
        return finetune.Config(source="x", **options).named

    assert named() == "cifar10"
    assert named(data=pictures) == "folder"
    assert named(data=tmp_path / "train.csv") == "folder"
    assert named(data=tmp_path) == "folder"
    assert named(data=pictures / "digit 0") == "cifar10"
    assert named(data=pictures, dataset="mnist") == "mnist"
    with pytest.raises(InputError, match="--dataset folder needs --data, expected a folder with a subfolder"):
        finetune.Config(source="x", dataset="folder").load(Preprocessing(size=8))


@pytest.mark.no_nnx
def test_grey_images_are_enlarged_and_coloured():
    images = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    fitted = finetune.fitted(images, 4, 3)
    assert fitted.shape == (2, 4, 4, 3)
    np.testing.assert_array_equal(fitted[..., 0], fitted[..., 2])
    np.testing.assert_allclose(fitted[:, 0, 0, 0], [0, 4])
    np.testing.assert_array_equal(finetune.fitted(images, 2, 1), images)


def test_only_vision_transformers(tmp_path):
    from flaxformer_edu.models import CaptioningConfig, CaptioningTransformer

    config = CaptioningConfig.cs231n(vocab=7, features=5, width=8, max_length=6)
    save_model(tmp_path / "captioner", CaptioningTransformer(config, rngs=nnx.Rngs(0)))
    with pytest.raises(InputError, match="holds a CaptioningTransformer, expected a VisionTransformer"):
        finetune.run(finetune.Config(**TINY, source=str(tmp_path / "captioner")))
    with pytest.raises(InputError, match="no file or folder"):
        finetune.run(finetune.Config(**TINY, source=str(tmp_path / "nothing")))


def test_both_networks_learn_and_are_drawn(tmp_path):
    config = cnn_vs_vit.Config(
        **{**TINY, "epochs": 6}, examples=640, learning_rate=3e-3, out=tmp_path, json=tmp_path / "figures.json"
    )
    cnn_vs_vit.run(config)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["CNN accuracy"] > 0.3
    assert figures["ViT accuracy"] > 0.3
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert type(open_model(tmp_path / "cnn")[0]).__name__ == "ConvNet"
    with pytest.raises(InputError, match=r"examples is 10, expected 64 \(a batch\) to 1438"):
        cnn_vs_vit.run(cnn_vs_vit.Config(**TINY, examples=10))
