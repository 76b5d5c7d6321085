"""PyTorch's side of training side by side. Importing this module needs torch; nothing in the package does by itself."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from flaxformer_edu.compare.curves.curve import Draw, TrainingCurve, digest
from flaxformer_edu.convert.models import as_numpy
from flaxformer_edu.errors import InputError
from flaxformer_edu.reference import TorchGenerator

TorchLoss = Callable[[Any, dict[str, Tensor]], Tensor]
TorchOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
CHECKED_STEPS = 2  # the first steps, whose masks are compared with those that TorchGenerator draws: watching takes time


def record(
    model: nn.Module,
    batches: Callable[[int], Mapping[str, Any]],
    loss_fn: TorchLoss,
    make_optimizer: TorchOptimizer,
    *,
    steps: int,
    seed: int,
    keep_weights: bool,
    keep_batches: bool,
) -> TrainingCurve:
    """Train a copy of the model; see `compare.record_training`."""
    dtype = _float_type(model)
    model = copy.deepcopy(model).train()
    weights = {name: as_numpy(tensor).copy() for name, tensor in model.state_dict().items()}
    optimizer, stream = make_optimizer(model.parameters()), dropout_stream()
    replay, draws, losses, digests = TorchGenerator(seed, dropout=stream), [], [], []
    first: dict[str, np.ndarray] = {}
    kept: dict[str, dict[str, np.ndarray]] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(steps):
            batch = {name: np.asarray(x) for name, x in batches(step).items()}
            first = first or batch
            _check_shapes(step, batch, first)
            digests.append(digest(batch))
            if keep_batches:
                kept[digests[-1]] = batch
            tensors = {name: as_tensor(x, dtype) for name, x in batch.items()}
            with DropoutDraws(stream) if step < CHECKED_STEPS else nullcontext() as drawn:
                losses.append(_step(model, tensors, loss_fn, optimizer))
            if drawn is not None:
                draws = draws if step else drawn.draws
                _check_draws(step, drawn, draws, replay)
    return TrainingCurve(
        losses=np.array(losses, np.float64),
        dtype=str(dtype).removeprefix("torch."),
        seed=seed,
        stream=stream,
        draws=tuple(draws),
        weight_digests={name: digest({name: x}) for name, x in weights.items()},
        batch_digests=tuple(digests),
        weights=weights if keep_weights else {},
        batches=kept,
    )


def dropout_stream() -> str:
    """How the installed PyTorch draws dropout masks: as "generic" or as "mkl", whichever gives those that it draws."""
    shape = (64,)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = torch.empty(shape).bernoulli_(0.5).bool().numpy()
    for stream in ("generic", "mkl"):
        if (TorchGenerator(0, dropout=stream).keep(shape, 0.5) == drawn).all():
            return stream
    raise InputError(f"PyTorch {torch.__version__} draws dropout masks in a way that TorchGenerator does not know")


def as_tensor(x: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Images (whatever has four axes) channel first, other integers as int64, floating-point numbers as `dtype`."""
    if x.ndim == 4:
        x = x.transpose(0, 3, 1, 2)
    elif np.issubdtype(x.dtype, np.integer):
        x = x.astype(np.int64)
    tensor = torch.tensor(np.ascontiguousarray(x))
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


class DropoutDraws(TorchDispatchMode):
    """Notes the dropout masks that are drawn while it is active, and how PyTorch's generator draws each.

    It sees the operations that PyTorch's functions are made of, and so also the dropout within
    `torch.nn.functional.scaled_dot_product_attention`.
    """

    def __init__(self, stream: str):
        super().__init__()
        self.stream = stream
        self.draws: list[Draw] = []
        self.masks: list[np.ndarray] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.bernoulli_.float:
            self.draws.append(self._draw(result, args[1]))
            self.masks.append(result.bool().numpy())
        return result

    def _draw(self, mask: Tensor, keep: float) -> Draw:
        """The generic stream fills a tensor in the order of memory; MKL's numbers are copied to where they belong."""
        order = list(range(mask.ndim))
        if self.stream == "generic":
            order.sort(key=lambda axis: -mask.stride(axis))
        return Draw(tuple(mask.shape[axis] for axis in order), tuple(map(order.index, range(mask.ndim))), keep)


def _step(model: nn.Module, batch: dict[str, Tensor], loss_fn: TorchLoss, optimizer: torch.optim.Optimizer) -> float:
    """One step of training, and the loss before it."""
    optimizer.zero_grad()
    loss = loss_fn(model, batch)
    if not isinstance(loss, Tensor) or loss.ndim:
        raise InputError("torch_loss must return a single number as a tensor: take the mean")
    loss.backward()
    optimizer.step()
    return loss.item()


def _check_shapes(step: int, batch: Mapping[str, np.ndarray], first: Mapping[str, np.ndarray]) -> None:
    """Raise InputError where a batch has other shapes than the first one."""
    shapes, expected = ({name: x.shape for name, x in arrays.items()} for arrays in (batch, first))
    if shapes != expected:
        raise InputError(
            f"the batch of step {step} has the shapes {shapes}, that of step 0 {expected}: make them alike"
        )


def _check_draws(step: int, drawn: DropoutDraws, first: Sequence[Draw], replay: TorchGenerator) -> None:
    """Raise InputError where a step's masks are others than TorchGenerator will draw."""
    if drawn.draws != first:
        raise InputError(
            f"step {step} draws {len(drawn.draws)} dropout masks, step 0 draws {len(first)}, or of other shapes: "
            "nothing else of the model may be left to chance"
        )
    if any((draw.mask(replay) != mask).any() for draw, mask in zip(first, drawn.masks, strict=True)):
        raise InputError(
            f"the dropout masks of step {step} cannot be drawn again: their model or loss draws other random numbers "
            "from PyTorch's generator in between; draw them before the training, or from a generator of their own"
        )


def _float_type(model: nn.Module) -> torch.dtype:
    """Of the parameters, which must be alike and on the CPU."""
    types = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    devices = {parameter.device.type for parameter in model.parameters()}
    if len(types) != 1 or devices != {"cpu"}:
        kinds = ", ".join(sorted({*map(str, types), *devices})) or "none"
        raise InputError(f"theirs has parameters of {kinds}: expected one floating-point type, on the CPU")
    return types.pop()
