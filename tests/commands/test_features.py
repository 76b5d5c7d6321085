"""`flaxformer-edu features`: one vector per picture, what the classifier sees, in .npz and .parquet; and neighbours."""

import importlib
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from flaxformer_edu.commands.features import features, nearest
from flaxformer_edu.data.preprocessing import Preprocessing
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.runs import save_model

KEPT = Preprocessing(size=8, resize="shortest", resize_to=9, mean=(0.5,), std=(0.5,))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    """A checkpoint, and seven pictures in three colours."""
    folder = tmp_path_factory.mktemp("place")
    config = ViTConfig.b16(image_size=8, patch_size=4, width=8, layers=1, heads=2, hidden=12, classes=3)
    save_model(folder / "vit", VisionTransformer(config, rngs=nnx.Rngs(0)), notes=KEPT.notes())
    (folder / "pictures" / "below").mkdir(parents=True)
    for number in range(7):
        colour = [(200, 30, 30), (30, 200, 30), (30, 30, 200)][number % 3]
        noise = np.random.default_rng(number).integers(-20, 20, (12, 9 + number, 3))
        place = folder / "pictures" / ("below" if number > 4 else "") / f"{number}.png"
        Image.fromarray((np.array(colour) + noise).astype(np.uint8)).save(place)
    return folder


def test_what_the_classifier_sees(place, tmp_path, capsys):
    out, sheet = tmp_path / "f.npz", tmp_path / "sheet.png"
    (place / "pictures" / "broken.jpg").write_text("no picture")
    assert features((place / "pictures",), checkpoint=place / "vit", out=out, neighbours=sheet, batch=3) == 0
    (place / "pictures" / "broken.jpg").unlink()
    said = capsys.readouterr()
    assert "7 pictures, 8 features of each" in said.out
    assert "left out: " in said.err
    assert "broken.jpg is no picture" in said.err
    kept = np.load(out)
    assert [name.rpartition("/")[2] for name in kept["files"]] == [f"{number}.png" for number in range(7)]
    model = VisionTransformer(
        ViTConfig.b16(image_size=8, patch_size=4, width=8, layers=1, heads=2, hidden=12, classes=3), rngs=nnx.Rngs(0)
    )
    for name, vector in zip(kept["files"], kept["features"], strict=True):
        image = KEPT.normalise(KEPT.square(np.asarray(Image.open(name)))[None])
        tokens = model.tokens(jnp.asarray(image))
        np.testing.assert_allclose(vector, model.pool(tokens)[0], atol=1e-5)
    assert np.asarray(Image.open(sheet).convert("L")).std() > 10


@pytest.mark.one_mode
def test_parquet(place, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    files = tuple(sorted((place / "pictures").glob("*.png")))
    for out in (tmp_path / "f.npz", tmp_path / "f.parquet"):
        features(files, checkpoint=place / "vit", out=out)
    table, arrays = parquet.read_table(tmp_path / "f.parquet").to_pydict(), np.load(tmp_path / "f.npz")
    assert table["file"] == arrays["files"].tolist() == list(map(str, files))
    np.testing.assert_array_equal(np.array(table["features"], np.float32), arrays["features"])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"needs the extra parquet: pip install 'flaxformer-edu\[parquet\]'"):
        features(files, checkpoint=place / "vit", out=tmp_path / "g.parquet")
    assert importlib.util.find_spec("pyarrow")


@pytest.mark.no_nnx
def test_the_nearest_are_found():
    vectors = np.array([[1, 0], [3, 0.1], [0, 1], [0, 2.0], [-1, 0]], np.float32)
    assert nearest(vectors, [0, 3], 2).tolist() == [[1, 2], [2, 1]]
    assert nearest(np.zeros((2, 2), np.float32), [1], 1).tolist() == [[0]]


@pytest.mark.one_mode
def test_what_cannot_be_done_is_said(place, tmp_path):
    given, options = (place / "pictures",), {"checkpoint": place / "vit"}
    for out, message in (("f.txt", r"does not end in \.npz or \.parquet: call it f\.npz"), (".", "does not end")):
        with pytest.raises(InputError, match=message):
            features(given, **options, out=tmp_path / out)
    out = tmp_path / "f.npz"
    with pytest.raises(InputError, match="batch is 0"):
        features(given, **options, out=out, batch=0)
    with pytest.raises(InputError, match=r"sheet\.txt does not end in a kind of picture"):
        features(given, **options, out=out, neighbours=tmp_path / "sheet.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no picture in .*empty: name a folder, or image files"):
        features((tmp_path / "empty",), **options, out=out)
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(InputError, match="none of the 1 pictures can be read"):
        features((tmp_path / "bad.png",), **options, out=out)
    with pytest.raises(InputError, match="a picture alone has no neighbours"):
        features((place / "pictures" / "1.png",), **options, out=out, neighbours=tmp_path / "s.png")
    with pytest.raises(InputError, match=r"no checkpoint .*gone"):
        features(given, checkpoint=tmp_path / "gone", out=out)
