"""Our model compiled by XLA against itself run one operation at a time: a compiler may change numbers without a word.

The tolerance of each row follows from rounding: what differs by more than a few units is allowed as much as a run moves
whose inputs and parameters are one unit of rounding off.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxformer_edu.compare.causes.compiler import Switch, switches
from flaxformer_edu.compare.causes.trial import Diagnosis
from flaxformer_edu.compare.compiled_report import CompiledReport
from flaxformer_edu.compare.gradient_rows import gradient_rows
from flaxformer_edu.compare.links import Link
from flaxformer_edu.compare.pairing import Pair
from flaxformer_edu.compare.rows import Row, measure
from flaxformer_edu.compare.sides import our_programs
from flaxformer_edu.compare.sides.our_float64 import compute_type
from flaxformer_edu.compare.sides.our_gradients import gradients
from flaxformer_edu.compare.sides.ours import as_inputs, record, run
from flaxformer_edu.compare.sides.records import Gradients, Loss, Options, Recording

LEAST = 1e-13  # relative; what in float64 is not told from rounding
UNITS = 8  # of rounding that are not told from it without a look at how far it moves the model
MARGIN = 16  # times as far as rounding moves it, compiled may be from eager
LOSSES = ("the loss", "the loss, compiled alone", "the loss, beside its gradients")
ALONE = "the gradient of the output, compiled alone"


@dataclass(frozen=True)
class Results:
    """Some arrays by what they are, and the gradients with respect to parameters; or to all layers, too."""

    arrays: Mapping[str, np.ndarray]
    gradients: Gradients


@dataclass(frozen=True)
class CompiledCheck:
    """Our model, what it recorded when it was run eagerly on the inputs, and its gradients if they are asked for."""

    model: nnx.Module
    inputs: Sequence[Any]
    calls: Recording
    gradients: Gradients | None = None
    loss: Loss | None = None

    def report(self, *, diagnose: bool = True) -> CompiledReport:
        """Whether compiled and eager agree; if not, where they first differ, and which switch of XLA cures it."""
        try:
            compiled = self._compiled({})
        except Exception as error:  # anything that the user's code can do with arrays that have no numbers yet
            return CompiledReport(refused=f"{type(error).__name__}: {error}".splitlines()[0][:200])
        report = CompiledReport(programs=self._rows(compiled))
        if report.agrees:
            return report
        report = replace(report, places=self._places(report.programs))
        first = report.first_divergence
        if first is None or not diagnose:
            return report
        for number, switch in enumerate(switches(), 1):
            if self._is_cured(switch):
                rest = "with that set, compiled and eager agree"
                found = Diagnosis(cause="compiler", explanation=switch.explanation, where=first.layer, rest=rest)
                return replace(report, diagnosis=found, tried=number)
        return replace(report, tried=len(switches()))

    def _compiled(self, options: Options) -> Results:
        """What the programs compute that are compiled by themselves."""
        arrays = {"": our_programs.output(self.model, self.inputs, options)} if "" in self.calls else {}
        if self.gradients is None:
            return Results(arrays, Gradients({}, {}))
        found = gradients(self.model, self.inputs, {}, self.loss, options=options)
        value = our_programs.loss(self.model, self.inputs, self.loss, options)
        alone, gradient = our_programs.loss_alone(self._output, self.loss, options)
        losses = zip(LOSSES, (value, alone, found.loss), strict=True)
        values = {name: loss for name, loss in losses if loss is not None}
        return Results({**arrays, **values, ALONE: gradient}, found)

    def _places(self, programs: Sequence[Row]) -> tuple[Row, ...]:
        """The rows of all layers where the output differs; of all gradients where those alone do."""
        different = {row.layer for row in programs if not row.agrees}
        if "" in different:
            layers = our_programs.layers(self.model, self.inputs, self.calls, {})
            return self._rows(Results({path: call.output for path, call in layers.items()}, Gradients({}, {})))
        if different & {*LOSSES, ALONE}:
            return ()
        return self._rows(Results({}, gradients(self.model, self.inputs, self.calls, self.loss, options={})))

    def _is_cured(self, switch: Switch) -> bool:
        try:
            return all(row.agrees for row in self._rows(self._compiled({switch.name: switch.value})))
        except jax.errors.JaxRuntimeError as error:  # a switch that this release does not know, or one that verifies
            return switch.verifies and "No such compile option" not in str(error)

    def _rows(self, compiled: Results) -> tuple[Row, ...]:
        rows = self._measured(compiled, self._eager)
        if all(row.agrees for row in rows):
            return rows
        moved = {row.layer: MARGIN * row.max_rel for row in self._measured(self._moved, self._eager)}
        return tuple(replace(row, tolerance=max(row.tolerance, moved[row.layer])) for row in rows)

    def _measured(self, results: Results, eager: Results) -> tuple[Row, ...]:
        """A row for each array and gradient."""
        tolerance = max(LEAST, UNITS * self._unit)
        both = [(name, *_settled(x, eager.arrays[name])) for name, x in results.arrays.items()]
        rows = [measure(ours, theirs, (name, name), tolerance) for name, ours, theirs in both]
        return (*rows, *self._gradient_rows(results.gradients, eager.gradients, tolerance))

    def _gradient_rows(self, ours: Gradients, eager: Gradients, tolerance: float) -> list[Row]:
        both = {name: _settled(x, eager.parameters[name]) for name, x in ours.parameters.items()}
        links = [Link((path,), (path,)) for path in ours.outputs]
        pair = Pair(self.model, self.model, self.inputs, self.inputs, links, tolerance)
        mine = Gradients({name: xs[0] for name, xs in both.items()}, ours.outputs)
        theirs = Gradients({name: xs[1] for name, xs in both.items()}, eager.outputs)
        rows = gradient_rows(pair, mine, theirs) if both else ()
        of_outputs = {path: f"the output of {path}" if path else "the output" for path in ours.outputs}
        names = [f"the gradient of {of_outputs.get(row.layer, row.layer)}" for row in rows]
        return [replace(row, layer=name, theirs=name) for row, name in zip(rows, names, strict=True)]

    @cached_property
    def _eager(self) -> Results:
        return _results(self.calls, self.gradients)

    @cached_property
    def _moved(self) -> Results:
        """From an eager run whose inputs and parameters are one unit of rounding off, up or down at random."""
        random = np.random.default_rng(0)

        def off(x: Any) -> Any:
            if not jnp.issubdtype(x.dtype, jnp.floating):
                return x
            return x * (1 + self._unit * random.choice([-1, 1], x.shape)).astype(x.dtype)

        graphdef, state = nnx.split(self.model)
        model = nnx.merge(graphdef, jax.tree.map(off, state))
        inputs = [off(x) for x in as_inputs(self.model, self.inputs)]
        calls = record(model, inputs)
        found = None if self.gradients is None else gradients(model, inputs, self.calls, self.loss)
        return _results(calls, found)

    @cached_property
    def _output(self) -> Any:
        """All that the model gives when it is run eagerly."""
        return run(self.model, self.inputs, lambda path, arguments, result: result)

    @cached_property
    def _unit(self) -> float:
        return float(jnp.finfo(compute_type(self.model)).eps)


def _results(calls: Recording, found: Gradients | None) -> Results:
    """The same arrays of an eager run, under the names of all programs that compute them."""
    arrays = {path: call.output for path, call in calls.items()}
    if found is None or found.loss is None:
        return Results(arrays, Gradients({}, {}))
    arrays |= dict.fromkeys(LOSSES, found.loss)
    return Results({**arrays, ALONE: found.outputs[""].output}, found)


def _settled(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with zeros where they have the same infinity, or both no number."""
    if ours.shape != theirs.shape:
        return ours, theirs
    same = ~np.isfinite(theirs) & ((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)))
    if not same.any():
        return ours, theirs
    return np.where(same, 0, ours).astype(ours.dtype), np.where(same, 0, theirs).astype(theirs.dtype)
