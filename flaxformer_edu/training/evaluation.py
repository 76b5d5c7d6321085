"""Evaluation: exact averages over a data set whose last batch is padded."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from flaxformer_edu.errors import InputError
from flaxformer_edu.runs.metrics import IN_FLIGHT
from flaxformer_edu.training.mesh import share
from flaxformer_edu.training.step import Batch, Params

EvaluateFn = Callable[[Any, Batch], dict[str, Float[Array, "batch"]]]


class Evaluation:
    """A function of the parameters: the average of each metric over all the examples of `batches()`.

    `evaluate_fn(model, batch)` returns one value per example for each metric. A batch's boolean `mask` of shape
    `(batch,)` marks the examples that count; the others fill up a batch to its size.
    """

    def __init__(
        self, graphdef: nnx.GraphDef, evaluate_fn: EvaluateFn, batches: Callable[[], Iterable[Batch]], mesh: Mesh
    ):
        def sums(params: Params, batch: Batch) -> dict[str, Array]:
            values = evaluate_fn(nnx.merge(graphdef, params), batch)
            totals = {name: jnp.where(batch["mask"], value, 0).sum() for name, value in values.items()}
            return {"examples": batch["mask"].sum(), **totals}

        self.batches, self.mesh = batches, mesh
        self._sums = jax.jit(sums)

    def __call__(self, params: Params) -> dict[str, float]:
        """Evaluate. Each batch is summed on the device, the batches in Python's double precision."""
        totals: dict[str, float] = {}
        running: deque[dict[str, Array]] = deque()

        def collect() -> None:
            for name, value in jax.device_get(running.popleft()).items():
                totals[name] = totals.get(name, 0.0) + float(value)

        for batch in self.batches():
            running.append(self._sums(params, share(batch, self.mesh)))
            if len(running) > IN_FLIGHT:
                collect()
        while running:
            collect()
        examples = totals.pop("examples", 0)
        if not examples:
            raise InputError("there is nothing to evaluate: validation() gave no examples")
        return {name: total / examples for name, total in totals.items()}

    def check(self, params: Params, metric: str) -> None:
        """Raise InputError, before hours of training, where a batch has no mask or `metric` is not evaluated."""
        batch = next(iter(self.batches()), {})
        if "mask" not in batch:
            raise InputError(
                f"an evaluation batch has {', '.join(batch) or 'nothing'}, expected also mask: True for real examples"
            )
        names = jax.eval_shape(self._sums, params, batch).keys() - {"examples"}
        if metric not in names:
            known = ", ".join(sorted(names))
            raise InputError(f"best_metric is {metric!r}, but evaluate_fn gives {known}: name one of them")
