"""A PyTorch model in float64, and with its constants moved by one unit of rounding. Importing this needs torch."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from flaxformer_edu.compare.sides.records import Recording
from flaxformer_edu.compare.sides.theirs import first_tensor, run


@contextmanager
def in_float64(model: nn.Module, held: str) -> Iterator[None]:
    """The model itself in float64, its numbers first rounded to the type `held`; afterwards it is as it was.

    No copy, since a module may hold functions that know the module itself. Its random numbers are drawn as if it had
    not been run.
    """
    parameters = {x: x.data for x in model.parameters() if x.is_floating_point()}
    buffers = {
        (module, name): x
        for module in model.modules()
        for name, x in module._buffers.items()
        if x is not None and x.is_floating_point()
    }
    kind, devices = getattr(torch, held), {x.device.index for x in parameters if x.is_cuda}
    try:
        for parameter, x in parameters.items():
            parameter.data = x.to(kind).double()
        for (module, name), x in buffers.items():
            module._buffers[name] = x.to(kind).double()
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for parameter, x in parameters.items():
            parameter.data = x
        for (module, name), x in buffers.items():
            module._buffers[name] = x


def as_float64(x: Any, held: str) -> Any:
    """A model's input in float64, rounded to the type `held` first."""
    x = torch.as_tensor(x)
    return x.to(getattr(torch, held)).double() if x.is_floating_point() else x


def moved_by_constants(
    model: nn.Module, inputs: Sequence[Any], calls: Recording, shared: Collection[str], held: str
) -> Mapping[str, tuple[float, float]]:
    """How far, at most, one unit of rounding in what the model did not get from ours moves each module.

    That is: of what it is given, and of what it gives if it is given the same as in `calls`; those of other modules do
    not count. Moved are the buffers whose names are not `shared`, and all that is computed in a narrower type than
    float64, though not in one narrower than `held`: that would be a fault. The model must be in float64.
    """
    unit, distances = torch.finfo(getattr(torch, held)).eps, dict[str, tuple[float, float]]()
    given: dict[str, float] = {}

    def enter(path: str, args: Any, kwargs: Any) -> Any:
        before = calls[path].input if path in calls else None
        if path in given or before is None:
            return None
        given[path], (args, kwargs) = _replaced((args, kwargs), torch.as_tensor(before))
        return args, kwargs

    def leave(path: str, result: Any) -> Any:
        if path in distances or path not in calls:
            return None
        distance, result = _replaced(result, torch.as_tensor(calls[path].output))
        distances[path] = given.get(path, 0.0), distance
        return result

    handles = []
    for path, module in model.named_modules():
        handles.append(
            module.register_forward_pre_hook(lambda _, a, k, path=path: enter(path, a, k), with_kwargs=True)
        )
        handles.append(module.register_forward_hook(lambda _, a, result, path=path: leave(path, result)))
    try:
        with torch.no_grad(), _constants_moved(model, shared, unit), _Moving(unit):
            run(model, inputs, lambda path, args, result: None)
    finally:
        for handle in handles:
            handle.remove()
    return distances


def _replaced(values: Any, wanted: Tensor) -> tuple[float, Any]:
    """How far the first floating-point tensor is from the wanted one, and the same values with that in its place."""
    first = first_tensor(values)
    if first is None or first.shape != wanted.shape:
        return 0.0, values
    distance = float((first - wanted).abs().max()) if first.numel() else 0.0
    return distance, tree_map_only(Tensor, lambda x: wanted.to(x.dtype) if x is first else x, values)


@contextmanager
def _constants_moved(model: nn.Module, shared: Collection[str], unit: float) -> Iterator[None]:
    names = dict(model.named_buffers())
    holders = {
        name: (model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2])
        for name, x in names.items()
        if x.is_floating_point() and name not in shared
    }
    generator = torch.Generator().manual_seed(0)
    try:
        for name, (module, leaf) in holders.items():
            module._buffers[leaf] = _off(names[name], unit, generator)
        yield
    finally:
        for name, (module, leaf) in holders.items():
            module._buffers[leaf] = names[name]


def _off(x: Tensor, unit: float, generator: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, x.shape, generator=generator).to(x.device, x.dtype) * 2 - 1
    return x + x * signs * unit


class _Moving(TorchDispatchMode):
    """Moves what is computed in a narrower type than float64, but not in one whose rounding is coarser than `unit`."""

    def __init__(self, unit: float):
        super().__init__()
        self.unit, self.generator = unit, torch.Generator().manual_seed(0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return result if func.is_view else tree_map_only(Tensor, self._move, result)

    def _move(self, x: Tensor) -> Tensor:
        narrow = x.is_floating_point() and x.dtype != torch.float64 and x.ndim > 0
        if not narrow or torch.finfo(x.dtype).eps > self.unit:
            return x
        return _off(x, torch.finfo(x.dtype).eps, self.generator)

