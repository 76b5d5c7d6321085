"""How far rounding moves each layer of one of our models, and the tolerances that follow from that.

Two sides that compute the same round differently: their sums have other orders. Each is then about as far from what
float64 gives as the other, so a layer's tolerance is some times the distance of one side; where there is no float64
run, that of a run whose inputs and parameters are one unit of rounding off.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from flaxformer_edu.compare.pairing import Pair
from flaxformer_edu.compare.rows import PARITY, distance
from flaxformer_edu.compare.sides import our_float64
from flaxformer_edu.compare.sides.our_gradients import gradients
from flaxformer_edu.compare.sides.ours import float_type, record
from flaxformer_edu.compare.sides.records import Gradients, Loss, Recording

MARGIN = 16  # times as far as rounding moves one side, the two may be from one another
LEAST = 2  # units of rounding of the largest value: each side rounds at least its result


@dataclass(frozen=True)
class Rounding:
    """Of some arrays by name: the largest difference that rounding made, and rms(difference) / rms(of the exact)."""

    largest: Mapping[str, float]
    rms: Mapping[str, float]


def between(rounded: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray]) -> Rounding:
    """What rounding made of the exact arrays."""
    pairs = {name: (x, exact[name]) for name, x in rounded.items() if name in exact and x.shape == exact[name].shape}
    largest = {name: distance(*xs)[0] for name, xs in pairs.items()}
    return Rounding(largest, {name: _relative_rms(*xs) for name, xs in pairs.items()})


def _relative_rms(rounded: np.ndarray, exact: np.ndarray) -> float:
    wide = exact.astype(np.float64)
    finite = np.isfinite(rounded) & np.isfinite(wide)  # a mask's infinities are no rounding
    rounded, wide = rounded[finite], wide[finite]
    off, size = (math.sqrt(float(np.mean(np.square(x)))) if x.size else 0.0 for x in (rounded - wide, wide))
    return off / size if size else off


def moved_run(pair: Pair, ours: Recording) -> Rounding:
    """From a run of ours whose inputs and parameters are one unit of rounding off."""
    return between(outputs(ours), outputs(record(our_float64.moved(pair.ours), _moved_inputs(pair))))


def moved_gradients(pair: Pair, calls: Recording, ours: Gradients, loss: Loss | None) -> Rounding:
    """The same of its gradients."""
    moved = gradients(our_float64.moved(pair.ours), _moved_inputs(pair), calls, loss)
    return between(of_gradients(ours), of_gradients(moved))


def _moved_inputs(pair: Pair) -> list[np.ndarray]:
    random, dtype = np.random.default_rng(1), float_type(pair.ours)
    arrays = [np.asarray(x) for x in pair.inputs]
    return [our_float64.one_unit_off(x.astype(dtype), random) if _is_floating(x) else x for x in arrays]


def outputs(calls: Recording) -> dict[str, np.ndarray]:
    """Each layer's output."""
    return {path: call.output for path, call in calls.items()}


def of_gradients(found: Gradients) -> dict[str, np.ndarray]:
    """All of them by name; none of a parameter's is that of a layer."""
    return {**outputs(found.outputs), **found.parameters}


def tolerance(moved: float, unit: float) -> float:
    """That of a layer which rounding moves by so much of its largest value, `unit` being the type's rounding."""
    return max(MARGIN * moved, LEAST * unit, PARITY)


def float64_tolerance(moved: float, unit: float) -> float:
    """The same in float64, where rounding of the given `unit` moves the layer by so much of its largest value."""
    return max(PARITY, MARGIN * moved * unit_of(np.dtype(np.float64)) / unit)


def unit_of(dtype: np.dtype) -> float:
    """The distance from one to the next number of a type."""
    return float(jnp.finfo(dtype).eps)


def _is_floating(x: np.ndarray) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)
