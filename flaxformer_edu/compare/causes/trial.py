"""One cause at a time, tried out on a copy of our model."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from flax import nnx

from flaxformer_edu.compare.sides.ours import Edits
from flaxformer_edu.compare.sides.records import is_within
from flaxformer_edu.convert.rules import parameter_name

Kind = TypeVar("Kind", bound=nnx.Module)


@dataclass(frozen=True)
class Case:
    """Our model, the part of it (by path) in which a cause is looked for, and their parameters under our names."""

    model: nnx.Module
    scope: str
    parameters: Mapping[str, np.ndarray]

    def find(self, kind: type[Kind], model: nnx.Module | None = None) -> dict[str, Kind]:
        """The modules of a kind in the scope, by path: those of our model, or of a copy of it."""
        modules = nnx.iter_modules(self.model if model is None else model)
        named = ((parameter_name(path), module) for path, module in modules)
        return {path: module for path, module in named if isinstance(module, kind) and is_within(path, self.scope)}

    def trial(
        self,
        explanation: str,
        kind: type[Kind],
        change: Callable[[Kind], None],
        only: Callable[[Kind], bool] = lambda _: True,
    ) -> Iterator["Trial"]:
        """With each module of a kind in the scope changed, `only` saying which; nothing where there is none."""
        copy = nnx.clone(self.model)
        modules = {path: module for path, module in self.find(kind, copy).items() if only(module)}
        for module in modules.values():
            change(module)
        if modules:
            yield Trial(explanation, tuple(modules), copy)

    def setting(self, explanation: str, kind: type[nnx.Module], attribute: str, value: Any) -> Iterator["Trial"]:
        """With another value for an attribute of each module of a kind that has a different one."""
        different = partial(_has_other, attribute=attribute, value=value)
        yield from self.trial(explanation, kind, lambda module: setattr(module, attribute, value), different)


def _has_other(module: nnx.Module, attribute: str, value: Any) -> bool:
    return getattr(module, attribute) != value


@dataclass(frozen=True)
class Trial:
    """Our model with one thing changed in the modules `where`; or theirs, which is then run in evaluation.

    Where it is a matter of rounding, the difference need but shrink: as far as `slack`, relative to the largest value.
    """

    explanation: str
    where: tuple[str, ...]
    model: nnx.Module
    edits: Edits = field(default_factory=dict[str, Any])
    theirs_in_evaluation: bool = False
    slack: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The cause with which, tried out on our side, a difference vanishes.

    cause: its name in `CAUSES`, or "compiler"; where: the part of our model that was changed, or where compiled and
    eager first differ; rest: what then becomes of the model's output.
    """

    cause: str
    explanation: str
    where: str
    rest: str
