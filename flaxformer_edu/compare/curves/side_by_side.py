"""Train our model beside PyTorch's, from the same seed, weights, batches and dropout masks, and compare the losses."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from flaxformer_edu.compare.curves.curve import TrainingCurve
from flaxformer_edu.compare.curves.ours import Batches, Loss, follow, with_their_weights
from flaxformer_edu.compare.curves.report import TrainingReport
from flaxformer_edu.compare.sides.ours import float_type
from flaxformer_edu.convert.rules import Layout
from flaxformer_edu.errors import InputError

STEPS = 100
TOLERANCES = {"float64": 1e-10, "float32": 1e-3}  # relative, over a hundred steps


def training(
    ours: nnx.Module,
    theirs: Any,
    batches: Batches | None = None,
    *,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    torch_loss: Callable[[Any, Any], Any] | None = None,
    torch_optimizer: Callable[[Any], Any] | None = None,
    steps: int | None = None,
    seed: int = 0,
    layout: str | Layout | None = None,
    tolerance: float | None = None,
) -> TrainingReport:
    """Train both models and compare the losses, step by step.

    `theirs` is a torch.nn.Module, which is recorded first (see `record_training` for `torch_loss`, `torch_optimizer`,
    `steps` and `seed`), or a `TrainingCurve` that was recorded earlier, or the path of one: then torch is not needed.
    Ours starts from their initial weights, which `layout` explains as in `convert`, and drops what theirs dropped: the
    masks are drawn by `TorchGenerator` and handed to one compiled step. Both models are left as they were.

    `loss(model, batch, rngs)` returns the mean loss, or, as `fit` wants it, that and a dict; `rngs` goes to the model.
    `batches(step)` is a dict of arrays, for our model as it stands but for floating-point numbers, which get the type
    of its parameters; a curve may have the batches, and then needs none. `tolerance` is relative to their loss; by
    default 1e-10 in float64 and 1e-3 in float32.

    Raises InputError where the weights do not fit (ConversionError lists them), or the masks: our layers must drop out
    in the order of theirs. Masks with the batch second or of one head each are brought to ours; for the former, choose
    a batch of another size than the length.
    """
    given = {"batches": batches, "torch_loss": torch_loss, "torch_optimizer": torch_optimizer, "steps": steps}
    curve = _curve(theirs, {**given, "seed": seed})
    steps = len(curve.losses) if steps is None else steps
    if not 0 < steps <= len(curve.losses):
        raise InputError(f"steps is {steps}, but the curve has {len(curve.losses)}")
    dtype = float_type(ours)
    tolerance = _tolerance((dtype.name, curve.dtype)) if tolerance is None else tolerance
    with jax.enable_x64(True) if dtype == np.float64 else nullcontext(), jax.default_matmul_precision("highest"):
        model = with_their_weights(ours, curve, layout)
        losses = follow(model, curve, curve.batch if batches is None else batches, loss, optimizer, steps)
    return TrainingReport(ours=tuple(losses), theirs=tuple(curve.losses[:steps].tolist()), tolerance=tolerance)


def record_training(
    theirs: Any,
    batches: Batches,
    *,
    torch_loss: Callable[[Any, Any], Any],
    torch_optimizer: Callable[[Any], Any],
    steps: int = STEPS,
    seed: int = 0,
    keep_weights: bool = True,
    keep_batches: bool = True,
) -> TrainingCurve:
    """Train a copy of a torch.nn.Module on the CPU, after `torch.manual_seed(seed)`, and note what ours must follow.

    `torch_loss(model, batch)` returns the mean loss, `torch_optimizer(parameters)` the optimizer. PyTorch's batches are
    those of `batches(step)` as tensors: images (whatever has four axes) channel first, other integers as int64,
    floating-point numbers of the type of the parameters. All batches must have the same shapes.

    With `keep_weights` and `keep_batches` the curve, and the file that it is saved to, has them; where both sides can
    make them from the seed, it need only have their digests, by which it is seen whether they are the same.

    Raises InputError where torch is missing, or the dropout masks could not be drawn again without it.
    """
    try:
        from flaxformer_edu.compare.curves.theirs import record
    except ImportError:
        raise InputError("recording a training needs torch: pip install 'flaxformer-edu[torch]'") from None
    if steps < 1:
        raise InputError(f"steps is {steps}, expected 1 or more")
    return record(
        theirs,
        batches,
        torch_loss,
        torch_optimizer,
        steps=steps,
        seed=seed,
        keep_weights=keep_weights,
        keep_batches=keep_batches,
    )


def _curve(theirs: Any, given: Mapping[str, Any]) -> TrainingCurve:
    """The curve itself, or of the file, or recorded now."""
    if isinstance(theirs, TrainingCurve):
        return theirs
    if isinstance(theirs, str | os.PathLike):
        return TrainingCurve.load(theirs)
    missing = [name for name, value in given.items() if value is None and name != "steps"]
    if not hasattr(theirs, "state_dict") or missing:
        raise InputError(
            f"theirs is {type(theirs).__name__}, and {', '.join(missing) or 'nothing'} is missing: expected a "
            "torch.nn.Module with batches, torch_loss and torch_optimizer, or a recorded curve"
        )
    return record_training(theirs, keep_batches=False, **{k: v for k, v in given.items() if v is not None})


def _tolerance(dtypes: Iterable[str]) -> float:
    """That of the narrower type."""
    dtypes = set(dtypes)
    if unknown := dtypes - TOLERANCES.keys():
        raise InputError(f"no tolerance is known for {', '.join(sorted(unknown))}: say which (tolerance=...)")
    return max(TOLERANCES[name] for name in dtypes)
