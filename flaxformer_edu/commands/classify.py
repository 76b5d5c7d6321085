"""`flaxformer-edu classify`: the classes of pictures, by a Vision Transformer from here or elsewhere."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from flaxformer_edu import plots
from flaxformer_edu.commands.checkpoint import (
    check_probabilities,
    open_checkpoint,
    picture_batches,
    preprocessing_of,
)
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import write_json
from flaxformer_edu.models import VisionTransformer

SHOWN_CLASSES = 3  # classes shown per picture


def classify(
    pictures: tuple[Path, ...],
    *,
    checkpoint: str | Path,
    classes: tuple[str, ...] = (),
    out: Path | None = None,
    json: Path | None = None,
) -> int:
    """Print what the model takes the pictures for. Raises InputError where there is no such model, or no picture."""
    if not pictures:
        raise InputError("no picture is given: name at least one image file")
    if out is not None:
        plots.check_figure_name(out)
    remedy = "which does not classify pictures: for captions use `flaxformer-edu caption`"
    model, notes = open_checkpoint(checkpoint, (VisionTransformer,), (), remedy)
    class_names = names_of_classes(checkpoint, model.config.classes, classes or notes.get("class_names"))
    preprocessing = preprocessing_of(notes, model.config)
    parts, shown = [], []
    for squares, small in picture_batches(pictures, preprocessing):
        logits = model(jnp.asarray(preprocessing.normalise(squares)))
        parts.append(np.asarray(jax.nn.softmax(logits.astype(np.float32))))
        shown += small if out is not None else []
    probabilities = np.concatenate(parts)
    check_probabilities(probabilities, pictures)
    rows = []
    for path, row in zip(pictures, probabilities, strict=True):
        best = np.argsort(-row)[:SHOWN_CLASSES]
        shares = [{"class": class_names[i], "probability": float(row[i])} for i in best]
        rows.append({"picture": str(path), "classes": shares})
    Console(markup=False).print(table(rows))
    if out is not None:
        titles = ["{class} ({probability:.2f})".format(**row["classes"][0]) for row in rows]
        plots.save_figure(plots.captioned_pictures(shown, titles), out)
    if json is not None:
        write_json(json, rows)
    return 0


def names_of_classes(source: str | Path, count: int | None, given: Sequence[str] | None) -> list[str]:
    """A name for each of the model's classes: those given, or the lines of the one file that is given.

    Raises InputError where there are none, or of another number.
    """
    if count is None:
        raise InputError(f"{source} has no classifier: train one with python -m train.finetune --from {source}")
    if given is None:
        raise InputError(
            f"{source} has {count} classes without names: hand them in with --classes, as words or as a file with one "
            "per line"
        )
    names = list(given)
    if len(names) == 1 and (Path(names[0]).is_file() or count > 1):
        names = read_lines(Path(names[0]))
    if len(names) != count:
        raise InputError(f"there are {len(names)} names of classes, but {source} has {count} classes")
    return names


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty. Raises InputError where there is none, or it is no text."""
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a text file with one name per line ({error})") from error


def table(rows: list[dict]) -> Table:
    """Picture, and the likeliest classes with their probabilities."""
    result = Table("picture", "class", "and next")
    for row in rows:
        first, *others = ["{class} {probability:.3f}".format(**entry) for entry in row["classes"]]
        result.add_row(row["picture"], first, ", ".join(others))
    return result
