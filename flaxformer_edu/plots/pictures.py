"""Sheets of pictures: with captions, or with what a model wrongly took them for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float, Integer, UInt8

from flaxformer_edu.errors import InputError
from flaxformer_edu.plots.panels import COLOURS, WIDTH, new_figure, show_image, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def captioned_pictures(
    pictures: Sequence[UInt8[np.ndarray, "height width 3"]], captions: Sequence[str], *, columns: int = 3
) -> "Figure":
    """A sheet of pictures, each with its caption below."""
    figure = new_figure(columns, -(-len(pictures) // columns), width=WIDTH / columns, height=WIDTH / columns)
    axes = figure.subplots(-(-len(pictures) // columns), columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, picture, caption in zip(axes, pictures, captions, strict=False):
        axis.imshow(picture)
        axis.set_title(wrap(caption, 90 // columns), y=-0.02, pad=0, verticalalignment="top", fontsize=9)
    return figure


def neighbours(
    rows: Sequence[Sequence[UInt8[np.ndarray, "_height _width 3"]]], titles: Sequence[Sequence[str]]
) -> "Figure":
    """In each row a picture, framed, and those that are most like it."""
    columns = max(map(len, rows))
    figure = new_figure(columns, len(rows), width=WIDTH / columns, height=WIDTH / columns + 0.25)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for line, pictures, names in zip(axes, rows, titles, strict=True):
        for axis, picture, name in zip(line, pictures, names, strict=False):
            axis.axis("on")
            show_image(axis, picture)
            axis.set_title(name if len(name) <= 90 // columns else f"…{name[-90 // columns :]}", fontsize=8)
        for side in line[0].spines.values():
            side.set(color=COLOURS[1], linewidth=3)
    return figure


def misclassified(
    images: UInt8[np.ndarray, "example height width channel"],
    labels: Integer[Array | np.ndarray, "example"],
    probabilities: Float[Array | np.ndarray, "example class"],
    class_names: Sequence[str],
    *,
    count: int = 24,
    columns: int = 6,
) -> "Figure":
    """The mistakes of which the model was surest, as `4 -> 9`: the label, and what it was taken for.

    Below stands the probability given to either. Raises InputError where there is no mistake to show.
    """
    truth, probabilities = np.asarray(labels), np.asarray(probabilities)
    predictions, certainty = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predictions != truth)
    if not len(wrong):
        raise InputError(f"none of the {len(truth)} examples is misclassified: there is no mistake to draw")
    shown = wrong[np.argsort(-certainty[wrong], kind="stable")][:count]
    rows = -(-len(shown) // columns)
    figure = new_figure(columns, rows, width=WIDTH / columns, height=WIDTH / columns + 0.45)
    heading = f"{len(wrong)} of {len(truth)} misclassified; the {len(shown)} with the surest wrong answer"
    figure.suptitle(f"{heading}\nbelow: probability of the label / of the answer", fontsize=10)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, i in zip(axes, shown.tolist(), strict=False):
        show_image(axis, images[i])
        axis.set_title(f"{class_names[int(truth[i])]} -> {class_names[int(predictions[i])]}", fontsize=10)
        shares = f"{probabilities[i, truth[i]]:.2f} / {certainty[i]:.2f}"
        axis.text(0.5, -0.03, shares, transform=axis.transAxes, ha="center", va="top", fontsize=8)
    return figure
