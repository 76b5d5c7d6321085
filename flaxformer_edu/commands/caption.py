"""`flaxformer-edu caption`: pictures, or their features, in words, by a captioner that was trained here."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from flaxformer_edu import plots
from flaxformer_edu.commands.checkpoint import (
    open_checkpoint,
    picture_batches,
    preprocessing_of,
    read_thumbnails,
)
from flaxformer_edu.data import load_coco
from flaxformer_edu.decode import write_captions
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import write_json
from flaxformer_edu.models import CaptioningTransformer, ViTCaptioner


def caption(
    pictures: tuple[Path, ...] = (),
    *,
    checkpoint: Path,
    data: Path | None = None,
    split: Literal["train", "val"] = "val",
    index: tuple[int, ...] = (),
    beam: int = 1,
    out: Path | None = None,
    json: Path | None = None,
) -> int:
    """Print what the model says about pictures, or about those of a data folder. Raises InputError where it cannot."""
    if bool(pictures) == bool(index) or bool(index) != (data is not None):
        raise InputError("nothing to caption: name image files, or else --data FOLDER and --index with its pictures")
    if out is not None:
        plots.check_figure_name(out)
    remedy = "which does not write captions: for classes use `flaxformer-edu classify`"
    model, notes = open_checkpoint(checkpoint, (CaptioningTransformer,), ("idx_to_word",), remedy)
    sees_pixels = isinstance(model, ViTCaptioner)
    if pictures and not sees_pixels:
        raise InputError(
            f"{checkpoint} holds a model that sees features, not pictures: hand in --data FOLDER and --index, "
            "or train one on pixels (python -m train.captioning --preset pixels)"
        )
    loaded = None if data is None else chosen(data, split, index, features=not sees_pixels)
    names = [str(path) for path in pictures] if loaded is None else loaded["urls"]
    words, texts, shown = list(notes["idx_to_word"]), [], []
    if sees_pixels:
        preprocessing = preprocessing_of(notes, model.config.vision)
        for squares, small in picture_batches(names, preprocessing, folder=data):
            images = np.asarray(preprocessing.normalise(squares))
            texts += write_captions(model, images, words, beam=beam)
            shown += small if out is not None else []
    elif loaded is not None:
        texts = write_captions(model, loaded["features"], words, beam=beam)
        shown = read_thumbnails(names, data) if out is not None else []
    rows = [{"picture": name, "caption": text} for name, text in zip(names, texts, strict=True)]
    table = Table("picture", "caption")
    for row in rows:
        table.add_row(row["picture"], row["caption"])
    Console(markup=False).print(table)
    if out is not None:
        plots.save_figure(plots.captioned_pictures(shown, texts), out)
    if json is not None:
        write_json(json, rows)
    return 0


def chosen(folder: Path, split: str, index: tuple[int, ...], *, features: bool) -> dict[str, Any]:
    """The `urls` of some pictures of a data folder, and their `features` if a model sees those."""
    data = load_coco(folder, features=features)
    number = len(data[f"{split}_urls"])
    if wrong := [i for i in index if not 0 <= i < number]:
        raise InputError(f"index {wrong[0]} is outside {folder}, whose split {split} has pictures 0 to {number - 1}")
    at = np.array(index)
    urls = [str(url) for url in data[f"{split}_urls"][at]]
    return {"urls": urls, "features": data[f"{split}_features"][at] if features else None}
