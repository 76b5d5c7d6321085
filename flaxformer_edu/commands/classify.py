"""`flaxformer-edu classify`: the classes of pictures, by a Vision Transformer that was trained here."""

from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from flaxformer_edu import plots
from flaxformer_edu.commands.checkpoint import (
    check_probabilities,
    open_checkpoint,
    picture_batches,
)
from flaxformer_edu.data import normalise
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import write_json
from flaxformer_edu.models import VisionTransformer

SHOWN_CLASSES = 3  # classes shown per picture


def classify(
    pictures: tuple[Path, ...],
    *,
    checkpoint: Path,
    out: Path | None = None,
    json: Path | None = None,
) -> int:
    """Print what the model takes the pictures for. Raises InputError where there is no such model, or no picture."""
    if not pictures:
        raise InputError("no picture is given: name at least one image file")
    if out is not None:
        plots.check_figure_name(out)
    remedy = "which does not classify pictures: for captions use `flaxformer-edu caption`"
    model, notes = open_checkpoint(checkpoint, (VisionTransformer,), ("class_names", "mean", "std"), remedy)
    parts, shown = [], []
    for squares, small in picture_batches(pictures, model.config.image_size, model.config.channels):
        images = normalise(squares, notes["mean"], notes["std"])
        parts.append(np.asarray(jax.nn.softmax(model(images).astype(np.float32))))
        shown += small if out is not None else []
    probabilities = np.concatenate(parts)
    check_probabilities(probabilities, pictures)
    rows = []
    for path, row in zip(pictures, probabilities, strict=True):
        best = np.argsort(-row)[:SHOWN_CLASSES]
        classes = [{"class": notes["class_names"][i], "probability": float(row[i])} for i in best]
        rows.append({"picture": str(path), "classes": classes})
    Console(markup=False).print(table(rows))
    if out is not None:
        titles = ["{class} ({probability:.2f})".format(**row["classes"][0]) for row in rows]
        plots.save_figure(plots.captioned_pictures(shown, titles), out)
    if json is not None:
        write_json(json, rows)
    return 0


def table(rows: list[dict]) -> Table:
    """Picture, and the likeliest classes with their probabilities."""
    result = Table("picture", "class", "and next")
    for row in rows:
        first, *others = ["{class} {probability:.3f}".format(**entry) for entry in row["classes"]]
        result.add_row(row["picture"], first, ", ".join(others))
    return result
