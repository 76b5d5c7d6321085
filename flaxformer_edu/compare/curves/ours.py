"""Our side of training side by side: one compiled step, given the batches and the dropout masks of a recorded curve."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array

from flaxformer_edu.compare.curves.curve import Draw, TrainingCurve, digest
from flaxformer_edu.compare.sides.ours import float_type
from flaxformer_edu.convert import load_weights, to_torch
from flaxformer_edu.convert.layouts import detect_layout, find_layout
from flaxformer_edu.convert.rules import Layout
from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import RecordedMasks
from flaxformer_edu.layers.masks import Mask
from flaxformer_edu.training import make_step, new_state, split_model

Batches = Callable[[int], Mapping[str, Any]]
Loss = Callable[[Any, Any, Any], Any]
Asked = tuple[tuple[int, ...], float]  # the shape of a mask, and the probability of True


def follow(
    model: nnx.Module,
    curve: TrainingCurve,
    batches: Batches,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    steps: int,
) -> list[float]:
    """Train the model as the curve was trained, and return the loss of each step.

    Raises InputError where a batch is not the recorded one, or the model's dropout differs from theirs.
    """
    graphdef, params = split_model(model)
    dtype = float_type(model)

    def replayed(model: Any, given: Mapping[str, Any], rngs: nnx.Rngs) -> tuple[Array, dict[str, Array]]:
        result = loss(model, given["batch"], RecordedMasks(given["masks"]))
        return result[0] if isinstance(result, tuple) else result, {}

    asked = asked_masks(
        lambda batch, source: loss(nnx.merge(graphdef, params), batch, source), _batch(batches, curve, 0, dtype)
    )
    check_masks(curve.draws, asked)
    step = jax.jit(make_step(graphdef, with_exact_scalars(optimizer), replayed), donate_argnums=0)
    state, losses = new_state(params, optimizer), []
    for index, masks in zip(range(steps), curve.masks(), strict=False):
        given = {"batch": _batch(batches, curve, index, dtype), "masks": arranged(masks, asked)}
        state, metrics = step(state, given)
        losses.append(float(metrics["loss"]))
    return losses


def with_exact_scalars(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer, whose scalars (Adam's 1 - beta^step, the learning rate) are float64 on the way, as in PyTorch.

    In float32 1 - 0.999^step is off by 1e-5, a hundred times as much as the rounding of all else. The parameters and
    the optimizer's memory keep their types.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.enable_x64(True):
            updated = optimizer.update(updates, state, params)
        return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), updated, (updates, state))

    return optax.GradientTransformation(optimizer.init, update)


def with_their_weights(model: nnx.Module, curve: TrainingCurve, layout: str | Layout | None) -> nnx.Module:
    """The model with the curve's initial weights; itself, where the curve has only their digests, which must agree."""
    if curve.weights:
        return load_weights(model, curve.weights, layout=layout)
    layout = detect_layout(curve.weight_digests, model) if layout is None else layout
    layout = find_layout(layout, model, curve.weight_digests) if isinstance(layout, str) else layout
    weights = to_torch(model, layout=layout)
    different = [name for name, x in weights.items() if digest({name: x}) != curve.weight_digests.get(name)]
    if different:
        raise InputError(
            f"{len(different)} of {len(weights)} weights are not those that the curve was recorded with "
            f"({', '.join(different[:3])}, ...): load them (convert.load_weights), or record it with keep_weights"
        )
    return model


def asked_masks(loss: Callable[[Any, Any], Any], batch: Mapping[str, Any]) -> list[Asked]:
    """What our layers ask of a source of masks in one step, in order."""
    source = _Asked()
    jax.eval_shape(lambda batch: loss(batch, source), batch)
    return source.masks


class _Asked:
    """A source of masks that notes what it is asked for."""

    def __init__(self):
        self.masks: list[Asked] = []

    def keep(self, shape: tuple[int, ...], probability: float) -> Mask:
        self.masks.append((shape, probability))
        return np.ones(shape, bool)


def check_masks(draws: Sequence[Draw], asked: Sequence[Asked]) -> None:
    """Raise InputError unless their masks, arranged, are those that our layers ask for."""
    theirs = iter([np.broadcast_to(draw.keep, draw.mask_shape) for draw in draws])
    for index, (shape, probability) in enumerate(asked):
        mask = _next_mask(theirs, shape)
        if mask is None or mask.shape != shape or not np.allclose(mask, probability):
            given = "there are no more" if mask is None else f"it is {mask.shape} and keeps {mask.flat[0]:g}"
            raise InputError(
                f"dropout mask {index} of ours is {shape} and keeps {probability:g}, in theirs {given}: "
                "dropout must stand at the same places on both sides, with the same rates"
            )
    if rest := len(list(theirs)):
        raise InputError(
            f"theirs draws {rest} dropout masks more than the {len(asked)} that ours asks for: dropout must stand at "
            "the same places on both sides (see the rates in our configuration)"
        )


def arranged(masks: Sequence[np.ndarray], asked: Sequence[Asked]) -> tuple[np.ndarray, ...]:
    """Their masks as our layers ask for them."""
    waiting = iter(masks)
    return tuple(_next_mask(waiting, shape) for shape, _ in asked)


def _next_mask(masks: Iterator[np.ndarray], shape: tuple[int, ...]) -> Any:
    """The next mask, with the batch first; of heads that are modules of their own, those of all, side by side."""
    mask = next(masks, None)
    if mask is None or mask.shape == shape:
        return mask
    if mask.shape == (*shape[:1], *shape[2:]):
        heads = [mask, *islice(masks, shape[1] - 1)]
        return np.stack([head for head in heads if head.shape == mask.shape], axis=1)
    batch_first = mask.swapaxes(0, 1) if mask.ndim > 1 else mask
    return batch_first if batch_first.shape == shape else mask


def _batch(batches: Batches, curve: TrainingCurve, step: int, dtype: np.dtype) -> dict[str, np.ndarray]:
    """The batch of a step, which must be theirs, its floating-point numbers as `dtype`."""
    batch = {name: np.asarray(x) for name, x in batches(step).items()}
    if digest(batch) != curve.batch_digests[step]:
        raise InputError(
            f"the batch of step {step} is not the one that the curve was recorded with: batches(step) must give the "
            "same arrays whenever it is called"
        )
    return {name: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x for name, x in batch.items()}
