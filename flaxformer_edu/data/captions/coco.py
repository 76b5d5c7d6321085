"""The captioning folder of CS231n (`coco_captioning`), and any other folder in its layout."""

from pathlib import Path
from typing import Any

import numpy as np

from flaxformer_edu.data.captions.dataset import SPECIAL_WORDS
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import read_json_object

SPLITS = ("train", "val")


def load_coco(
    folder: str | Path, max_train: int | None = None, pca_features: bool = True, seed: int = 0
) -> dict[str, Any]:
    """Everything in the folder under the names of CS231n's `load_coco_data`, checked.

    For each split: `{split}_captions` (caption, length) and `{split}_image_idxs` (caption,), integers;
    `{split}_features` (picture, width) float32, and `{split}_urls` (picture,). Besides, `idx_to_word` (a list) and
    `word_to_idx` (a dict). `pca_features` chooses the features reduced to 512 dimensions. `max_train` keeps that many
    training captions, chosen at random by `seed` and each at most once (the course draws with replacement, unseeded).

    Raises `InputError`, naming the file, for whatever is missing, truncated or contradicts the rest.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"no folder {folder}; unpack CS231n's coco_captioning.zip there, or draw a set with "
            f"`flaxformer-edu data fetch pictures --out {folder}`"
        )
    keys = [f"{split}_{what}" for split in SPLITS for what in ("captions", "image_idxs")]
    data: dict[str, Any] = read_h5(folder / "coco2014_captions.h5", keys)
    data.update(read_vocabulary(folder / "coco2014_vocab.json"))
    for split in SPLITS:
        features = folder / f"{split}2014_vgg16_fc7{'_pca' if pca_features else ''}.h5"
        data[f"{split}_features"] = read_h5(features, ["features"])["features"]
        data[f"{split}_urls"] = read_lines(folder / f"{split}2014_urls.txt")
        check_split(folder, data, split, features)
    if max_train is not None:
        if max_train < 1:
            raise InputError(f"max_train is {max_train}, expected 1 or more, or None for all captions")
        total = len(data["train_captions"])
        chosen = np.random.default_rng(seed).permutation(total)[:max_train]
        data["train_captions"] = data["train_captions"][chosen]
        data["train_image_idxs"] = data["train_image_idxs"][chosen]
    return data


def read_h5(path: Path, keys: list[str]) -> dict[str, np.ndarray]:
    """The data sets `keys` of an HDF5 file, whole. Raises `InputError` naming the file and the missing key."""
    import h5py

    if not path.is_file():
        raise InputError(f"no file {path}; the folder is incomplete, unpack or download it again")
    try:
        with h5py.File(path, "r") as file:
            for key in keys:
                if not isinstance(file.get(key), h5py.Dataset):
                    raise InputError(f"{path} has no data set '{key}' (it has {', '.join(file) or 'none'}); replace it")
            return {key: np.asarray(file[key]) for key in keys}
    except OSError as error:
        raise InputError(f"{path} is truncated or no HDF5 file; download or unpack it again ({error})") from error


def read_vocabulary(path: Path) -> dict[str, Any]:
    """`idx_to_word` and `word_to_idx` of a vocabulary file, checked to be each other's inverse."""
    vocabulary = read_json_object(path, remedy="unpack or download the folder again")
    try:
        idx_to_word, word_to_idx = list(vocabulary["idx_to_word"]), dict(vocabulary["word_to_idx"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no vocabulary (JSON with idx_to_word and word_to_idx); replace it") from error
    if word_to_idx != {word: index for index, word in enumerate(idx_to_word)}:
        raise InputError(f"{path}: idx_to_word and word_to_idx contradict each other; replace it")
    missing = [word for word in SPECIAL_WORDS if word not in word_to_idx]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}; replace it")
    return {"idx_to_word": idx_to_word, "word_to_idx": word_to_idx}


def read_lines(path: Path) -> np.ndarray:
    """The lines of a text file as an array of strings, empty ones left out."""
    try:
        return np.asarray([line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()])
    except FileNotFoundError as error:
        raise InputError(f"no file {path}; the folder is incomplete, unpack or download it again") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text file; replace it") from error


def check_split(folder: Path, data: dict[str, Any], split: str, features_file: Path) -> None:
    """Raise `InputError` where captions, pictures, features and vocabulary of a split do not fit together."""
    captions, pictures = data[f"{split}_captions"], data[f"{split}_image_idxs"]
    features, urls = data[f"{split}_features"], data[f"{split}_urls"]
    vocabulary = len(data["idx_to_word"])
    file = folder / "coco2014_captions.h5"
    integers = np.issubdtype(captions.dtype, np.integer) and np.issubdtype(pictures.dtype, np.integer)
    if not integers or captions.ndim != 2 or pictures.shape != captions.shape[:1] or not captions.size:
        raise InputError(
            f"{file}: {split}_captions is {captions.dtype}{captions.shape} and {split}_image_idxs "
            f"{pictures.dtype}{pictures.shape}, expected integers (captions, length) and (captions,); replace it"
        )
    if captions.min() < 0 or captions.max() >= vocabulary:
        raise InputError(
            f"{file}: {split}_captions holds word ids from {captions.min()} to {captions.max()}, but "
            f"coco2014_vocab.json has {vocabulary} words; the two files belong to different data sets"
        )
    if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
        raise InputError(
            f"{features_file}: features is {features.dtype}{features.shape}, expected floats (pictures, width)"
        )
    if pictures.min() < 0 or pictures.max() >= len(features):
        raise InputError(
            f"{file}: {split}_image_idxs runs from {pictures.min()} to {pictures.max()}, but {features_file.name} has "
            f"{len(features)} pictures; the two files belong to different data sets"
        )
    if len(urls) != len(features):
        raise InputError(
            f"{folder / f'{split}2014_urls.txt'} has {len(urls)} lines, but {features_file.name} has "
            f"{len(features)} pictures; the two files belong to different data sets"
        )
