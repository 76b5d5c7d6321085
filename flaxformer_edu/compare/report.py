"""What a comparison found: a row for each parameter and layer, the first that differs, and the cause."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from flaxformer_edu.compare.causes.trial import Diagnosis
from flaxformer_edu.compare.compiled_report import CompiledReport
from flaxformer_edu.compare.rows import Row
from flaxformer_edu.files import AnyPath, write_text

NEAR = 2  # times as far from float64 as the other, a side is as close as that


@dataclass(frozen=True, kw_only=True)
class Report:
    """All parameters, and all layers in the order in which ours computes them.

    `tried` counts the causes that were tried, until one explained the first divergence, which is then `diagnosis`.
    `gradients`, in the order of the backward pass, are those with respect to each layer's output, under the layer's
    name, and each parameter; `stepped` are the parameters after one step of an optimizer; `compiled` is how far ours is
    from itself when it is compiled. None where not asked for. Where all layers agree with theirs, the cause of what the
    compiler does is the `diagnosis`.
    `no_referee` says why the two were not run in float64, None where they were or are in float64 anyway.
    """

    parameters: tuple[Row, ...]
    layers: tuple[Row, ...]
    diagnosis: Diagnosis | None = None
    tried: int = 0
    gradients: tuple[Row, ...] | None = None
    stepped: tuple[Row, ...] | None = None
    compiled: CompiledReport | None = None
    no_referee: str | None = None

    @property
    def first_divergence(self) -> Row | None:
        """The first layer whose output differs."""
        return next((row for row in self.layers if not row.agrees), None)

    @property
    def first_gradient_divergence(self) -> Row | None:
        """The first gradient of the backward pass that differs: of a layer's output, or of a parameter."""
        return next((row for row in self.gradients or () if not row.agrees), None)

    @property
    def agrees(self) -> bool:
        """Whether all parameters and layers do, and all gradients, updated parameters and programs asked for."""
        rows = (*self.parameters, *self.layers, *(self.gradients or ()), *(self.stepped or ()))
        return all(row.agrees for row in rows) and (self.compiled is None or self.compiled.agrees)

    def with_compiled(self, compiled: CompiledReport) -> "Report":
        """The same, and how ours is when it is compiled."""
        diagnosis = compiled.diagnosis if self.first_divergence is None else self.diagnosis
        return replace(self, compiled=compiled, diagnosis=diagnosis)

    @property
    def summary(self) -> str:
        """What was found, in a few sentences."""
        lines = [_difference(self.parameters, "parameters differ")] if _different(self.parameters) else []
        if self.first_divergence is None:
            lines += [f"all {len(self.layers)} layers agree", *self._rounding()]
        else:
            lines.append(self._location(self.first_divergence))
        if self.diagnosis is not None and self.first_divergence is not None:
            scope = self.diagnosis.where or "the whole model"
            lines.append(f"cause: {self.diagnosis.explanation} (in {scope}); {self.diagnosis.rest}")
        elif self.tried:
            lines.append(f"cause: none of the {self.tried} that were tried, each alone, makes the difference vanish")
        compiled = [] if self.compiled is None else [self.compiled.summary]
        return "\n".join([*lines, *self._backward_summary(), *compiled])

    def _rounding(self) -> list[str]:
        """How far rounding has taken either side from float64."""
        judged = [row for row in self.layers if row.our_error is not None and row.their_error is not None]
        if not judged:
            return [] if self.no_referee is None else [f"not compared in float64: {self.no_referee}"]
        last = judged[-1]
        ours, theirs = last.our_error or 0.0, last.their_error or 0.0
        verdict = "ours is as close as theirs"
        if max(ours, theirs) > NEAR * min(ours, theirs):
            nearer, further = ("ours", "theirs") if ours < theirs else ("theirs", "ours")
            verdict = f"{nearer} is closer than {further}"
        return [
            "in float64 they agree, too; from there, rounding takes "
            f"{last.layer or 'the output'} {ours:.1e} in ours and {theirs:.1e} in theirs (rms, relative): {verdict}"
        ]

    def _backward_summary(self) -> list[str]:
        lines = []
        if self.gradients is not None:
            first = self.first_gradient_divergence
            lines.append(f"all {len(self.gradients)} gradients agree" if first is None else self._origin(first))
        if self.stepped is not None:
            different = _difference(self.stepped, "parameters differ after one step")
            agree = f"all {len(self.stepped)} parameters agree after one step"
            lines.append(different if _different(self.stepped) else agree)
        return lines

    def _origin(self, first: Row) -> str:
        """Where the backward pass goes wrong."""
        gradients, outputs = self.gradients or (), {row.layer for row in self.layers}
        amount = f"{first.float64:.1e} in float64" if _is_hidden(first) else f"{first.max_rel:.1e}"
        text = f"first gradient that differs: that of {{}}, by {amount}"
        if first.layer not in outputs:
            return text.format(first.layer)
        text = text.format(f"the output of {first.layer}" if first.layer else "the output")
        before = [row.layer for row in gradients[: gradients.index(first)] if row.layer in outputs]
        if not before:
            return f"{text}: the losses differ, or what they are given"
        return f"{text}; the backward pass goes wrong between {before[-1] or 'the output'} and it"

    def _location(self, first: Row) -> str:
        index = self.layers.index(first)
        if first.shape != first.their_shape:
            return f"first divergence: {first.layer or 'the output'}: {first.shape} here, {first.their_shape} there"
        text = f"first divergence: {first.layer or 'the output'}, by {_amount(first)}"
        if first.input_agrees is False:
            before = self.layers[index - 1].layer if index else "the input"
            text += f"; what it is given differs already, so the cause lies between {before} and it"
        return text

    def to_json(self, path: AnyPath | None = None) -> str:
        """All of it as JSON, also written to `path` where given; numbers that are not finite become null."""
        tables = {
            "parameters": self.parameters,
            "layers": self.layers,
            "gradients": self.gradients,
            "stepped": self.stepped,
        }
        gradient = self.first_gradient_divergence
        content = {
            "agrees": self.agrees,
            "first_divergence": None if self.first_divergence is None else self.first_divergence.layer,
            "first_gradient_divergence": None if gradient is None else gradient.layer,
            "diagnosis": None if self.diagnosis is None else asdict(self.diagnosis),
            "tried": self.tried,
            "no_referee": self.no_referee,
            **{name: None if rows is None else [row.as_json() for row in rows] for name, rows in tables.items()},
            "compiled": None if self.compiled is None else self.compiled.as_json(),
        }
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        if path is not None:
            write_text(path, text)
        return text

    def to_html(self, path: AnyPath | None = None) -> str:
        """All of it as a page to be opened in a browser, also written to `path` where given; it needs no network."""
        from flaxformer_edu.compare.page import page

        text = page(self)
        if path is not None:
            write_text(path, text)
        return text

    def __rich__(self) -> Group:
        tables = {
            "Parameters that differ": _different(self.parameters),
            "Layers, in the order of computation": self.layers,
            "Gradients, in the order of the backward pass": self.gradients or (),
            "Parameters that differ after one step": _different(self.stepped or ()),
            "Compiled (left) and eager": _different(self.compiled.all_rows if self.compiled else ()),
        }
        return Group(*(_table(title, rows) for title, rows in tables.items() if rows), escape(self.summary))

    def __str__(self) -> str:
        console = Console(width=120, color_system=None)
        with console.capture() as captured:
            console.print(self)
        return captured.get()


