"""Where faults are planted: a random place on PyTorch's side of a correct port.

Each fault is a function of a `Site` that plants it there and says where, on our side, it must be found.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from benchmarks.false_alarms.ports import Port

Change = Callable[[nn.Module, Tensor, Tensor], Tensor]  # of a module, what it was given and gave: what to give instead
SMALL = (1e-3, 1e-2, 1e-1)


class Unsuitable(Exception):
    """The port has no place for such a fault."""


@dataclass(frozen=True)
class Site:
    """A port, one of its blocks, and a source of random sizes."""

    port: Port
    index: int
    random: np.random.Generator

    def path(self, name: str | None) -> str:
        """Of a part of the block in PyTorch's model."""
        if name is None:
            raise Unsuitable
        return f"{self.port.names.block}.{name}".format(i=self.index)

    def module(self, name: str | None) -> Any:
        """A part of the block."""
        return self.port.theirs.get_submodule(self.path(name))

    def whole(self, path: str | None) -> Any:
        """A module or tensor of PyTorch's model by its whole path."""
        if path is None:
            raise Unsuitable
        holder, _, name = path.rpartition(".")
        return getattr(self.port.theirs.get_submodule(holder), name)

    @property
    def block(self) -> Any:
        """The block itself."""
        return self.port.theirs.get_submodule(self.port.names.block.format(i=self.index))

    def ours(self, part: str = "") -> str:
        """The part's path on our side."""
        block = self.port.names.ours.format(i=self.index)
        return f"{block}.{part}" if part else block

    def size(self, *choices: float) -> float:
        """One of some sizes."""
        return float(self.random.choice(choices))


def after(module: nn.Module, change: Change) -> None:
    """Change what a module gives."""

    def hook(_: nn.Module, given: Any, result: Any) -> Any:
        if isinstance(result, tuple):
            return change(module, given[0] if given else result[0], result[0]), *result[1:]
        return change(module, given[0] if given else result, result)

    module.register_forward_hook(hook)


def before(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Change the first of what a module is given."""
    module.register_forward_pre_hook(lambda _, given: (change(given[0]), *given[1:]))
