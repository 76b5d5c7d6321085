"""Try the usual causes, one at a time, at the first layer that differs."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from flax import nnx

from flaxformer_edu.compare.causes import CAUSES
from flaxformer_edu.compare.causes.trial import Case, Diagnosis, Trial
from flaxformer_edu.compare.pairing import Pair
from flaxformer_edu.compare.rows import Row
from flaxformer_edu.compare.sides.ours import modules
from flaxformer_edu.compare.sides.records import Recording, is_within
from flaxformer_edu.layers import Block, MultiHeadAttention

VANISHED = 0.25  # of a difference: at most that is left of it where it has vanished
EARLIER = ("bicubic_convention", "tf32", "bfloat16")  # causes that may lie before the layer where they show


@dataclass(frozen=True)
class CauseSearch:
    """Two models that differ, what each computed, and the parameters of theirs under our names."""

    pair: Pair
    ours: Recording
    theirs: Recording
    parameters: Mapping[str, np.ndarray]

    def find(self, first: Row) -> tuple[Diagnosis | None, int]:
        """The cause that explains the first row that differs, if one does, and how many were tried.

        A cause is looked for in the layer itself, then in the modules around it, up to its block; where the layer's
        input differs already, in those between it and the row before, too. Of a layer within attention, the attention
        may agree instead: where theirs gives the query to the key's projection, the projections cannot.
        """
        attentions = [
            path for path, module in around(self._modules, first.layer) if isinstance(module, MultiHeadAttention)
        ]
        tried: set[tuple[str, tuple[str, ...]]] = set()
        for cause, trial, scope in self._trials(first):
            key = (trial.explanation, trial.where)
            if key in tried:
                continue
            tried.add(key)
            if self._explains(trial, first.layer, *attentions):
                rest = self._rest(cause, trial)
                return Diagnosis(cause=cause, explanation=trial.explanation, where=scope, rest=rest), len(tried)
        return None, len(tried)

    def _trials(self, first: Row) -> Iterator[tuple[str, Trial, str]]:
        """Other weights explain whatever a swap or a transposition does: they are the last to be tried."""
        parts = [*scopes(self._modules, first.layer), *(() if first.input_agrees else self._before(first.layer))]
        last = [("other_weights", scope) for scope in parts]
        usual = [(cause, scope) for scope in parts for cause in CAUSES if cause != last[0][0]]
        for cause, scope in [*usual, *((cause, "") for cause in EARLIER), *last]:
            for trial in CAUSES[cause](self._case(scope)):
                yield cause, trial, scope

    def _case(self, scope: str) -> Case:
        return Case(self.pair.ours, self._modules, scope, self.parameters)

    @cached_property
    def _modules(self) -> dict[str, Any]:
        return modules(self.pair.ours)

    def _before(self, layer: str) -> list[str]:
        """The modules of ours between a row and the one before it, which no module of theirs corresponds to."""
        paths = list(self.ours)
        rows = {path for link in self.pair.links for path in link.ours}
        earlier = paths[: paths.index(layer)]
        start = next((i for i in reversed(range(len(earlier))) if earlier[i] in rows), -1)
        return earlier[start + 1 :]

    def _explains(self, trial: Trial, *layers: str) -> bool:
        """Whether, with the change, the difference at one of the layers vanishes (wherever theirs is a number)."""
        rows = self._rows(trial, *layers)
        pairs = [(self._first_rows[row.layer], row) for row in rows if row.layer in self._first_rows]
        return any(_vanishes(before, after, trial.slack) for before, after in pairs)

    @cached_property
    def _first_rows(self) -> dict[str, Row]:
        return {row.layer: row for row in self.pair.rows(self.ours, self.theirs, where_finite=True)}

    def _rows(self, trial: Trial, *layers: str) -> tuple[Row, ...]:
        ours = self.pair.record_ours(trial.model, trial.edits, until=min(layers, key=len))  # the others are within it
        theirs = self.pair.record_theirs(evaluation=True) if trial.theirs_in_evaluation else self.theirs
        return self.pair.rows(ours, theirs, only=layers, where_finite=True)

    def _rest(self, cause: str, trial: Trial) -> str:
        """What becomes of the output with the cause removed there, and with it removed everywhere."""
        agrees = "the output differs by no more than rounding explains" if trial.slack else "the output agrees"
        if self._heals(trial):
            return f"with that changed, {agrees}"
        everywhere = CAUSES[cause](self._case(""))
        if any(other.explanation == trial.explanation and self._heals(other) for other in everywhere):
            return f"with that changed in the whole model, {agrees}"
        return "the output still differs then: there is another cause behind it"

    def _heals(self, trial: Trial) -> bool:
        """Whether, with the change, the output agrees; or is off by about as much as the change's rounding makes it."""
        (row,) = self._rows(trial, "")
        if row.agrees or trial.slack < math.inf:
            return row.agrees or row.max_rel <= trial.slack
        rounded = self.pair.record_ours(trial.model, trial.edits)[""].output
        return row.max_abs <= 2 * float(np.abs(rounded - self.ours[""].output).max())


def _vanishes(before: Row, after: Row, slack: float) -> bool:
    if before.agrees or not math.isfinite(after.max_rel):
        return False
    return after.max_rel <= min(VANISHED * before.max_rel, max(after.tolerance, slack))


def scopes(modules: Mapping[str, Any], layer: str) -> list[str]:
    """The layer and the modules around it, up to its block; without one, up to the whole model."""
    inward = around(modules, layer)
    block = next((i for i, (_, module) in enumerate(inward) if isinstance(module, Block)), None)
    return [*(path for path, _ in reversed(inward[block:])), *([""] if block is None else [])]


def around(modules: Mapping[str, Any], layer: str) -> list[tuple[str, Any]]:
    """The modules that hold a layer, from the outside in, and the layer itself; not the whole model."""
    paths = [path for path in sorted(modules, key=len) if path and is_within(layer, path)]
    return [(path, modules[path]) for path in paths if not isinstance(modules[path], nnx.List)]