def _is_hidden(row: Row) -> bool:
    """Whether a row that differs does so in float64 alone."""
    return row.max_rel <= row.tolerance and row.float64 is not None


def _amount(row: Row) -> str:
    """By how much a layer differs, and whether in float64 or outside of it."""
    if _is_hidden(row):
        hidden = f"{row.max_rel:.1e}, of which rounding explains up to {row.tolerance:.1e}"
        return f"{row.float64:.1e} of its largest value in float64 (without float64 by {hidden})"
    text = f"{row.max_rel:.1e} of its largest value"
    if row.agrees_in_float64 and row.our_error is not None:
        off = f"ours is {row.our_error:.1e} from that, theirs {row.their_error:.1e}"
        text += f" (in float64 they agree: {off})"
    return text


def _different(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if not row.agrees]


def _difference(rows: Sequence[Row], what: str) -> str:
    """How many differ, and which."""
    different = _different(rows)
    names = ", ".join(row.layer for row in different[:4]) + (", ..." if len(different) > 4 else "")
    return f"{len(different)} of {len(rows)} {what}: {names}"


def _table(title: str, rows: Iterable[Row]) -> Table:
    table = Table(title=title)
    for column in ("ours", "theirs", "shape"):
        table.add_column(column, overflow="fold")
    rows = list(rows)
    wide = any(row.float64 is not None for row in rows)
    for column in ("max abs", "max rel", "tolerance", *(("float64",) if wide else ()), "cosine"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for row in rows:
        shape = str(row.shape) if row.shape == row.their_shape else f"{row.shape}, theirs {row.their_shape}"
        names = (escape(row.layer or "(the output)"), escape(row.theirs or "(the output)"))
        verdict = "[green]agrees[/green]" if row.agrees else "[red]DIFFERS[/red]"
        exact = "" if row.float64 is None else f"{row.float64:.1e}"
        numbers = (f"{row.max_abs:.1e}", f"{row.max_rel:.1e}", f"{row.tolerance:.1e}", *((exact,) if wide else ()))
        table.add_row(*names, shape, *numbers, f"{row.cosine:.6f}", verdict)
    return table
