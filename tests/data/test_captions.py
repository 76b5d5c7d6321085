"""The captioning folder: read as the course reads it, and refused, with the file named, where it is damaged."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from flaxformer_edu.data import Batches, caption_dataset, decode_captions, evaluation_batches, load_coco, write_pictures
from flaxformer_edu.data.captions.drawn import encode_caption
from flaxformer_edu.data.captions.scenes import COLOURS, RELATIONS, SHAPES, SIZES
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx

COURSE_KEYS = {
    *("train_captions", "train_image_idxs", "val_captions", "val_image_idxs", "train_features", "val_features"),
    *("idx_to_word", "word_to_idx", "train_urls", "val_urls"),
}


def edit(path: Path, key: str, change: Callable[[np.ndarray], np.ndarray] | None) -> None:
    with h5py.File(path, "r+") as file:
        values = np.asarray(file[key])
        del file[key]
        if change is not None:
            file[key] = change(values)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_the_keys_are_those_of_the_course(drawn: Path):
    data = load_coco(drawn)
    assert set(data) == COURSE_KEYS
    assert data["train_captions"].shape == (40, 17)
    assert data["train_features"].shape == (40, 40)
    assert load_coco(drawn, pca_features=False)["val_features"].shape == (12, 768)


def test_max_train_chooses_captions_by_its_seed(drawn: Path):
    whole, few = load_coco(drawn), load_coco(drawn, max_train=7, seed=5)
    rows = [np.flatnonzero((whole["train_captions"] == caption).all(1)) for caption in few["train_captions"]]
    assert len(rows) == 7
    assert all(picture in row for row, picture in zip(rows, few["train_image_idxs"], strict=True))
    assert len(few["train_features"]) == 40
    assert len(few["val_captions"]) == 12
    assert np.array_equal(few["train_image_idxs"], load_coco(drawn, max_train=7, seed=5)["train_image_idxs"])
    assert not np.array_equal(few["train_image_idxs"], load_coco(drawn, max_train=7, seed=6)["train_image_idxs"])
    assert len(load_coco(drawn, max_train=1000)["train_captions"]) == 40
    with pytest.raises(InputError, match=r"max_train is 0"):
        load_coco(drawn, max_train=0)


def test_a_batch_of_captions_brings_the_features_of_its_pictures(drawn: Path):
    data = load_coco(drawn, max_train=24)  # in another order than the pictures
    batch = Batches(caption_dataset(data, "train"), 8, seed=0)(3)
    rows = [np.flatnonzero((data["train_captions"] == caption).all(1)) for caption in batch["captions"]]
    assert batch["image_idxs"].tolist() == [data["train_image_idxs"][row[0]] for row in rows]
    assert np.array_equal(batch["features"], data["train_features"][batch["image_idxs"]])
    assert batch["captions"].shape == (8, 17)
    images = np.arange(12 * 4).reshape(12, 2, 2, 1)
    dataset = caption_dataset(data, "val", images=images)
    (last,) = evaluation_batches(dataset, 16)
    assert np.array_equal(last["images"][last["mask"]], images[data["val_image_idxs"]])
    with pytest.raises(InputError, match=r"table images has 3 rows, but split val has 12 pictures"):
        caption_dataset(data, "val", images=images[:3])


def test_decoding_is_that_of_the_course():
    words = ["<NULL>", "<START>", "<END>", "<UNK>", "a", "dog"]
    assert decode_captions(np.array([1, 4, 0, 5, 2, 4, 0]), words) == "<START> a dog <END>"
    assert decode_captions(np.array([[4, 5, 5], [2, 4, 4], [0, 0, 3]]), words) == ["a dog dog", "<END>", "<UNK>"]
    assert decode_captions(jnp.array([4, 5]), words) == "a dog"
    with pytest.raises(InputError, match=r"word id 6 is not in the vocabulary of 6 words"):
        decode_captions(np.array([4, 6]), words)
    with pytest.raises(InputError, match=r"word id -1"):
        decode_captions(np.array([-1]), words)


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("coco2014_captions.h5", Path.unlink, r"no file .*coco2014_captions\.h5"),
        ("coco2014_captions.h5", halve, r"coco2014_captions\.h5 is truncated"),
        (
            "coco2014_captions.h5",
            lambda path: edit(path, "val_captions", None),
            r"captions\.h5 has no .*'val_captions'",
        ),
        (
            "coco2014_captions.h5",
            lambda path: edit(path, "train_captions", lambda ids: ids + 9),
            r"captions\.h5: train_captions holds word ids from 9 to \d+, but coco2014_vocab\.json has 21 words",
        ),
        (
            "coco2014_captions.h5",
            lambda path: edit(path, "train_captions", lambda ids: ids - 1),
            r"train_captions holds word ids from -1",
        ),
        (
            "coco2014_captions.h5",
            lambda path: edit(path, "val_image_idxs", lambda indexes: indexes + 1),
            r"val_image_idxs runs from 1 to 12, but val2014_vgg16_fc7_pca\.h5 has 12 pictures",
        ),
        (
            "coco2014_captions.h5",
            lambda path: edit(path, "val_image_idxs", lambda indexes: indexes[:-1]),
            r"val_captions is int32\(12, 17\) and val_image_idxs int32\(11,\)",
        ),
        (
            "coco2014_captions.h5",
            lambda path: edit(path, "val_captions", lambda ids: ids.astype(float)),
            r"val_captions is float64",
        ),
        ("train2014_vgg16_fc7_pca.h5", halve, r"train2014_vgg16_fc7_pca\.h5 is truncated"),
        (
            "train2014_vgg16_fc7_pca.h5",
            lambda path: edit(path, "features", np.ravel),
            r"train2014_vgg16_fc7_pca\.h5: features is float32\(1600,\)",
        ),
        ("val2014_urls.txt", Path.unlink, r"no file .*val2014_urls\.txt"),
        ("val2014_urls.txt", halve, r"val2014_urls\.txt has \d+ lines, but val2014_vgg16_fc7_pca\.h5 has 12"),
        ("val2014_urls.txt", lambda path: path.write_bytes(b"\xff\xfe\x00"), r"val2014_urls\.txt is no text file"),
        ("coco2014_vocab.json", Path.unlink, r"no file .*coco2014_vocab\.json"),
        ("coco2014_vocab.json", halve, r"coco2014_vocab\.json is not valid JSON"),
        ("coco2014_vocab.json", lambda path: path.write_text("[1, 2]"), r"coco2014_vocab\.json holds a list"),
        (
            "coco2014_vocab.json",
            lambda path: path.write_text(json.dumps({"idx_to_word": ["a"], "word_to_idx": {"a": 1}})),
            r"contradict each other",
        ),
        (
            "coco2014_vocab.json",
            lambda path: path.write_text(json.dumps({"idx_to_word": ["<NULL>"], "word_to_idx": {"<NULL>": 0}})),
            r"lacks <START>, <END>, <UNK>",
        ),
    ],
)
def test_damage_is_named(folder: Path, file: str, damage: Callable[[Path], object], message: str):
    damage(folder / file)
    with pytest.raises(InputError, match=message):
        load_coco(folder)


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"no folder .*nowhere; unpack"):
        load_coco(tmp_path / "nowhere")


def test_validation_scenes_are_all_new_but_their_words_are_not(tmp_path: Path):
    data = load_coco(write_pictures(tmp_path / "set", seed=2, train=200, val=50))
    train = set(decode_captions(data["train_captions"], data["idx_to_word"]))
    val = set(decode_captions(data["val_captions"], data["idx_to_word"]))
    assert len(val) == 50
    assert not train & val
    assert set(" ".join(val).split()) <= set(" ".join(train).split())
    choices = [*SIZES, *COLOURS, *SHAPES, *" ".join(RELATIONS).split(), "a"]
    assert set(data["idx_to_word"][4:]) == set(choices)


def test_features_are_scaled_and_describe_unseen_pictures(tmp_path: Path):
    data = load_coco(write_pictures(tmp_path / "set", seed=2, train=600, val=100))
    features, val = data["train_features"], data["val_features"]
    assert features.std() == pytest.approx(1, abs=1e-3)
    assert np.abs(features.mean(0)).max() < 1e-3
    above = data["word_to_idx"]["above"]
    inputs = np.concatenate([features, np.ones((600, 1))], axis=1)
    target = (data["train_captions"] == above).any(1) * 2.0 - 1
    weights = np.linalg.solve(inputs.T @ inputs + 10 * np.eye(513), inputs.T @ target)  # ridge regression
    said = np.concatenate([val, np.ones((100, 1))], axis=1) @ weights > 0
    assert (said == (data["val_captions"] == above).any(1)).mean() > 0.85


def test_the_set_is_a_function_of_its_seed(tmp_path: Path, drawn: Path):
    same = write_pictures(tmp_path / "same", seed=1, train=40, val=12)
    other = write_pictures(tmp_path / "other", seed=2, train=40, val=12)
    assert (same / "pictures.zip").read_bytes() == (drawn / "pictures.zip").read_bytes()
    assert (other / "pictures.zip").read_bytes() != (drawn / "pictures.zip").read_bytes()


def test_nothing_is_overwritten_and_nothing_half_written_stays(folder: Path, tmp_path: Path, monkeypatch):
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(InputError, match=r"set already exists"):
        write_pictures(folder, train=4, val=2)
    assert {path.name for path in folder.iterdir()} == before
    monkeypatch.setattr("flaxformer_edu.data.captions.drawn._write_images", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_pictures(tmp_path / "new", train=4, val=2)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    with pytest.raises(InputError, match=r"train is 1 and val is 2"):
        write_pictures(tmp_path / "new", train=1, val=2)


def test_a_caption_that_is_too_long_is_refused():
    word_to_idx = {"<NULL>": 0, "<START>": 1, "<END>": 2, "<UNK>": 3, "a": 4}
    assert encode_caption(["a", "unicorn"], word_to_idx, length=5).tolist() == [1, 4, 3, 2, 0]
    with pytest.raises(InputError, match=r"has 4 words, at most 3 fit"):
        encode_caption(["a"] * 4, word_to_idx, length=5)


def test_flickr8k_in_the_courses_layout(real_data: Path):
    data = load_coco(real_data / "flickr8k_as_coco2014", max_train=50, seed=0)
    assert data["train_captions"].shape == (50, 17)
    assert data["train_features"].shape == (7091, 512)
    assert data["val_captions"].shape == (5000, 17)
    first = decode_captions(data["val_captions"][0], data["idx_to_word"])
    assert first == "<START> a man lays on a bench while his dog sits by him <END>"
