"""Two models that have been run on the same inputs: the report of them, judged, and the cause of what differs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import jax
import numpy as np
from flax import nnx

from flaxformer_edu.compare.diagnosis import CauseSearch
from flaxformer_edu.compare.gradient_rows import gradient_rows, stepped_rows
from flaxformer_edu.compare.judging import judged_gradients, judged_rows
from flaxformer_edu.compare.names import ToOurs
from flaxformer_edu.compare.pairing import Pair, parameter_rows
from flaxformer_edu.compare.referee import Referee, Types, in_float64
from flaxformer_edu.compare.report import Report
from flaxformer_edu.compare.rounding import between, moved_gradients, moved_run, of_gradients
from flaxformer_edu.compare.rows import Row
from flaxformer_edu.compare.sides import ours as our_side
from flaxformer_edu.compare.sides.our_gradients import gradients, stepped
from flaxformer_edu.compare.sides.recorded import Recorded
from flaxformer_edu.compare.sides.records import BackwardRequest, Gradients, Recording
from flaxformer_edu.errors import InputError

MOST = 300_000_000  # parameters of ours that are doubled without being asked for: 2.4 GB a side


@dataclass(frozen=True)
class Both:
    """The linked models and what each computed.

    `to_ours` brings arrays under their names to ours; `shared` are the tensors of theirs that it knows. `requests` are
    what is asked of the two backward passes, None for nothing.
    """

    pair: Pair
    ours: Recording
    theirs: Recorded
    to_ours: ToOurs
    shared: Collection[str]
    requests: tuple[BackwardRequest, BackwardRequest] | None = None

    @cached_property
    def parameters(self) -> Mapping[str, np.ndarray]:
        """Theirs, under our names."""
        return self.to_ours(self.theirs.parameters)

    @cached_property
    def gradients(self) -> Gradients | None:
        """Ours; None where they are not asked for."""
        if self.requests is None:
            return None
        return gradients(self.pair.ours, self.pair.inputs, self.ours, self.requests[0].loss)

    def compare(self, *, referee: bool | None, diagnose: bool) -> Report:
        """The whole report; a `tolerance` given stands for all that follows from rounding."""
        pair, mine = self.pair, our_side.parameters(self.pair.ours)
        report = Report(
            parameters=parameter_rows(mine, self.parameters, pair.tolerance),
            layers=pair.rows(self.ours, self.theirs.calls),
        )
        if self.gradients is not None:
            report = self._with_backward(report, self.gradients)
        if pair.tolerance is None:
            report = self._judged(report, self.gradients, referee, diagnose)
        first = report.first_divergence
        if first is None or not diagnose or report.tried:
            return report
        known = replace(pair, tolerances={row.layer: row.tolerance for row in report.layers})
        diagnosis, tried = CauseSearch(known, self.ours, self.theirs.calls, self.parameters).find(first)
        return replace(report, diagnosis=diagnosis, tried=tried)

    def _judged(self, report: Report, ours: Gradients | None, referee: bool | None, diagnose: bool) -> Report:
        """With tolerances that follow from rounding, and the verdict of float64 runs where there can be any."""
        types = Types.of(self.pair.ours, self.theirs)
        if not types.rounds or not (_is_small(self.pair.ours) if referee is None else referee):
            return self._judged_by_a_moved_run(report, ours, types)
        with in_float64(self.pair, self.theirs, self.shared) as judge:
            layers = judged_rows(self.pair, self.ours, self.theirs.calls, types, judge)
            report = replace(report, layers=layers, no_referee=judge.reason or None)
            first = report.first_divergence
            if diagnose and first is not None and judge.finds(first):
                report = self._diagnosed(report, judge, first)
            return report if ours is None else self._with_judged_gradients(report, ours, types, judge)

    def _judged_by_a_moved_run(self, report: Report, ours: Gradients | None, types: Types) -> Report:
        """In float64, only where something is off by more than 1e-12."""
        if not types.rounds and report.agrees:
            return report
        moved = moved_run(self.pair, self.ours)
        layers = judged_rows(self.pair, self.ours, self.theirs.calls, types, moved)
        report = replace(report, layers=layers, no_referee="not asked for" if types.rounds else None)
        if ours is None or self.requests is None or report.gradients is None:
            return report
        moved = moved_gradients(self.pair, self.ours, ours, self.requests[0].loss)
        return replace(report, gradients=judged_gradients(report.gradients, moved, types, {}))

    def _diagnosed(self, report: Report, judge: Referee, first: Row) -> Report:
        """With the cause that removes the difference in float64."""
        if judge.theirs is None:
            return report
        tolerances = {row.layer: row.float64_tolerance for row in report.layers if row.float64_tolerance is not None}
        known = replace(judge.pair, tolerances=tolerances)
        wide = {name: x.astype(judge.held).astype(np.float64) for name, x in self.parameters.items()}
        diagnosis, tried = CauseSearch(known, judge.ours, judge.theirs, wide).find(first)
        return replace(report, diagnosis=diagnosis, tried=tried)

    def _with_judged_gradients(self, report: Report, ours: Gradients, types: Types, judge: Referee) -> Report:
        if self.requests is None or report.gradients is None:
            return report
        exact_ours = gradients(judge.pair.ours, judge.pair.inputs, judge.ours, self.requests[0].loss)
        exact: dict[str, Row] = {}
        if judge.theirs is not None and not judge.excuses_anything:
            theirs = judge.their_gradients(self.requests[1])
            exact = {row.layer: row for row in gradient_rows(judge.pair, exact_ours, self._fitting(exact_ours, theirs))}
        moved = between(of_gradients(ours), of_gradients(exact_ours))
        return replace(report, gradients=judged_gradients(report.gradients, moved, types, exact))

    def _with_backward(self, report: Report, ours: Gradients) -> Report:
        """With the gradients, and a step along theirs; without what has another size there."""
        if self.theirs.gradients is None:
            raise InputError("the recorded run has no gradients: record it with gradients=True")
        theirs = self._fitting(ours, self.theirs.gradients)
        report = replace(report, gradients=gradient_rows(self.pair, ours, theirs))
        optimizer = None if self.requests is None else self.requests[0].optimizer
        if optimizer is None:
            return report
        if self.theirs.stepped is None:
            raise InputError("theirs took no step: give its optimizer, too, or record the run with step=...")
        before, after = (self._of_our_shapes(ours, x) for x in (self.theirs.parameters, self.theirs.stepped))
        mine = stepped(self.pair.ours, {**ours.parameters, **theirs.parameters}, optimizer)
        return replace(report, stepped=stepped_rows(mine, before, after, self.pair.tolerance))

    def _fitting(self, ours: Gradients, theirs: Gradients) -> Gradients:
        """Their gradients under our parameters' names."""
        return Gradients(self._of_our_shapes(ours, theirs.parameters), theirs.outputs)

    def _of_our_shapes(self, ours: Gradients, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        shapes = {name: x.shape for name, x in ours.parameters.items()}
        return {name: x for name, x in self.to_ours(arrays).items() if shapes.get(name) == x.shape}


def _is_small(model: nnx.Module) -> bool:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model))) <= MOST
