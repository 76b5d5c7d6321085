"""The backward pass of a PyTorch model, and one step of an optimizer. Importing this module needs torch."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flaxformer_edu.compare.sides.records import BackwardRequest, Call, Gradients, Recording
from flaxformer_edu.compare.sides.theirs import first_tensor, note, one_line, run
from flaxformer_edu.convert.models import as_numpy
from flaxformer_edu.errors import InputError


def record_backward(
    model: nn.Module, inputs: Sequence[Any], request: BackwardRequest
) -> tuple[Recording, Gradients, dict[str, np.ndarray] | None]:
    """What the model computes, its gradients, and its parameters after a step of the optimizer, if one is asked for.

    The model's parameters, their gradients and whether they have any are left as they were; frozen ones are
    differentiated by, and not updated. Raises InputError where the model does not run, its loss is no single number or
    the optimizer does not step.
    """
    calls, watch = Recording(), _Watch()
    holders = {path: module for path, module in model.named_modules() if any(True for _ in module.parameters())}
    named = model.named_parameters(remove_duplicate=False)
    parameters = {name: x for name, x in named if x.is_floating_point()}

    def see(path: str, given: Sequence[Any], result: Any) -> None:
        note(calls, path, given, result)
        output = first_tensor(result)
        if path in holders and output is not None and output.shape == calls[path].output.shape:
            watch(path, output, _padding(holders[path], given))

    with _thawed(parameters.values()), watch, torch.enable_grad():
        loss = _number((request.loss or default_loss)(run(model, inputs, see)))
        tensors = [*parameters.values(), *watch.cut]
        if loss.requires_grad:
            of_tensors = torch.autograd.grad(loss, tensors, allow_unused=True)
        else:
            of_tensors = [None] * len(tensors)
    gradients = {
        name: torch.zeros_like(x) if gradient is None else gradient
        for (name, x), gradient in zip(parameters.items(), of_tensors, strict=False)
    }
    outputs = {path: Call(_of_output(watch.gradients.get(path), call), None) for path, call in calls.items()}
    step = None if request.optimizer is None else _stepped(parameters, gradients, request.optimizer)
    return calls, Gradients({name: as_numpy(x) for name, x in gradients.items()}, outputs), step


def default_loss(output: Any) -> Tensor:
    """The sum of y + y^3 / 3 over the model's first output, at least in float32, as ours."""
    y = first_tensor(output)
    if y is None:
        raise InputError("their model gives no tensor of floating-point numbers: hand in a loss of what it gives")
    y = y.to(torch.promote_types(y.dtype, torch.float32))
    return (y + y**3 / 3).sum()


class _Watch(ExitStack):
    """Adds up the gradients that reach each of the tensors it is called with, until it is closed.

    Those where it is told that they end there are zero.
    `cut` are those that were cut off from what they are made of: gradients reach them, and go no further.
    """

    def __init__(self):
        super().__init__()
        self.gradients: dict[str, Tensor] = {}
        self.cut: list[Tensor] = []

    def __call__(self, path: str, tensor: Tensor, ends: Tensor | None) -> None:
        def add(gradient: Tensor) -> None:
            gradient = gradient if ends is None else gradient.masked_fill(ends, 0)
            self.gradients[path] = self.gradients[path] + gradient if path in self.gradients else gradient

        if not tensor.requires_grad:
            tensor.requires_grad_()
            self.cut.append(tensor)
            self.callback(tensor.requires_grad_, False)
        self.callback(tensor.register_hook(add).remove)


@contextmanager
def _thawed(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """The same parameters with gradients, also those that are frozen."""
    frozen = [x for x in parameters if not x.requires_grad]
    try:
        for x in frozen:
            x.requires_grad_(True)
        yield
    finally:
        for x in frozen:
            x.requires_grad_(False)


def _padding(module: nn.Module, given: Sequence[Any]) -> Tensor | None:
    """Where an embedding's padding stands: no gradient goes in there; ours has to stop it after the embedding."""
    if not isinstance(module, nn.Embedding) or module.padding_idx is None:
        return None
    return (given[0] == module.padding_idx)[..., None]


def _of_output(gradient: Tensor | None, call: Call) -> np.ndarray:
    return np.zeros_like(call.output) if gradient is None else as_numpy(gradient)


def _stepped(parameters: dict[str, nn.Parameter], gradients: dict[str, Tensor], make: Any) -> dict[str, np.ndarray]:
    """Copies of the parameters after the optimizer's first step; those that are shared are one."""
    copies = {id(x): nn.Parameter(x.detach().clone(), x.requires_grad) for x in parameters.values()}
    for name, x in parameters.items():
        copies[id(x)].grad = gradients[name].detach().clone() if x.requires_grad else None
    try:
        make(list(copies.values())).step()
    except Exception as error:  # anything that the user's code can do
        raise InputError(f"their optimizer does not step on a list of parameters ({one_line(error)})") from error
    return {name: as_numpy(copies[id(x)]) for name, x in parameters.items()}


def _number(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.shape != ():
        given = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"type {type(loss).__name__}"
        raise InputError(f"the loss of their output has {given}, expected a number as a tensor: sum it, or average it")
    return loss
