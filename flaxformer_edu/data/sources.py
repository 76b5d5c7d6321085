"""The data sets by name: what each is, where it is kept, and how it gets there."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flaxformer_edu.data.arrays import ArrayDataset
from flaxformer_edu.data.captions.coco import load_coco
from flaxformer_edu.data.captions.coco_download import fetch_coco
from flaxformer_edu.data.captions.drawn import default_folder, picture_set, write_pictures
from flaxformer_edu.data.image_sets.digits import load_digits
from flaxformer_edu.data.image_sets.loading import load_cifar10, load_mnist
from flaxformer_edu.data.image_sets.prepared import prepare, prepared_folder
from flaxformer_edu.data.words.lang_id import load_lang_id
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import cache_folder


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set that has a name.

    `place()` is where it is kept (None: inside a Python package), `fetch(place)` puts it there, and `load(place)`
    reads it: splits as `ArrayDataset`s, or for captions what `load_coco` returns without features.
    """

    name: str
    summary: str
    examples: int
    megabytes: int  # to download
    place: Callable[[], Path | None]
    load: Callable[[Path | None], dict[str, ArrayDataset] | dict[str, Any]]
    fetch: Callable[[Path], object] | None = None
    captions: bool = False

    @property
    def ready(self) -> bool:
        """Whether it can be read without fetching anything."""
        place = self.place()
        return place is None or place.exists()


SOURCES = {
    source.name: source
    for source in (
        Source(
            name="digits",
            summary="handwritten digits of 8 x 8 pixels, in scikit-learn",
            examples=1_797,
            megabytes=0,
            place=lambda: None,
            load=lambda _: load_digits(),
        ),
        Source(
            name="pictures",
            summary="drawn pictures with captions, in the layout of coco",
            examples=4_500,
            megabytes=0,
            place=default_folder,
            load=lambda folder: load_coco(folder or picture_set(), features=False),
            fetch=write_pictures,
            captions=True,
        ),
        Source(
            name="mnist",
            summary="handwritten digits of 28 x 28 pixels",
            examples=70_000,
            megabytes=12,
            place=lambda: prepared_folder("mnist"),
            load=load_mnist,
            fetch=lambda _: prepare("mnist"),
        ),
        Source(
            name="cifar10",
            summary="photographs of 32 x 32 pixels in ten classes",
            examples=60_000,
            megabytes=170,
            place=lambda: prepared_folder("cifar10"),
            load=load_cifar10,
            fetch=lambda _: prepare("cifar10"),
        ),
        Source(
            name="coco",
            summary="Microsoft COCO captions with VGG-16 features, as in CS231n",
            examples=596_089,
            megabytes=1_000,
            place=lambda: cache_folder() / "coco_captioning",
            load=lambda folder: load_coco(folder or cache_folder() / "coco_captioning", features=False),
            fetch=fetch_coco,
            captions=True,
        ),
        Source(
            name="lang_id",
            summary="words in five languages, from CS188",
            examples=18_500,
            megabytes=0,
            place=lambda: cache_folder() / "lang_id.npz",
            load=lambda path: load_lang_id(path or cache_folder() / "lang_id.npz"),
        ),
    )
}


def source_named(name: str) -> Source:
    """Raises `InputError` where there is none of that name."""
    if name not in SOURCES:
        raise InputError(f"no data set is called {name!r}; there are {', '.join(SOURCES)}")
    return SOURCES[name]
