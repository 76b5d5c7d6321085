"""Which classes a model takes for which."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Integer

from flaxformer_edu.plots.panels import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def confusion_counts(
    labels: Integer[Array | np.ndarray, "example"], predictions: Integer[Array | np.ndarray, "example"], classes: int
) -> Integer[np.ndarray, "class class"]:
    """How often each class (row) was taken for each (column), by scikit-learn; classes may be absent from the data."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(np.asarray(labels), np.asarray(predictions), labels=range(classes))


def frequent_confusions(
    counts: Integer[np.ndarray, "class class"], class_names: Sequence[str], number: int = 5
) -> list[tuple[str, int]]:
    """The most frequent mistakes as ("4 -> 9", how often), the first of equals first; fewer where there are fewer."""
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    order = np.argsort(-wrong, axis=None, kind="stable")[:number]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(f"{class_names[i]} -> {class_names[j]}", int(wrong[i, j])) for i, j in pairs if wrong[i, j]]


def confusion_matrix(counts: Integer[np.ndarray, "class class"], class_names: Sequence[str]) -> "Figure":
    """The counts of `confusion_counts`, mistakes in colour, and beside them the five most frequent ones.

    The diagonal is left grey: correct answers are so many that no mistake would show.
    """
    classes, right = len(counts), np.eye(len(counts), dtype=bool)
    mistakes = np.ma.masked_where(right, counts)
    highest = max(1, int(counts[~right].max(initial=0)))
    figure = new_figure(1, 1, width=7.5, height=5.6)
    axis = figure.subplots()
    axis.set_facecolor("lightgrey")
    axis.imshow(mistakes, cmap="Blues", vmin=0, vmax=highest)
    for (i, j), count in np.ndenumerate(counts):
        if count:
            dark = i != j and count > highest / 2
            axis.text(
                j, i, str(count), ha="center", va="center", fontsize=9 if classes <= 10 else 7,
                color="white" if dark else "black", fontweight="bold" if i == j else "normal",
            )  # fmt: skip
    long = max(map(len, class_names)) > 2
    axis.set_xticks(range(classes), class_names, rotation=45 if long else 0, ha="right" if long else "center")
    axis.set_yticks(range(classes), class_names)
    axis.set(xlabel="taken for", ylabel="label")
    accuracy = counts[right].sum() / max(1, counts.sum())
    axis.set_title(f"{counts[right].sum()} of {counts.sum()} correct ({accuracy:.4f})", fontsize=11)
    lines = [f"{name}    {count}" for name, count in frequent_confusions(counts, class_names)]
    text = "\n".join(["most frequent confusions", "", *(lines or ["none"])])
    axis.text(1.04, 1, text, transform=axis.transAxes, va="top", fontsize=9, linespacing=1.5)
    return figure
