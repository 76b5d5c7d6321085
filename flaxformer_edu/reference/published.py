"""The 18 tensors that two editions of the course print, and the comparison of ours with them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import numpy as np

from flaxformer_edu.errors import InputError
from flaxformer_edu.reference.recipes import RECIPES
from flaxformer_edu.reference.torch_random import TorchGenerator

Edition = Literal["cs231n", "xcs231n"]
# Which processor's dropout masks an edition was printed with: Intel's with MKL, or any other.
DROPOUT: dict[str, Literal["mkl", "generic"]] = {"cs231n": "mkl", "xcs231n": "generic"}
SEED = 231


@dataclass(frozen=True)
class Published:
    """A printed tensor. `tolerance` is half a unit of the last printed place, and 1e-6 for float32."""

    edition: str
    id: str
    title: str
    values: np.ndarray
    tolerance: float


@dataclass(frozen=True)
class Row:
    """How far our tensor is from the printed one."""

    edition: str
    id: str
    title: str
    max_abs_error: float
    max_rel_error: float
    tolerance: float
    ok: bool


def published_tensors(edition: str) -> list[Published]:
    """The tensors of one edition. Raises InputError for an edition that does not exist."""
    if edition not in DROPOUT:
        raise InputError(f"there is no edition {edition!r}: choose one of {', '.join(DROPOUT)}")
    text = files("flaxformer_edu.reference").joinpath("expected_tensors.json").read_text(encoding="utf-8")
    return [
        Published(
            edition=edition,
            id=tensor["id"],
            title=tensor["title"],
            values=np.array(tensor["values"]).reshape(tensor["shape"]),
            tolerance=0.5 * 10.0 ** -tensor["printed_decimals"] + 1e-6,
        )
        for tensor in json.loads(text)["tensors"]
        if tensor["edition"] == edition
    ]


def verify(edition: str) -> Iterator[Row]:
    """Compute the tensors of one edition, a recipe at a time, and compare them with the printed ones."""
    expected = {tensor.id: tensor for tensor in published_tensors(edition)}
    for recipe in RECIPES:
        for name, ours in recipe(TorchGenerator(SEED, dropout=DROPOUT[edition])).items():
            yield compare(expected[name], np.asarray(ours))


def compare(expected: Published, ours: np.ndarray) -> Row:
    """The largest absolute error decides; the relative one is the course's, |a - b| / (|a| + |b|)."""
    if ours.shape != expected.values.shape:
        raise InputError(f"{expected.id} has shape {ours.shape}, the course prints {expected.values.shape}")
    error = np.abs(ours.astype(np.float64) - expected.values)
    relative = error / np.maximum(1e-8, np.abs(ours) + np.abs(expected.values))
    largest = float(error.max())
    return Row(
        edition=expected.edition,
        id=expected.id,
        title=expected.title,
        max_abs_error=largest,
        max_rel_error=float(relative.max()),
        tolerance=expected.tolerance,
        ok=largest <= expected.tolerance,  # False for NaN
    )
