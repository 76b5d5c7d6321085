"""Optimizers by name, with the meaning and the defaults they have in PyTorch."""

from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, PyTree

from flaxformer_edu.errors import InputError

Name = Literal["sgd", "adam", "adamw"]


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """An optimizer and its learning rate over time.

    sgd: `momentum` as in torch.optim.SGD (default 0).
    adam: torch.optim.Adam; its weight decay is added to the gradient (L2) and so scaled like the gradient.
    adamw: torch.optim.AdamW; its weight decay is decoupled (Loshchilov and Hutter 2019), times the learning rate.

    `weight_decay` None stands for PyTorch's default: 0 for sgd and adam, 0.01 for adamw (optax's would be 0.0001).
    `decay` "all" applies it to every parameter, as PyTorch does by default; "weights" spares biases and the
    scales of norms. The learning rate rises linearly over `warmup_steps`, and then stays ("constant") or falls along a
    half cosine to `final_fraction` of itself at the last step ("cosine"). With "inverse_sqrt" it is learning_rate *
    min(step / warmup_steps, sqrt(warmup_steps / step)), steps counted from 1: Vaswani et al. 2017, equation 3, whose
    highest rate is (width * warmup_steps)^-1/2.
    """

    name: Name = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float | None = None
    decay: Literal["all", "weights"] = "all"
    schedule: Literal["constant", "cosine", "inverse_sqrt"] = "constant"
    warmup_steps: int = 0
    final_fraction: float = 0.0

    def __post_init__(self):
        if self.name not in get_args(Name):
            raise InputError(f"no optimizer is named {self.name!r}: choose one of {', '.join(get_args(Name))}")
        if not 0 < self.learning_rate < float("inf"):  # nor is NaN
            raise InputError(f"learning_rate is {self.learning_rate}, expected a number above 0")

    def build(self, steps: int) -> optax.GradientTransformation:
        """The optimizer for a run of that many steps."""
        rate = self.learning_rates(steps)
        mask = is_weight if self.decay == "weights" else None
        if self.name == "adamw":
            decay = 0.01 if self.weight_decay is None else self.weight_decay
            return optax.adamw(rate, *self.betas, eps=self.epsilon, weight_decay=decay, mask=mask)
        l2 = optax.add_decayed_weights(self.weight_decay or 0.0, mask)
        if self.name == "adam":
            return optax.chain(l2, optax.adam(rate, *self.betas, eps=self.epsilon))
        return optax.chain(l2, optax.sgd(rate, momentum=self.momentum or None))

    def learning_rates(self, steps: int) -> optax.Schedule:
        """The learning rate as a function of the step, counted from 0."""
        warmup, peak = self.warmup_steps, self.learning_rate
        fewest = 1 if self.schedule == "inverse_sqrt" else 0
        if not fewest <= warmup <= steps:
            raise InputError(f"warmup_steps is {warmup}, expected {fewest} to {steps}, the steps of the run")

        rising = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
        falling = optax.cosine_decay_schedule(peak, max(1, steps - warmup), self.final_fraction)
        rates = {"constant": rising, "cosine": optax.join_schedules([rising, falling], [warmup])}

        def rate(count: ArrayLike) -> Array:
            step = jnp.asarray(count, jnp.result_type(float))  # optax divides integers in float32 also where x64 is on
            if self.schedule == "inverse_sqrt":  # which optax lacks
                return peak * jnp.minimum((step + 1) / warmup, jnp.sqrt(warmup / (step + 1)))
            return jnp.asarray(rates[self.schedule](step))

        return rate


def is_weight(params: PyTree) -> PyTree:
    """True for each parameter but the biases and the norms' scales, which are known by their names."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in ("bias", "scale"), params)
