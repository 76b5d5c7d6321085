"""The inputs and the output of every layer of a PyTorch model. Importing this needs torch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from flaxformer_edu.compare.sides.records import Call, Recording
from flaxformer_edu.convert.models import as_numpy
from flaxformer_edu.errors import InputError


def record_torch(model: nn.Module, inputs: Sequence[Any]) -> Recording:
    """Run the model as it stands, in training or not, without gradients, and note each module's first call.

    Floating-point inputs get the type of its parameters. Raises InputError where the model does not run on them.
    """
    calls = Recording()
    with torch.no_grad():
        run(model, inputs, lambda path, given, result: note(calls, path, given, result))
    return calls


def note(calls: Recording, path: str, given: Sequence[Any], result: Any) -> None:
    """Add a module's call, if it is its first and gives a tensor."""
    output, first = first_tensor(result), first_tensor(given)
    if output is not None and path not in calls:
        calls[path] = Call(_copy(output), None if first is None else _copy(first))


def run(model: nn.Module, inputs: Sequence[Any], see: Callable[[str, Sequence[Any], Any], None]) -> Any:
    """The output of the model; `see` is given the path, the inputs and the output of each module called."""
    hooks = [
        module.register_forward_hook(
            lambda _, args, kwargs, result, path=path: see(path, [*args, *kwargs.values()], result), with_kwargs=True
        )
        for path, module in model.named_modules()
    ]
    first = next(model.parameters(), torch.empty(0))
    tensors = [_as_tensor(x, first) for x in inputs]
    try:
        return model(*tensors)
    except Exception as error:  # anything that the user's code can do
        given = ", ".join(f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}" for x in tensors)
        raise InputError(f"{type(model).__name__} does not run on {given} ({one_line(error)})") from error
    finally:
        for hook in hooks:
            hook.remove()


def one_line(error: Exception) -> str:
    """What went wrong, in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def parameters(model: nn.Module) -> dict[str, np.ndarray]:
    """The model's parameters and buffers by name: views, which training changes."""
    return {name: as_numpy(tensor) for name, tensor in model.state_dict().items()}


def leaves(model: nn.Module) -> dict[str, bool]:
    """Whether each module, by its path, has no modules within."""
    return {path: not any(True for _ in module.children()) for path, module in model.named_modules()}


class _NoDropout(TorchFunctionMode):
    """Makes every call of dropout give back what it was given."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        return (args[0] if args else kwargs["input"]) if func is F.dropout else func(*args, **kwargs)


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """The model in evaluation, without dropout even where its code does not ask for the mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with _NoDropout():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _as_tensor(x: Any, like: Tensor) -> Tensor:
    tensor = x.detach() if isinstance(x, Tensor) else torch.tensor(np.asarray(x))
    return tensor.to(like.device, like.dtype if tensor.is_floating_point() else None)


def first_tensor(values: Any) -> Tensor | None:
    """The first tensor of floating-point numbers, in whatever tuples, lists and dictionaries a module gives."""
    if isinstance(values, Tensor):
        return values if values.is_floating_point() else None
    if isinstance(values, dict):
        values = list(values.values())
    if not isinstance(values, list | tuple):
        return None
    tensors = map(first_tensor, values)
    return next((x for x in tensors if x is not None), None)


def _copy(tensor: Tensor) -> np.ndarray:
    return as_numpy(tensor).copy()
