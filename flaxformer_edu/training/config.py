"""What a training is given: batches, an optimizer's description, and how long it goes on."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import optax

from flaxformer_edu.data.fingerprint import fingerprint, fingerprint_batches
from flaxformer_edu.errors import InputError
from flaxformer_edu.runs import encode


@runtime_checkable
class BatchSource(Protocol):
    """Training batches as a pure function of the step. The arrays handed out are not written to afterwards.

    Where it also has a `dataset`, as `Batches` has, a run that is resumed compares that with the one it began with.
    """

    batch_size: int
    steps_per_epoch: int

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """The batch of step 0, 1, 2, ..., counted over all epochs."""
        ...


@runtime_checkable
class OptimizerConfig(Protocol):
    """A dataclass that describes an optimizer: `Optimizer`, or your own."""

    def build(self, steps: int) -> optax.GradientTransformation:
        """The optimizer for a run of that many steps."""
        ...


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """The settings of `fit`.

    steps: the number of updates.
    seed: what dropout and augmentation are drawn from, together with the step.
    evaluate_every, save_every: in steps; None for at the end only. A checkpoint is also written after every evaluation.
    steps_per_call: how many steps one call to the device works through; above 1 where a step takes less than 2 ms.
    accumulate: how many parts a batch is cut into to save memory.
    clip_norm: the largest global norm of the gradient; None for no limit.
    ema_decay: the decay of the parameters' moving average, which is then evaluated and used; None for none.
    best_metric, best_is: which checkpoint counts as the best.
    """

    steps: int
    seed: int = 0
    evaluate_every: int | None = None
    save_every: int | None = None
    steps_per_call: int = 1
    accumulate: int = 1
    clip_norm: float | None = None
    ema_decay: float | None = None
    best_metric: str = "loss"
    best_is: Literal["lowest", "highest"] = "lowest"

    def __post_init__(self):
        for name in ("steps", "evaluate_every", "save_every", "steps_per_call", "accumulate"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}, expected 1 or more")


def describe_run(
    optimizer: OptimizerConfig,
    train: BatchSource,
    config: LoopConfig,
    settings: Any,
    validation: Callable[[], Iterable[Mapping[str, np.ndarray]]] | None = None,
) -> dict[str, Any]:
    """What must be the same for a run to be resumed, the data among it."""
    batches = {"batch_size": train.batch_size, "steps_per_epoch": train.steps_per_epoch}
    described = {"loop": config, "optimizer": optimizer, "batches": batches, "settings": settings}
    dataset = getattr(train, "dataset", None)
    described["data"] = fingerprint_batches([train(0)]) if dataset is None else fingerprint(dataset)
    if validation is not None:
        described["validation"] = fingerprint_batches(validation())
    return encode(described)
