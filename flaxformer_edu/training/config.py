"""How long to train, and what happens on the way."""

from dataclasses import dataclass
from typing import Literal

from flaxformer_edu.errors import InputError


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

    def is_due(self, every: int | None, before: int, after: int) -> bool:
        """Whether the steps from `before` to `after` passed a multiple of `every`, or reached the end."""
        return after == self.steps or (every is not None and before // every < after // every)
