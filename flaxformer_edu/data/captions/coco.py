"""The captioning folder of CS231n (`coco_captioning`), and any other folder in its layout."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from flaxformer_edu.data.captions.dataset import SPECIAL_WORDS
from flaxformer_edu.data.formats.h5 import read_h5
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import read_json_object

SPLITS = ("train", "val")


def load_coco(
    folder: str | Path,
    max_train: int | None = None,
    pca_features: bool = True,
    seed: int = 0,
    *,
    features: bool = True,
) -> dict[str, Any]:
    """Everything in the folder under the names of CS231n's `load_coco_data`, checked.

    For each split: `{split}_captions` (caption, length) and `{split}_image_idxs` (caption,), integers;
    `{split}_features` (picture, width) float32, and `{split}_urls` (picture,). Besides, `idx_to_word` (a list) and
    `word_to_idx` (a dict). `pca_features` chooses the features reduced to 512 dimensions. `max_train` keeps that many
    training captions, chosen at random by `seed` and each at most once (the course draws with replacement, unseeded).
    Without `features` these are neither read nor needed: for models that see the pictures themselves.

    Raises `InputError`, naming the file, for whatever is missing, truncated or contradicts the rest.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"no folder {folder}; unpack CS231n's coco_captioning.zip there, or draw a set with "
            f"`flaxformer-edu data fetch pictures --out {folder}`"
        )
    if not (folder / "coco2014_captions.h5").is_file():
        raise InputError(
            f"no file {folder / 'coco2014_captions.h5'}; unpack CS231n's coco_captioning.zip again, or make a folder "
            "of your own pictures and captions with `flaxformer-edu data captions`"
        )
    keys = [f"{split}_{what}" for split in SPLITS for what in ("captions", "image_idxs")]
    data: dict[str, Any] = read_h5(folder / "coco2014_captions.h5", keys)
    data.update(read_vocabulary(folder / "coco2014_vocab.json"))
    for split in SPLITS:
        data[f"{split}_urls"] = read_lines(folder / f"{split}2014_urls.txt")
        file = folder / f"{split}2014_vgg16_fc7{'_pca' if pca_features else ''}.h5"
        if features:
            data[f"{split}_features"] = read_features(file)
        check_split(folder, data, split, file)
    if max_train is not None:
        if max_train < 1:
            raise InputError(f"max_train is {max_train}, expected 1 or more, or None for all captions")
        total = len(data["train_captions"])
        chosen = np.random.default_rng(seed).permutation(total)[:max_train]
        data["train_captions"] = data["train_captions"][chosen]
        data["train_image_idxs"] = data["train_image_idxs"][chosen]
    return data


def read_vocabulary(path: Path) -> dict[str, Any]:
    """`idx_to_word` and `word_to_idx` of a vocabulary file, checked to be each other's inverse."""
    vocabulary = read_json_object(path, remedy="unpack or download the folder again")
    try:
        idx_to_word, word_to_idx = list(vocabulary["idx_to_word"]), dict(vocabulary["word_to_idx"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no vocabulary (JSON with idx_to_word and word_to_idx); replace it") from error
    if not all(isinstance(word, str) for word in (*idx_to_word, *word_to_idx)):
        raise InputError(f"{path} is no vocabulary, its words are not all strings; replace it")
    if word_to_idx != {word: index for index, word in enumerate(idx_to_word)} or len(word_to_idx) != len(idx_to_word):
        raise InputError(f"{path}: idx_to_word and word_to_idx contradict each other; replace it")
    if missing := [word for word in SPECIAL_WORDS if word not in word_to_idx]:
        raise InputError(f"{path} lacks {', '.join(missing)}; replace it")
    if tuple(idx_to_word[: len(SPECIAL_WORDS)]) != SPECIAL_WORDS:
        raise InputError(
            f"{path} begins with {', '.join(idx_to_word[: len(SPECIAL_WORDS)])}, expected {', '.join(SPECIAL_WORDS)}, "
            "by which models know where captions begin and end; number the words anew, in the captions too"
        )
    return {"idx_to_word": idx_to_word, "word_to_idx": {word: index for index, word in enumerate(idx_to_word)}}


def read_features(path: Path) -> Float[np.ndarray, "picture width"]:
    """The features of a split's pictures, all finite. Raises `InputError` for a file with others, or without any."""
    if not path.is_file():
        raise InputError(
            f"no file {path}; the folder is incomplete, unpack or download it again. Of pictures of your own there are "
            "no features: train on the pictures (train.captioning --preset pixels)"
        )
    features = read_h5(path, ["features"])["features"]
    if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating) or not features.size:
        raise InputError(f"{path}: features is {features.dtype}{features.shape}, expected floats (pictures, width)")
    if not (np.isfinite(features.min()) and np.isfinite(features.max())):  # of one NaN, both are NaN
        raise InputError(f"{path}: features holds NaN or infinite numbers; the file is damaged, replace it")
    return features


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
    urls_file = folder / f"{split}2014_urls.txt"
    urls = data[f"{split}_urls"]
    features = data.get(f"{split}_features", urls)
    pictures_file = features_file if f"{split}_features" in data else urls_file
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
    check_marks(f"{file}: {split}_captions", captions)
    if pictures.min() < 0 or pictures.max() >= len(features):
        raise InputError(
            f"{file}: {split}_image_idxs runs from {pictures.min()} to {pictures.max()}, but {pictures_file.name} has "
            f"{len(features)} pictures; the two files belong to different data sets"
        )
    if len(urls) != len(features):
        raise InputError(
            f"{urls_file} has {len(urls)} lines, but {features_file.name} has "
            f"{len(features)} pictures; the two files belong to different data sets"
        )


def check_marks(where: str, captions: Integer[np.ndarray, "caption length"]) -> None:
    """Raise `InputError`, naming the first, unless each caption is `<START>`, words, `<END>`, and `<NULL>` to the end.

    Where a caption fills its row, `<END>` may have been cut off.
    """
    null, start, end, _ = range(len(SPECIAL_WORDS))
    length = (captions != null).sum(axis=1)  # with its marks, if all padding is at the end
    place = np.arange(captions.shape[1])
    last = captions[np.arange(len(captions)), np.maximum(length, 1) - 1]
    ended = (last == end) | (length == captions.shape[1])
    inside = (place > 0) & (place < (length - (last == end))[:, None])
    words = np.where(inside, captions, end + 1) > end
    right = (captions[:, 0] == start) & ended & words.all(axis=1)
    if not right.all():
        wrong = int(right.argmin())
        raise InputError(
            f"{where}: number {wrong} is {captions[wrong].tolist()}, expected <START> ({start}), words, <END> ({end}) "
            f"and <NULL> ({null}) to the end; the file is damaged"
        )
