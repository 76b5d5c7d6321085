"""`flaxformer-edu features`: what a model makes of each picture in a folder, in one file; and which are alike."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from flaxformer_edu import plots
from flaxformer_edu.commands.checkpoint import open_checkpoint, preprocessing_of, read_thumbnails
from flaxformer_edu.data import PictureReader
from flaxformer_edu.data.image_sets.own import pictures_in
from flaxformer_edu.data.preprocessing import Preprocessing
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import check_target, written_file
from flaxformer_edu.models import VisionTransformer
from flaxformer_edu.waiting import shown_progress

QUERIES, NEAREST = 6, 5  # rows of the sheet, and pictures beside the first of each
BATCH = 32
REMEDY = "which sees no pictures: hand in a Vision Transformer"

Features = Float[np.ndarray, "picture feature"]


def features(
    places: tuple[Path, ...], *, checkpoint: str | Path, out: Path, neighbours: Path | None = None, batch: int = BATCH
) -> int:
    """Write the pooled vector of each picture, and draw a sheet of neighbours. Raises InputError where it cannot.

    A picture that cannot be read is named on standard error, and left out.
    """
    write = writer(out)
    check_target(out)
    if neighbours is not None:
        plots.check_figure_name(neighbours)
    if batch < 1:
        raise InputError(f"batch is {batch}, expected 1 or more")
    paths = named(places)
    model, notes = open_checkpoint(checkpoint, (VisionTransformer,), (), REMEDY)
    preprocessing = preprocessing_of(notes, model.config)
    names, vectors = embed(model, preprocessing, paths, batch)
    write(out, names, vectors)
    print(f"{len(names):,} pictures, {vectors.shape[1]} features of each: {out}")
    if neighbours is not None:
        draw_neighbours(neighbours, names, vectors)
        print(f"nearest neighbours: {neighbours}")
    return 0


def named(places: Sequence[Path]) -> list[Path]:
    """The files that are named, and all pictures in the folders. Raises InputError where there are none."""
    paths = [path for place in places for path in (pictures_in(place) if place.is_dir() else [place])]
    if not paths:
        raise InputError(f"no picture in {', '.join(map(str, places)) or 'nothing'}: name a folder, or image files")
    return paths


def embed(
    model: VisionTransformer, preprocessing: Preprocessing, paths: Sequence[Path], batch: int = BATCH
) -> tuple[list[str], Features]:
    """The pictures that can be read, and what the model pools of each: what its classifier would see, normalised.

    Raises InputError where no picture can be read, or the vectors are no numbers.
    """
    structure, params = nnx.split(model)

    @jax.jit
    def pooled(params: Any, images: Array) -> Array:
        merged = nnx.merge(structure, params)
        return merged.pool(merged.tokens(images)).astype(jnp.float32)

    names, vectors = [], []
    for some, squares in _squares(paths, preprocessing, batch):
        missing = np.zeros((batch - len(some), *squares.shape[1:]), squares.dtype)  # one shape: compiled once
        images = preprocessing.normalise(np.concatenate([squares, missing]))
        vectors.append(np.asarray(pooled(params, jnp.asarray(images)))[: len(some)])
        names += some
    if not names:
        raise InputError(f"none of the {len(paths)} pictures can be read: replace them")
    result = np.concatenate(vectors)
    if not (finite := np.isfinite(result).all(axis=1)).all():
        raise InputError(f"the features of {names[int(finite.argmin())]} are no numbers: train the model again")
    return names, result


def _squares(
    paths: Sequence[Path], preprocessing: Preprocessing, batch: int
) -> Iterator[tuple[list[str], np.ndarray]]:
    names, squares = [], []
    with PictureReader() as reader:
        for path in shown_progress(paths, "pictures"):
            try:
                squares.append(preprocessing.square(reader.read(str(path), preprocessing.colours)))
            except InputError as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            names.append(str(path))
            if len(names) == batch:
                yield names, np.stack(squares)
                names, squares = [], []
    if names:
        yield names, np.stack(squares)


def nearest(vectors: Features, queries: Sequence[int], count: int) -> Int[np.ndarray, "query neighbour"]:
    """The `count` vectors most like each of the queries, by the cosine of their angle, itself not among them."""
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    alike = units[list(queries)] @ units.T
    alike[np.arange(len(queries)), list(queries)] = -np.inf
    return np.argsort(-alike, axis=1, kind="stable")[:, :count]


def draw_neighbours(path: Path, names: Sequence[str], vectors: Features) -> None:
    """A sheet: in each row a picture, and those most like it. Raises InputError for fewer than two pictures."""
    if len(names) < 2:
        raise InputError(f"{path}: a picture alone has no neighbours")
    queries = np.unique(np.linspace(0, len(names) - 1, min(QUERIES, len(names))).astype(int)).tolist()
    found = nearest(vectors, queries, min(NEAREST, len(names) - 1))
    rows = [[str(names[i]) for i in (query, *row)] for query, row in zip(queries, found.tolist(), strict=True)]
    titles = [["/".join(Path(name).parts[-2:]) for name in row] for row in rows]  # the folder is often the class
    plots.save_figure(plots.neighbours([read_thumbnails(row) for row in rows], titles), path)


def writer(out: Path) -> Callable[[Path, list[str], Features], None]:
    """What writes such a file. Raises InputError for another ending, or where pyarrow is not installed for Parquet."""
    if out.suffix == ".npz":
        return write_npz
    if out.suffix != ".parquet":
        raise InputError(f"{out} does not end in .npz or .parquet: call it {out.stem}.npz")
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        remedy = "pip install 'flaxformer-edu[parquet]', or write .npz"
        raise InputError(f"{out} needs the extra parquet: {remedy}") from None
    return write_parquet


def write_npz(out: Path, names: list[str], vectors: Features) -> None:
    """Arrays `files` and `features`, for `numpy.load`."""
    with written_file(out) as draft, draft.open("wb") as file:
        np.savez(file, files=np.array(names), features=vectors)


def write_parquet(out: Path, names: list[str], vectors: Features) -> None:
    """Columns `file` and `features`, a list of numbers."""
    import pyarrow
    from pyarrow import parquet

    lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), vectors.shape[1])
    with written_file(out) as draft:
        parquet.write_table(pyarrow.table({"file": names, "features": lists}), draft)
