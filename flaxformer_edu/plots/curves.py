"""Learning curves."""

from collections.abc import Iterable, Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from flaxformer_edu.plots.panels import COLOURS, WIDTH, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]


def training_curves(runs: Mapping[str, Iterable[Row]]) -> "Figure":
    """Each metric over the steps, one panel per metric: training's running mean, and evaluation.

    `runs` has the rows of each run (`TrainResult.rows`, or `read_rows`) under its name; a single run needs none:
    `{"": rows}`, and is drawn with every step's value, faintly. Of several runs training is dashed, and each panel
    reaches as far as the curves do after the first fifth of the steps, so that the runs can be distinguished.
    """
    several = {name: list(rows) for name, rows in runs.items()}
    drawn = [key for rows in several.values() for row in rows for key, value in row.items() if value is not None]
    metrics = list(dict.fromkeys(key.removeprefix("eval_") for key in drawn if key != "step"))
    columns, lines = max(1, min(2, len(metrics))), max(1, -(-len(metrics) // 2))
    figure = new_figure(columns, lines, width=WIDTH / columns, height=3.2)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[len(metrics) :]:
        axis.axis("off")
    for axis, metric in zip(axes, metrics, strict=False):
        if len(several) == 1:
            _draw_one(axis, next(iter(several.values())), metric)
        else:
            _draw_several(axis, several, metric)
        axis.set(xlabel="step", ylabel=metric.replace("_", " "))
        axis.grid(alpha=0.3)
    return figure


def _draw_one(axis: "Axes", rows: list[Row], metric: str) -> None:
    steps, values = _curve(rows, metric)
    if len(steps):
        axis.plot(steps, values, color=COLOURS[0], alpha=0.25, linewidth=0.8)
        axis.plot(steps, running_mean(values), color=COLOURS[0], linewidth=1.2, label="training")
    steps, values = _curve(rows, f"eval_{metric}")
    if len(steps):
        axis.plot(steps, values, color=COLOURS[1], marker="o", markersize=3, label="evaluation")
    axis.legend(fontsize=8)


def _draw_several(axis: "Axes", runs: Mapping[str, list[Row]], metric: str) -> None:
    shown = []
    for (name, rows), colour in zip(runs.items(), cycle(COLOURS), strict=False):
        axis.plot([], [], color=colour, label=name)
        (steps, values), (eval_steps, eval_values) = _curve(rows, metric), _curve(rows, f"eval_{metric}")
        if len(steps):
            values = running_mean(values)
            axis.plot(steps, values, color=colour, linestyle="--", alpha=0.5, linewidth=1.2)
        axis.plot(eval_steps, eval_values, color=colour, marker="o", markersize=3, linewidth=1.2)
        shown += [*values[steps > rows[-1]["step"] / 5], *eval_values[eval_steps > rows[-1]["step"] / 5]]
    if shown:
        margin = 0.05 * (max(shown) - min(shown)) + 1e-6
        axis.set_ylim(min(shown) - margin, max(shown) + margin)
    axis.legend(fontsize=8, title="dashed: training", title_fontsize=8)


def _curve(rows: list[Row], key: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    return np.array([x for x, _ in points]), np.array([y for _, y in points])


def running_mean(values: Float[np.ndarray, "step"]) -> Float[np.ndarray, "step"]:
    """The mean of the last fiftieth of all values up to each one."""
    window = max(1, len(values) // 50)
    sums = np.cumsum(np.concatenate([[0.0], values]))
    first = np.maximum(0, np.arange(1, len(values) + 1) - window)
    return (sums[1:] - sums[first]) / (np.arange(1, len(values) + 1) - first)
