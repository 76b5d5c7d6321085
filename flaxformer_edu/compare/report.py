"""What a comparison found: a row for each parameter and layer, the first that differs, and the cause."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

TOLERANCES = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}  # relative; see Row


@dataclass(frozen=True, kw_only=True)
class Row:
    """How far a parameter, or the output of a layer, is from theirs.

    layer, theirs: its name on either side; the whole model's is "".
    shape, their_shape: where these are not the same, nothing else is compared.
    max_abs: the largest difference; max_rel: the same in units of their largest value, which `tolerance` is for.
    cosine: of the angle between the two, as vectors.
    input_agrees: whether the layer was given the same on both sides; None where that cannot be said.
    """

    layer: str
    theirs: str
    shape: tuple[int, ...]
    their_shape: tuple[int, ...]
    max_abs: float
    max_rel: float
    cosine: float
    tolerance: float
    input_agrees: bool | None = None

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.max_rel <= self.tolerance


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The cause with which, tried out on our side, the difference at a layer vanishes.

    cause: its name in `causes.CAUSES`; where: the part of our model that was changed; rest: what then becomes of the
    model's output.
    """

    cause: str
    explanation: str
    where: str
    rest: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """All parameters, and all layers in the order in which ours computes them.

    `tried` counts the causes that were tried, until one explained the first divergence, which is then `diagnosis`.
    """

    parameters: tuple[Row, ...]
    layers: tuple[Row, ...]
    diagnosis: Diagnosis | None = None
    tried: int = 0

    @property
    def first_divergence(self) -> Row | None:
        """The first layer whose output differs."""
        return next((row for row in self.layers if not row.agrees), None)

    @property
    def agrees(self) -> bool:
        """Whether every parameter and every layer does."""
        return all(row.agrees for row in (*self.parameters, *self.layers))

    @property
    def summary(self) -> str:
        """What was found, in a few sentences."""
        different = [row for row in self.parameters if not row.agrees]
        lines = []
        if different:
            names = ", ".join(row.layer for row in different[:4]) + (", ..." if len(different) > 4 else "")
            lines.append(f"{len(different)} of {len(self.parameters)} parameters differ: {names}")
        if self.first_divergence is None:
            return "\n".join([*lines, f"all {len(self.layers)} layers agree"])
        lines.append(self._location(self.first_divergence))
        if self.diagnosis is not None:
            found = self.diagnosis
            lines.append(f"cause: {found.explanation} (in {found.where or 'the whole model'}); {found.rest}")
        elif self.tried:
            lines.append(f"cause: none of the {self.tried} that were tried, each alone, makes the difference vanish")
        return "\n".join(lines)

    def _location(self, first: Row) -> str:
        index = self.layers.index(first)
        text = f"first divergence: {first.layer or 'the output'}, by {first.max_rel:.1e} of its largest value"
        if first.shape != first.their_shape:
            return f"first divergence: {first.layer or 'the output'}: {first.shape} here, {first.their_shape} there"
        if first.input_agrees is False:
            before = self.layers[index - 1].layer if index else "the input"
            text += f"; what it is given differs already, so the cause lies between {before} and it"
        return text

    def to_json(self, path: Path | None = None) -> str:
        """All of it as JSON, also written to `path` where given; numbers that are not finite become null."""
        content = {
            "agrees": self.agrees,
            "first_divergence": None if self.first_divergence is None else self.first_divergence.layer,
            "diagnosis": None if self.diagnosis is None else asdict(self.diagnosis),
            "tried": self.tried,
            "parameters": [_as_json(row) for row in self.parameters],
            "layers": [_as_json(row) for row in self.layers],
        }
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        if path is not None:
            path.write_text(text, encoding="utf-8")
        return text

    def __rich__(self) -> Group:
        different = [row for row in self.parameters if not row.agrees]
        tables = [_table("Parameters that differ", different)] if different else []
        return Group(*tables, _table("Layers, in the order of computation", self.layers), escape(self.summary))

    def __str__(self) -> str:
        console = Console(width=120, color_system=None)
        with console.capture() as captured:
            console.print(self)
        return captured.get()


def measure(
    ours: np.ndarray,
    theirs: np.ndarray,
    names: tuple[str, str],
    tolerance: float | None,
    input_agrees: bool | None = None,
) -> Row:
    """The row of two arrays; without a tolerance, that of the narrower of their types."""
    if tolerance is None:
        tolerance = max(TOLERANCES[x.dtype.name] for x in (ours, theirs))
    same = ours.shape == theirs.shape
    errors = _errors(ours.astype(np.float64), theirs.astype(np.float64)) if same else (math.inf, math.inf, math.nan)
    return Row(
        layer=names[0],
        theirs=names[1],
        shape=ours.shape,
        their_shape=theirs.shape,
        max_abs=errors[0],
        max_rel=errors[1],
        cosine=errors[2],
        tolerance=tolerance,
        input_agrees=input_agrees,
    )


def _errors(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """Largest difference, the same in units of their largest value, and cosine."""
    if ours.size == 0:
        return 0.0, 0.0, 1.0
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return math.inf, math.inf, math.nan
    largest, scale = float(np.abs(ours - theirs).max()), float(np.abs(theirs).max())
    lengths = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    cosine = float((ours * theirs).sum()) / lengths if lengths else float(largest == 0)
    return largest, largest / (scale or 1.0), cosine


def _as_json(row: Row) -> dict[str, object]:
    content = {**asdict(row), "agrees": row.agrees}
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in content.items()}


def _table(title: str, rows: Iterable[Row]) -> Table:
    table = Table(title=title)
    for column in ("ours", "theirs", "shape"):
        table.add_column(column, overflow="fold")
    for column in ("max abs", "max rel", "cosine"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for row in rows:
        shape = str(row.shape) if row.shape == row.their_shape else f"{row.shape}, theirs {row.their_shape}"
        names = (escape(row.layer or "(the output)"), escape(row.theirs or "(the output)"))
        verdict = "[green]agrees[/green]" if row.agrees else "[red]DIFFERS[/red]"
        table.add_row(*names, shape, f"{row.max_abs:.1e}", f"{row.max_rel:.1e}", f"{row.cosine:.6f}", verdict)
    return table
