"""Two loss curves, step by step."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from flaxformer_edu.files import AnyPath, write_text

SHOWN_STEPS = 11  # steps in the printed table, evenly spaced, beside those that matter


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """The losses on both sides, one per step; that of step 0 is the loss of the initial weights.

    `tolerance` is relative to their loss.
    """

    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    tolerance: float

    @property
    def differences(self) -> tuple[float, ...]:
        """|ours - theirs| / |theirs| at each step; infinite where that is no number, unless both losses are equal."""
        return tuple(_difference(*losses) for losses in zip(self.ours, self.theirs, strict=True))

    @property
    def largest(self) -> float:
        """The largest difference."""
        return max(self.differences)

    @property
    def first_divergence(self) -> int | None:
        """The first step, counted from 0, at which the losses differ by more than the tolerance."""
        return next((step for step, x in enumerate(self.differences) if x > self.tolerance), None)

    @property
    def agrees(self) -> bool:
        """Whether the losses agree at every step."""
        return self.first_divergence is None

    @property
    def summary(self) -> str:
        """What was found, in a sentence, and what it usually means."""
        largest = f"the largest relative difference is {self.largest:.1e}, at step {_worst(self.differences)}"
        first = self.first_divergence
        if first is None:
            return f"all {len(self.ours)} losses agree within {self.tolerance:g}; {largest}"
        text = f"the losses differ from step {first} on, by {self.differences[first]:.1e} there; {largest}"
        return f"{text}. {_advice(first)}"

    def to_json(self, path: AnyPath | None = None) -> str:
        """All of it as JSON, also written to `path` where given; numbers that are not finite become null."""
        curves = {"ours": self.ours, "theirs": self.theirs, "differences": self.differences}
        content = {
            "agrees": self.agrees,
            "tolerance": self.tolerance,
            "largest": _finite([self.largest])[0],
            "first_divergence": self.first_divergence,
            **{name: _finite(values) for name, values in curves.items()},
        }
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        if path is not None:
            write_text(path, text)
        return text

    def __rich__(self) -> Group:
        table = Table(title="Losses, step by step")
        for column in ("step", "ours", "theirs", "difference"):
            table.add_column(column, justify="right")
        table.add_column("verdict")
        for step in self._shown():
            difference = self.differences[step]
            verdict = "[green]agrees[/green]" if difference <= self.tolerance else "[red]DIFFERS[/red]"
            losses = (f"{losses[step]:.10g}" for losses in (self.ours, self.theirs))
            table.add_row(str(step), *losses, f"{difference:.1e}", verdict)
        return Group(table, escape(self.summary))

    def _shown(self) -> list[int]:
        """The steps of the printed table: some, the worst, and the first that differs."""
        steps = {*np.linspace(0, len(self.ours) - 1, SHOWN_STEPS).astype(int).tolist(), _worst(self.differences)}
        return sorted(steps if self.first_divergence is None else {*steps, self.first_divergence})

    def __str__(self) -> str:
        console = Console(width=120, color_system=None)
        with console.capture() as captured:
            console.print(self)
        return captured.get()


def _difference(ours: float, theirs: float) -> float:
    if ours == theirs:
        return 0.0
    difference = abs(ours - theirs) / abs(theirs) if theirs else math.inf
    return math.inf if math.isnan(difference) else difference


def _worst(differences: tuple[float, ...]) -> int:
    return differences.index(max(differences))


def _advice(first: int) -> str:
    if first == 0:
        return (
            "The initial weights already give another loss: the forward passes or the losses differ, or the order of "
            "the dropout masks; compare.models finds the layer"
        )
    if first == 1:
        return "The initial weights give the same loss: look at the gradients, and at the optimizer's first step"
    return (
        "The steps before agree: look at the optimizer's memory, its weight decay or its schedule; a difference that "
        "grows slowly may be rounding"
    )


def _finite(values: Iterable[float]) -> list[float | None]:
    return [x if math.isfinite(x) else None for x in values]
