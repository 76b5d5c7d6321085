"""One's own pictures with captions, in the file layout of CS231n's captioning folder but without features."""

import io
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flaxformer_edu.data.captions.caption_files import read_captions, words_of
from flaxformer_edu.data.captions.coco import load_coco
from flaxformer_edu.data.captions.dataset import SPECIAL_WORDS
from flaxformer_edu.data.captions.drawn import encode_caption
from flaxformer_edu.data.formats.h5 import write_h5
from flaxformer_edu.data.images import PictureReader
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import write_json, write_text, written_folder

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SHORTER_SIDE = 256  # pixels: larger pictures are kept at this size, which is enough for the models here
LONGEST = 254  # words in a caption


@dataclass(frozen=True, kw_only=True)
class CaptionFolder:
    """What was made: how many pictures, captions and words in the vocabulary, and the share of words outside it.

    `length` is that of a row of captions, with its marks.
    """

    pictures: int
    captions: int
    vocabulary: int
    unknown: float
    length: int


def write_caption_folder(
    pictures: str | Path, captions: str | Path, out: str | Path, *, val: float = 0.1, words: int = 5000, seed: int = 0
) -> CaptionFolder:
    """A new folder `out`, for `load_coco(out, features=False)`, of the pictures in a folder that have captions.

    A share `val` of the pictures, chosen by `seed`, is the validation split. The vocabulary has the `words` most
    frequent words of the other captions. All pictures are kept in `pictures.zip`, upright and as PNGs.

    Raises `InputError`, which names it, for a picture that is missing or cannot be read, for a malformed row of the
    captions, and for a folder that holds something already.
    """
    texts = read_captions(captions)
    splits = _split(sorted(texts), val, seed)
    if words < 1:
        raise InputError(f"words is {words}, expected 1 or more")
    tokens = {name: [words_of(text) for text in its] for name, its in texts.items()}
    longest = max((len(caption), name) for name, its in tokens.items() for caption in its)
    if longest[0] > LONGEST:
        raise InputError(f"{captions}: a caption of {longest[1]!r} has {longest[0]} words, expected {LONGEST} at most")
    counts = Counter(word for name in splits["train"] for caption in tokens[name] for word in caption)
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[:words]
    idx_to_word = [*SPECIAL_WORDS, *frequent]
    word_to_idx = {word: index for index, word in enumerate(idx_to_word)}
    with written_folder(out) as draft:
        _write_pictures(draft, Path(pictures), splits)
        write_json(draft / "coco2014_vocab.json", {"idx_to_word": idx_to_word, "word_to_idx": word_to_idx})
        arrays = {}
        for split, names in splits.items():
            rows = [(place, caption) for place, name in enumerate(names) for caption in tokens[name]]
            encoded = [encode_caption(caption, word_to_idx, longest[0] + 2) for _, caption in rows]
            arrays[f"{split}_captions"] = np.stack(encoded)
            arrays[f"{split}_image_idxs"] = np.array([place for place, _ in rows], np.int32)
        write_h5(draft / "coco2014_captions.h5", arrays)
        load_coco(draft, features=False)  # what cannot be read is not left behind
    return CaptionFolder(
        pictures=len(texts),
        captions=sum(map(len, texts.values())),
        vocabulary=len(idx_to_word),
        unknown=_unknown(tokens, word_to_idx),
        length=longest[0] + 2,
    )


def _split(names: list[str], val: float, seed: int) -> dict[str, list[str]]:
    if not 0 < val < 1 or len(names) < 2:
        raise InputError(f"val is {val} of {len(names)} pictures, expected a share between 0 and 1 of 2 or more")
    if seed < 0:
        raise InputError(f"seed is {seed}, expected 0 or more")
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    held = min(max(1, round(val * len(names))), len(names) - 1)
    return {"train": [names[i] for i in sorted(order[held:])], "val": [names[i] for i in sorted(order[:held])]}


def _unknown(tokens: dict[str, list[list[str]]], word_to_idx: dict[str, int]) -> float:
    words = [word for its in tokens.values() for caption in its for word in caption]
    return sum(word not in word_to_idx for word in words) / len(words)


def _write_pictures(folder: Path, source: Path, splits: dict[str, list[str]]) -> None:
    from PIL import Image

    if not source.is_dir():
        raise InputError(f"no folder {source}: name the folder with the pictures")
    with PictureReader(source) as reader, zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for split, names in splits.items():
            members = [f"{split}_{place:06d}.png" for place in range(len(names))]
            for name, member in zip(names, members, strict=True):
                if "://" in name:
                    raise InputError(f"{name} is a place in the web: save the picture in {source}, and name the file")
                picture = Image.fromarray(reader.read(name))
                archive.writestr(zipfile.ZipInfo(member), _png(picture))
            write_text(folder / f"{split}2014_urls.txt", "".join(f"pictures/{member}\n" for member in members))
            write_text(folder / f"{split}2014_images.txt", "".join(f"{name}\n" for name in names))


def _png(picture: "Picture") -> bytes:
    from PIL import Image

    share = SHORTER_SIDE / min(picture.size)
    if share < 1:
        width, height = (max(1, round(side * share)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return content.getvalue()
