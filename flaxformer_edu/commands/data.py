"""`flaxformer-edu data list | fetch | show | captions`: data sets, getting, drawing and making them."""

from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from flaxformer_edu.data.captions.own import write_caption_folder
from flaxformer_edu.data.sheet import caption_tiles, dataset_tiles, draw_sheet
from flaxformer_edu.data.sources import SOURCES, Source, source_named
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import check_target, write_json
from flaxformer_edu.locks import locked, wait


def list_sources(json: Path | None = None) -> int:
    """Print a table of the data sets: what each is, whether it is on this machine, where, and how large."""
    rows = [describe(source) for source in SOURCES.values()]
    table = Table(title="Data sets")
    for column in ("name", "what it is", "examples", "MB", "where"):
        table.add_column(column, justify="right" if column in ("examples", "MB") else "left", overflow="fold")
    for row in rows:
        where = row["place"] if row["ready"] else row["remedy"]
        table.add_row(row["name"], row["summary"], f"{row['examples']:,}", f"{row['megabytes']:,.0f}", where)
    Console(markup=False).print(table)
    if json is not None:
        write_json(json, rows)
    return 0


def fetch(name: str, out: Path | None = None) -> int:
    """Download the data set, or draw it, into the cache or the folder `out`. Raises InputError where it cannot be."""
    source = source_named(name)
    place = source.place()
    if source.fetch is None or place is None:
        raise InputError(f"{name} cannot be fetched: {describe(source)['remedy']}")
    if out is not None and not source.captions:
        raise InputError(f"{name} is always kept in {place}; set FLAXFORMER_EDU_CACHE to keep it elsewhere")
    if out is None and source.ready:
        Console().print(f"{name} is there already: {place}", soft_wrap=True, markup=False)
        return 0
    target, waited = (out or place).resolve(), False

    def wait_once(holder: str) -> None:
        nonlocal waited
        waited = True
        wait(holder)

    with locked(target.parent / f".{target.name}.lock", wait_once):
        if not (waited and target.exists()):
            source.fetch(target)
    Console().print(f"{name} is in {out or place}", soft_wrap=True, markup=False)
    return 0


def show(name: str, out: Path, folder: Path | None = None, split: str = "train", count: int = 24, seed: int = 0) -> int:
    """Draw `count` examples, chosen by `seed`, into the file `out`. Raises InputError for data that is not there."""
    if count < 1:
        raise InputError(f"count is {count}, expected 1 or more")
    if seed < 0:
        raise InputError(f"seed is {seed}, expected 0 or more")
    check_target(out)
    source = source_named(name)
    data = source.load(folder)
    splits = ("train", "val") if source.captions else tuple(data)
    if split not in splits:
        raise InputError(f"{name} has no split {split!r}; it has {', '.join(splits)}")
    random = np.random.default_rng(seed)
    if source.captions:
        say = partial(Console(stderr=True).print, soft_wrap=True, markup=False)
        tiles = caption_tiles(data, folder or source.place() or Path(), split, count, random, say)
    else:
        tiles = dataset_tiles(data[split], count, random)
    draw_sheet(out, tiles, title=f"{folder.name if folder else name}, {split}")
    Console().print(f"{len(tiles)} examples drawn in {out}", soft_wrap=True, markup=False)
    return 0


def make_captions(pictures: Path, captions: Path, out: Path, val: float, words: int, seed: int) -> int:
    """Make a captioning folder of one's own pictures, and say what it holds. Raises InputError where it cannot."""
    made = write_caption_folder(pictures, captions, out, val=val, words=words, seed=seed)
    Console().print(
        f"{made.pictures:,} pictures with {made.captions:,} captions are in {out}: {made.vocabulary:,} words, "
        f"{made.unknown:.1%} of those written are not among them, and no caption is longer than {made.length - 2}\n"
        f"train on it: python -m train.captioning --data {out} --preset pixels --out runs/mine",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    return 0


def describe(source: Source) -> dict:
    """A source as a row of the table: its size is that on disk, or of the download where it is not there yet."""
    place = source.place()
    size = megabytes(place) if place is not None and place.exists() else source.megabytes
    if source.fetch is not None:
        remedy = f"flaxformer-edu data fetch {source.name}"
    elif place is None:
        remedy = "it comes with an installed package"
    else:
        remedy = f"copy it from your course to {place}"
    return {
        "name": source.name,
        "summary": source.summary,
        "examples": source.examples,
        "ready": source.ready,
        "place": str(place) if place is not None else "installed",
        "megabytes": size,
        "remedy": remedy,
    }


def megabytes(place: Path) -> float:
    """The size of a file, or of all files in a folder."""
    files = place.rglob("*") if place.is_dir() else [place]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6
