"""One's own pictures: a folder with a subfolder for each class, or a CSV with the columns `file` and `label`."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaxformer_edu.data.arrays import ArrayDataset, Pixels
from flaxformer_edu.data.image_sets.digits import stratified_split
from flaxformer_edu.data.images import PictureReader
from flaxformer_edu.data.preprocessing import Preprocessing
from flaxformer_edu.errors import InputError
from flaxformer_edu.waiting import shown_progress

ENDINGS = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"}
HELD_OUT = ("val", "valid", "validation", "test")  # beside a folder `train`
PICTURE_FORMS = "expected a folder with a subfolder of pictures per class, or a .csv with the columns file and label"
LARGEST = 8 << 30  # bytes of memory, of all pictures
SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Labelled:
    """Pictures by their names in a folder, and what is on each."""

    folder: Path
    names: list[str]
    labels: list[str]


def has_pictures(place: Path) -> bool:
    """Whether this is a set of one's own pictures, and not a known set's folder."""
    if place.suffix.lower() == ".csv":
        return True
    return place.is_dir() and any(True for folder in subfolders(place) for _ in _pictures(folder))


def load_pictures(
    place: str | Path, preprocessing: Preprocessing, *, val: float = 0.2, seed: int = 0
) -> dict[str, ArrayDataset]:
    """Splits `train` and `val`: `images` as the model sees them, not yet normalised, and `labels` int32.

    Folders `train` and `val` (or `test`) are those splits; otherwise a share `val` of each class, chosen by `seed`, is
    held out. Classes are the names of the subfolders, or the labels of the CSV, in alphabetical order.
    Raises InputError where there are no pictures, naming those that cannot be read, where a class is not trained, and
    where all together are too large for the memory.
    """
    parts = _parts(Path(place), val, seed)
    class_names = sorted(set(parts["train"].labels))
    if len(class_names) < 2:
        raise InputError(f"{place} has pictures of {', '.join(class_names) or 'no class'} alone, {PICTURE_FORMS}")
    if strange := sorted(set(parts["val"].labels) - set(class_names)):
        raise InputError(f"{place}: none of the pictures to train on is {', '.join(strange[:SHOWN])}: add some")
    count = sum(len(part.names) for part in parts.values())
    size = count * preprocessing.size**2 * preprocessing.channels
    size *= 4 if preprocessing.arithmetic == "torch_float" else 1
    if size > LARGEST:
        raise InputError(
            f"the {count:,} pictures in {place} would take {size / 1e9:.1f} GB of memory at "
            f"{preprocessing.size} x {preprocessing.size} pixels: hand in fewer, or make them smaller (--image-size)"
        )
    return {
        split: ArrayDataset(
            name=f"{Path(place).name}/{split}",
            arrays={
                "images": _squares(part, preprocessing),
                "labels": np.array([class_names.index(label) for label in part.labels], np.int32),
            },
            class_names=tuple(class_names),
            pixels=Pixels(preprocessing.mean, preprocessing.std),
        )
        for split, part in parts.items()
    }


def measure_pixels(images: np.ndarray) -> Pixels:
    """The mean and standard deviation of each channel, of pixels from 0 to 1, to four digits."""
    levels = np.arange(256) / 255
    counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])])
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ levels
    std = np.sqrt(np.maximum(shares @ levels**2 - mean**2, 1 / 255**2))  # of one colour alone, a level
    return Pixels(tuple(np.round(mean, 4).tolist()), tuple(np.round(std, 4).tolist()))


def subfolders(place: Path) -> list[Path]:
    """Those that are not hidden, by name."""
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))


def pictures_in(folder: Path) -> list[Path]:
    """All files below a folder whose names end as pictures' do, in order."""
    return sorted(_pictures(folder))


def _pictures(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file():
            yield path


def _parts(place: Path, val: float, seed: int) -> dict[str, Labelled]:
    if place.suffix.lower() == ".csv":
        return _split(_from_csv(place), val, seed)
    if not place.is_dir():
        raise InputError(f"no folder {place}, {PICTURE_FORMS}")
    held_out = next((place / name for name in HELD_OUT if (place / name).is_dir()), None)
    if held_out is not None and (place / "train").is_dir():
        return {"train": _from_folder(place / "train"), "val": _from_folder(held_out)}
    return _split(_from_folder(place), val, seed)


def _from_folder(place: Path) -> Labelled:
    found = [(path, folder.name) for folder in subfolders(place) for path in pictures_in(folder)]
    if not found:
        raise InputError(f"{place} has no pictures in subfolders, {PICTURE_FORMS}")
    return Labelled(place, [str(path.relative_to(place)) for path, _ in found], [label for _, label in found])


def _from_csv(path: Path) -> Labelled:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}), {PICTURE_FORMS}") from error
    for number, row in enumerate(rows, start=2):
        if not (row.get("file") or "").strip() or not (row.get("label") or "").strip():
            raise InputError(f"{path}, line {number}: there is no file or no label: the first line is file,label")
    if not rows:
        raise InputError(f"{path} names no pictures, {PICTURE_FORMS}")
    return Labelled(path.parent, [row["file"].strip() for row in rows], [row["label"].strip() for row in rows])


def _split(whole: Labelled, val: float, seed: int) -> dict[str, Labelled]:
    kept, held = stratified_split(np.unique(whole.labels, return_inverse=True)[1], val, seed)
    if not len(held):
        raise InputError(f"{whole.folder} has too few pictures of each class to hold out {val:.0%} of them: add some")
    return {split: _chosen(whole, places) for split, places in (("train", kept), ("val", held))}


def _chosen(whole: Labelled, places: np.ndarray) -> Labelled:
    return Labelled(whole.folder, [whole.names[i] for i in places], [whole.labels[i] for i in places])


def _squares(part: Labelled, preprocessing: Preprocessing) -> np.ndarray:
    squares, failed = [], []
    with PictureReader(part.folder) as reader:
        for name in shown_progress(part.names, "pictures"):
            try:
                squares.append(preprocessing.square(reader.read(name, preprocessing.colours)))
            except InputError as error:
                failed.append(str(error))
    _refuse(part, failed)
    return np.stack(squares)


def _refuse(part: Labelled, failed: Sequence[str]) -> None:
    if failed:
        more = f"; and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
        raise InputError(
            f"{len(failed)} of {len(part.names)} pictures in {part.folder} cannot be used: "
            f"{'; '.join(failed[:SHOWN])}{more}: replace them, or take them out"
        )
