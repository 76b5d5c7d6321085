"""Learning curves."""

from pathlib import Path
from typing import Any

import numpy as np


def draw_curves(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw each metric over the steps, one panel a metric: training (and its running mean) and evaluation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not rows:
        return
    drawn = [name for row in rows for name, value in row.items() if name != "step" and value is not None]
    names = list(dict.fromkeys(name.removeprefix("eval_") for name in drawn))
    figure = Figure(figsize=(5 * len(names), 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    for name, axes in zip(names, figure.subplots(1, len(names), squeeze=False)[0], strict=True):
        steps, values = _curve(rows, name)
        if len(steps):
            axes.plot(steps, values, color="C0", alpha=0.3, linewidth=0.8)
            axes.plot(steps, running_mean(values), color="C0", label="training")
        steps, values = _curve(rows, f"eval_{name}")
        if len(steps):
            axes.plot(steps, values, color="C1", marker="o", markersize=3, label="evaluation")
        axes.set(xlabel="step", ylabel=name.replace("_", " "))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def _curve(rows: list[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return np.array([x for x, _ in points]), np.array([y for _, y in points])


def running_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the last fiftieth of all values up to each one."""
    window = max(1, len(values) // 50)
    sums = np.cumsum(np.concatenate([[0.0], values]))
    first = np.maximum(0, np.arange(1, len(values) + 1) - window)
    return (sums[1:] - sums[first]) / (np.arange(1, len(values) + 1) - first)
