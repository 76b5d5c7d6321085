"""Two trainings that should be one."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from flaxformer_edu.plots.panels import COLOURS, WIDTH, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

@runtime_checkable
class PairedLosses(Protocol):
    """The losses of two trainings, one per step, and how far apart they may be; as `compare.training` reports them."""

    @property
    def ours(self) -> Sequence[float]:
        """Our losses."""
        ...

    @property
    def theirs(self) -> Sequence[float]:
        """PyTorch's losses."""
        ...

    @property
    def differences(self) -> Sequence[float]:
        """How far they are apart, relative to theirs."""
        ...

    @property
    def tolerance(self) -> float:
        """How large a difference may be."""
        ...


def side_by_side(reports: Mapping[str, PairedLosses]) -> "Figure":
    """Our losses laid on PyTorch's, and beneath them, on a logarithmic scale, how far apart they are.

    `reports` (`compare.training`) stand under their names; a single one needs none: `{"": report}`. Beyond the dashed
    line a difference is too large. Where two losses are equal to the last bit, the difference has no logarithm: a
    triangle on the lower edge stands for it.
    """
    columns = min(2, len(reports))
    lines = -(-len(reports) // columns)
    figure = new_figure(columns, lines, width=WIDTH / columns, height=4.6 if lines == 1 else 4.0)
    axes = figure.subplots(2 * lines, columns, squeeze=False, height_ratios=[3, 2] * lines)
    for index, (name, report) in enumerate(reports.items()):
        row, column = divmod(index, columns)
        upper, lower = axes[2 * row, column], axes[2 * row + 1, column]
        _draw_losses(upper, report, name)
        _draw_differences(lower, np.array(report.differences), report.tolerance)
        upper.sharex(lower)
        upper.tick_params(labelbottom=False)
        if column == 0:
            upper.set_ylabel("loss")
            lower.set_ylabel("relative difference")
    for axis in axes.ravel():
        axis.set_visible(axis.has_data())
    return figure


def _draw_losses(axis: "Axes", report: PairedLosses, name: str) -> None:
    """Theirs broad and light, ours thin and dark on top: where both are seen, they are one."""
    steps = np.arange(len(report.ours))
    axis.plot(steps, report.theirs, color=COLOURS[4], linewidth=5, solid_capstyle="round", label="PyTorch")
    axis.plot(steps, report.ours, color=COLOURS[0], linewidth=1.3, label="ours")
    axis.set_title(name, fontsize=11)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)


def _draw_differences(axis: "Axes", differences: Float[np.ndarray, "step"], tolerance: float) -> None:
    steps = np.arange(len(differences))
    some = np.isfinite(differences) & (differences > 0)
    lowest = differences[some].min(initial=tolerance / 1e3) / 4
    highest = max(differences[some].max(initial=0), tolerance) * 20
    agree = differences <= tolerance
    for chosen, colour, marker in ((some & agree, COLOURS[0], "o"), (some & ~agree, COLOURS[1], "D")):
        axis.plot(steps[chosen], differences[chosen], color=colour, marker=marker, markersize=3, linestyle="none")
    equal = steps[differences == 0]
    axis.plot(equal, np.full(len(equal), lowest * 1.5), color=COLOURS[0], marker="v", markersize=3, linestyle="none")
    axis.axhline(tolerance, color=COLOURS[1], linestyle="--", linewidth=1.2)
    axis.annotate(
        f"tolerance {tolerance:g}", (0.01, tolerance), xycoords=("axes fraction", "data"), fontsize=8,
        color=COLOURS[1], xytext=(0, 3), textcoords="offset points",
    )  # fmt: skip
    axis.set(yscale="log", ylim=(lowest, highest), xlabel="step")
    axis.grid(alpha=0.3)
