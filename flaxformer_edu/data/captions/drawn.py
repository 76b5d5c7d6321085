"""The bundled picture set: drawn scenes in the file layout of CS231n's captioning folder, for `load_coco` to read."""

import io
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from flaxformer_edu.data.captions.dataset import SPECIAL_WORDS
from flaxformer_edu.data.captions.scenes import Scene, all_scenes, draw_scene
from flaxformer_edu.data.formats.h5 import write_h5
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import cache_folder, made_once, write_json, write_text, written_folder

CAPTION_LENGTH = 17  # as in CS231n's files
PCA_WIDTH = 512
_POOL = 4  # features start from means over squares of 4 x 4 pixels
_UNSEEN_SHARE = 0.2  # of the combinations, kept out of the training split


def default_folder() -> Path:
    """Where `picture_set` keeps the set in the cache."""
    return cache_folder() / "pictures"


def picture_set() -> Path:
    """The folder of the set as `write_pictures` draws it by default, drawn on the first call (some five seconds)."""
    return made_once(default_folder(), write_pictures)


def write_pictures(folder: str | Path, seed: int = 0, train: int = 4000, val: int = 500) -> Path:
    """Draw `train` + `val` pictures of 64 x 64 pixels with one caption each, and write them to a new folder.

    Every combination of the validation split is absent from the training split, though each word occurs in both.
    Beside the files that `load_coco` reads there are `{split}2014_images.txt` and `pictures.zip`. The `_pca` features
    are the first 512 principal components (fitted on the training split, so no more than it has pictures) of the
    pictures averaged down to 16 x 16 pixels, all divided by one number so that their standard deviation is 1; the
    others are those pixels themselves.

    Raises `InputError` where the folder holds something already, or a number is too small.
    """
    if train < 2 or val < 1:
        raise InputError(f"train is {train} and val is {val}, expected at least 2 and 1 pictures")
    random = np.random.default_rng(seed)
    scenes = all_scenes()
    order = random.permutation(len(scenes))
    unseen = round(_UNSEEN_SHARE * len(scenes))
    chosen = {"train": np.resize(order[unseen:], train), "val": np.resize(order[:unseen], val)}
    split_scenes = {split: [scenes[index] for index in indexes] for split, indexes in chosen.items()}
    images = {split: np.stack([draw_scene(scene, random) for scene in its]) for split, its in split_scenes.items()}
    with written_folder(Path(folder)) as draft:
        _write_captions(draft, split_scenes)
        _write_features(draft, images)
        _write_images(draft, images)
    return Path(folder)


def _write_captions(folder: Path, split_scenes: dict[str, list[Scene]]) -> None:
    words = sorted({word for scene in all_scenes() for word in scene.caption()})
    idx_to_word = [*SPECIAL_WORDS, *words]
    word_to_idx = {word: index for index, word in enumerate(idx_to_word)}
    vocabulary = {"idx_to_word": idx_to_word, "word_to_idx": word_to_idx}
    write_json(folder / "coco2014_vocab.json", vocabulary)
    arrays = {}
    for split, scenes in split_scenes.items():
        arrays[f"{split}_captions"] = np.stack([encode_caption(scene.caption(), word_to_idx) for scene in scenes])
        arrays[f"{split}_image_idxs"] = np.arange(len(scenes), dtype=np.int32)
    write_h5(folder / "coco2014_captions.h5", arrays)


def encode_caption(
    words: list[str], word_to_idx: dict[str, int], length: int = CAPTION_LENGTH
) -> Int[np.ndarray, "length"]:
    """`<START>`, the ids of the words (`<UNK>` for those not in the vocabulary), `<END>`, padded with `<NULL>`."""
    marked = ["<START>", *words, "<END>"]
    if len(marked) > length:
        raise InputError(f"caption {' '.join(words)!r} has {len(words)} words, at most {length - 2} fit")
    ids = [word_to_idx.get(word, word_to_idx["<UNK>"]) for word in marked]
    padding = [word_to_idx["<NULL>"]] * (length - len(ids))
    return np.array(ids + padding, dtype=np.int32)


def _write_features(folder: Path, images: dict[str, UInt8[np.ndarray, "_ 64 64 3"]]) -> None:
    pooled = {split: pooled_pixels(its) for split, its in images.items()}
    mean, components, scale = principal_components(pooled["train"], PCA_WIDTH)
    for split, pixels in pooled.items():
        reduced = (pixels - mean) @ components / scale
        write_h5(folder / f"{split}2014_vgg16_fc7.h5", {"features": pixels})
        write_h5(folder / f"{split}2014_vgg16_fc7_pca.h5", {"features": reduced.astype(np.float32)})


def pooled_pixels(images: UInt8[np.ndarray, "picture height width 3"]) -> Float[np.ndarray, "picture pixels"]:
    """Means over squares of 4 x 4 pixels, flattened, from 0 to 1."""
    pictures, height, width, channels = images.shape
    squares = images.reshape(pictures, height // _POOL, _POOL, width // _POOL, _POOL, channels)
    return (squares.mean((2, 4), dtype=np.float32) / 255).reshape(pictures, -1)


def principal_components(
    rows: Float[np.ndarray, "rows width"], number: int
) -> tuple[Float[np.ndarray, "width"], Float[np.ndarray, "width number"], float]:
    """The mean, the directions of largest variance, and the standard deviation of all that is projected on them.

    There are `number` directions, or as many as rows if those are fewer.
    """
    mean = rows.mean(0)
    _, spread, directions = np.linalg.svd(rows - mean, full_matrices=False)  # largest first
    return mean, directions[:number].T, float(np.sqrt((spread[:number] ** 2).mean() / len(rows)))


def _write_images(folder: Path, images: dict[str, UInt8[np.ndarray, "_ 64 64 3"]]) -> None:
    from PIL import Image

    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for split, its in images.items():
            names = [f"{split}_{index:05d}.png" for index in range(len(its))]
            write_text(folder / f"{split}2014_images.txt", "\n".join(names) + "\n")
            urls = "".join(f"pictures/{name}\n" for name in names)
            write_text(folder / f"{split}2014_urls.txt", urls)
            for name, image in zip(names, its, strict=True):
                encoded = io.BytesIO()
                Image.fromarray(image).save(encoded, format="PNG")
                archive.writestr(zipfile.ZipInfo(name), encoded.getvalue())
