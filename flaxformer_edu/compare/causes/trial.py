"""One cause at a time, tried out on a copy of our model."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any, TypeVar

import numpy as np
from flax import nnx

from flaxformer_edu.compare.sides.ours import Edits
from flaxformer_edu.compare.sides.records import is_within

Kind = TypeVar("Kind", bound=nnx.Module)


@dataclass(frozen=True)
class Case:
    """Our model and its modules by path, the one in which a cause is looked for, and their parameters by our names."""

    model: nnx.Module
    modules: Mapping[str, Any]
    scope: str
    parameters: Mapping[str, np.ndarray]

    def find(self, kind: type[Kind]) -> dict[str, Kind]:
        """The modules of a kind in the scope, by path."""
        modules = self.modules.items()
        return {path: module for path, module in modules if isinstance(module, kind) and is_within(path, self.scope)}

    def trial(
        self,
        explanation: str,
        kind: type[Kind],
        change: Callable[[Kind], None],
        only: Callable[[Kind], bool] = lambda _: True,
    ) -> Iterator["Trial"]:
        """With each module of a kind in the scope changed, `only` saying which; nothing where there is none."""
        where = tuple(path for path, module in self.find(kind).items() if only(module))
        if where:
            copy = nnx.clone(self.model)
            for path in where:
                change(module_at(copy, path))
            yield Trial(explanation, where, copy)

    def setting(self, explanation: str, kind: type[nnx.Module], attribute: str, value: Any) -> Iterator["Trial"]:
        """With another value for an attribute of each module of a kind that has a different one."""
        different = partial(_has_other, attribute=attribute, value=value)
        yield from self.trial(explanation, kind, lambda module: setattr(module, attribute, value), different)


def module_at(model: Any, path: str) -> Any:
    """The module of this path, such as "encoder.blocks.0.mlp", in a model; the model itself where it is empty."""
    parts = path.split(".") if path else []
    return reduce(lambda module, part: module[int(part)] if part.isdigit() else getattr(module, part), parts, model)


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
