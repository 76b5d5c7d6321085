"""A run on the disk: what it is, its metrics, its checkpoints; and models saved and opened again.

    save_model("saved/digits", model, notes={"class_names": names})
    model, notes = open_model("runs/digits")         # of `save_model`, or what `fit(folder="runs/digits")` left there
    rows, _ = read_rows("runs/digits/metrics.jsonl")

Knows folders, JSON and trees of arrays, and nothing of training.
"""

from flaxformer_edu.runs.checkpoints import Checkpoints
from flaxformer_edu.runs.description import decode, describe_model, encode
from flaxformer_edu.runs.folder import DEVICES, open_model, save_model
from flaxformer_edu.runs.metrics import IN_FLIGHT
from flaxformer_edu.runs.rows import DivergedError, Row, read_rows
from flaxformer_edu.runs.run import Run

__all__ = [
    "DEVICES",
    "IN_FLIGHT",
    "Checkpoints",
    "DivergedError",
    "Row",
    "Run",
    "decode",
    "describe_model",
    "encode",
    "open_model",
    "read_rows",
    "save_model",
]
