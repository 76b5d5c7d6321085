"""Try the usual causes, one at a time, at the first layer that differs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from flax import nnx

from flaxformer_edu.compare.causes import CAUSES
from flaxformer_edu.compare.pairing import Pair
from flaxformer_edu.compare.recording import Recording
from flaxformer_edu.compare.report import Diagnosis, Row
from flaxformer_edu.compare.trial import Case, Trial, is_within
from flaxformer_edu.convert.rules import parameter_name
from flaxformer_edu.layers import MultiHeadAttention
from flaxformer_edu.layers.blocks import Block


@dataclass(frozen=True)
class Doctor:
    """Two models that differ, what theirs computed, and its parameters under our names."""

    pair: Pair
    theirs: Recording
    parameters: Mapping[str, np.ndarray]

    def diagnose(self, first: Row) -> tuple[Diagnosis | None, int]:
        """The cause that explains the first row that differs, if one does, and how many were tried.

        A cause is looked for in the layer itself, then in the modules around it, up to its block. Of a layer
        within attention, the attention may agree instead: where theirs gives the query to the key's projection, the
        projections cannot.
        """
        attentions = [
            path for path, module in around(self.pair.ours, first.layer) if isinstance(module, MultiHeadAttention)
        ]
        tried: set[tuple[str, tuple[str, ...]]] = set()
        for cause, trial, scope in self._trials(first.layer):
            key = (trial.explanation, trial.where)
            if key in tried:
                continue
            tried.add(key)
            if self.agrees(trial, first.layer, *attentions):
                found = Diagnosis(
                    cause=cause, explanation=trial.explanation, where=scope, rest=self._rest(cause, trial)
                )
                return found, len(tried)
        return None, len(tried)

    def _trials(self, layer: str) -> Iterator[tuple[str, Trial, str]]:
        """Other weights explain whatever a swap or a transposition does: they are the last to be tried."""
        parts = scopes(self.pair.ours, layer)
        last = [("other_weights", scope) for scope in parts]
        for cause, scope in [*((cause, scope) for scope in parts for cause in CAUSES if cause != last[0][0]), *last]:
            for trial in CAUSES[cause](Case(self.pair.ours, scope, self.parameters)):
                yield cause, trial, scope

    def agrees(self, trial: Trial, *layers: str) -> bool:
        """Whether, with the change, one of the layers puts out what theirs does (wherever that is a number)."""
        ours = self.pair.record_ours(trial.model, trial.edits, until=min(layers, key=len))  # the others are within it
        theirs = self.pair.record_theirs(evaluation=True) if trial.theirs_in_evaluation else self.theirs
        return any(row.agrees for row in self.pair.rows(ours, theirs, only=layers, where_finite=True))

    def _rest(self, cause: str, found: Trial) -> str:
        """What becomes of the output with the cause removed there, and with it removed everywhere."""
        if self.agrees(found, ""):
            return "with that changed, the output agrees"
        everywhere = CAUSES[cause](Case(self.pair.ours, "", self.parameters))
        if any(trial.explanation == found.explanation and self.agrees(trial, "") for trial in everywhere):
            return "with that changed in the whole model, the output agrees"
        return "the output still differs then: there is another cause behind it"


def scopes(model: nnx.Module, layer: str) -> list[str]:
    """The layer and the modules around it, up to its block; without one, up to the whole model."""
    inward = around(model, layer)
    block = next((i for i, (_, module) in enumerate(inward) if isinstance(module, Block)), None)
    return [*(path for path, _ in reversed(inward[block:])), *([""] if block is None else [])]


def around(model: nnx.Module, layer: str) -> list[tuple[str, nnx.Module]]:
    """The modules that hold a layer, from the outside in, and the layer itself; not the whole model."""
    modules = {parameter_name(path): module for path, module in nnx.iter_modules(model)}
    paths = [path for path in sorted(modules, key=len) if path and is_within(layer, path)]
    return [(path, modules[path]) for path in paths if not isinstance(modules[path], nnx.List)]
