"""The options of `flaxformer-edu data`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg, subcommand

Action = Callable[[], int]  # run at the end, by `data`: tyro reports an error that it meets while parsing as its own


def data_list(json: Annotated[Path | None, arg(metavar="FILE")] = None) -> Action:
    """List the data sets: what each is, whether it is on this machine, where, and how large.

    For example:
    $ flaxformer-edu data list
    $ flaxformer-edu data list --json data.json

    Args:
        json: also write the rows to this file.
    """
    from flaxformer_edu.commands.data import list_sources

    return partial(list_sources, json)


def data_fetch(name: Positional[str], out: Annotated[Path | None, arg(metavar="FOLDER")] = None) -> Action:
    """Download a data set (checked against its published checksum), or draw it.

    For example:
    $ flaxformer-edu data fetch cifar10
    $ flaxformer-edu data fetch pictures --out my_pictures

    Args:
        name: cifar10, mnist, coco or pictures.
        out: the folder to make (coco and pictures); otherwise one in the cache, which FLAXFORMER_EDU_CACHE can name.
    """
    from flaxformer_edu.commands.data import fetch

    return partial(fetch, name, out)


def data_show(
    name: Positional[str],
    out: Annotated[Path, arg(metavar="FILE")],
    folder: Path | None = None,
    split: str = "train",
    count: int = 24,
    seed: int = 0,
) -> Action:
    """Draw a sheet of examples with their labels or captions.

    For example:
    $ flaxformer-edu data show digits --out digits.png
    $ flaxformer-edu data show coco --folder coco_captioning --split val --out captions.png

    Args:
        name: digits, pictures, mnist, cifar10, coco or lang_id.
        out: the picture to write; its ending (.png, .pdf, .svg) says which kind.
        folder: where the data is, if not in the cache.
        split: train, or test, dev or val, as the data set calls its other parts.
        count: how many examples to draw.
        seed: which examples are chosen.
    """
    from flaxformer_edu.commands.data import show

    return partial(show, name, out, folder, split, count, seed)


def data_captions(
    pictures: Annotated[Positional[Path], arg(metavar="FOLDER")],
    captions: Annotated[Positional[Path], arg(metavar="JSON_OR_TSV")],
    out: Annotated[Path, arg(metavar="FOLDER")],
    val: float = 0.1,
    words: int = 5000,
    seed: int = 0,
) -> Action:
    """Make a data set of your own pictures and captions, for train.captioning --preset pixels.

    Captions are JSON, {"file": ["caption", ...]} or COCO's with images and annotations, or a .tsv file with lines of
    file, tab, caption. Files are named as they lie in the folder of pictures.

    For example:
    $ flaxformer-edu data captions my_pictures captions.json --out my_set
    $ flaxformer-edu data show coco --folder my_set --out sheet.png
    $ python -m train.captioning --data my_set --preset pixels --out runs/mine

    Args:
        pictures: the folder with the pictures; those without a caption are left out.
        captions: the captions of each file.
        out: the folder to make.
        val: the share of the pictures that is not trained on.
        words: how many words the model may use, the most frequent ones.
        seed: which pictures are not trained on.
    """
    from flaxformer_edu.commands.data import make_captions

    return partial(make_captions, pictures, captions, out, val, words, seed)


def data(
    action: Annotated[Action, subcommand("list", constructor=data_list)]
    | Annotated[Action, subcommand("fetch", constructor=data_fetch)]
    | Annotated[Action, subcommand("show", constructor=data_show)]
    | Annotated[Action, subcommand("captions", constructor=data_captions)],
) -> int:
    """Which data sets there are; get them; look at them; make one of your own pictures.

    For example:
    $ flaxformer-edu data list
    $ flaxformer-edu data show digits --out digits.png
    """
    return action()
