"""The rows of gradients, and of what an optimizer makes of them.

What counts as a difference is relative to a unit that is larger than some gradients themselves. A key's bias changes no
softmax: its gradient is zero in exact arithmetic, and what both frameworks compute is rounding. A parameter's unit is
therefore the largest gradient of a parameter in the module that holds its layer (for an attention's key: in the
attention); that of a layer's output is its own largest value. Below what rounding leaves of the largest gradient of
all, nothing can be seen: where that is more, it is the unit.
"""

from collections.abc import Iterable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from flaxformer_edu.compare.pairing import Pair
from flaxformer_edu.compare.rows import Row, measure, tolerance_of
from flaxformer_edu.compare.sides.records import Gradients, is_within

ROUNDINGS = 16  # of the largest gradient of all that may come together


def gradient_rows(pair: Pair, ours: Gradients, theirs: Gradients) -> tuple[Row, ...]:
    """A row for each linked layer's output and each parameter, in the order of the backward pass.

    A parameter comes after the output of its layer; if that has no row, after all of the module that holds it.
    """
    arrays = [*_arrays(ours), *_arrays(theirs)]
    noise = _noise(ROUNDINGS, arrays, pair.tolerance, arrays)
    backwards = dict(reversed(ours.outputs.items()))
    outputs = pair.rows(backwards, theirs.outputs, unit=noise)
    largest = {name: max(_largest(x), _largest(ours.parameters[name])) for name, x in theirs.parameters.items()}
    units = {name: max(noise, unit) for name, unit in _largest_around(largest).items()}
    both = {name: (x, theirs.parameters[name]) for name, x in ours.parameters.items() if name in theirs.parameters}
    parameters = [measure(*xs, (name, name), pair.tolerance, unit=units[name]) for name, xs in both.items()]
    return tuple(_merged(outputs, parameters))


def stepped_rows(
    ours: Mapping[str, np.ndarray],
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    tolerance: float | None,
) -> tuple[Row, ...]:
    """A row for each parameter after a step; the unit is the largest change in it, or what rounding leaves of it."""

    def row(name: str, x: np.ndarray) -> Row:
        unit = max(_largest(x - before[name]), _noise(2, [x], tolerance, [ours[name], x]))  # both sides round once
        return measure(ours[name], x, (name, name), tolerance, unit=unit)

    return tuple(row(name, x) for name, x in after.items())


def _arrays(gradients: Gradients) -> list[np.ndarray]:
    return [*gradients.parameters.values(), *(call.output for call in gradients.outputs.values())]


def _noise(roundings: int, values: Sequence[np.ndarray], tolerance: float | None, types: Sequence[np.ndarray]) -> float:
    """The unit in which the tolerance is some roundings of the largest of the values."""
    kinds = {x.dtype: x for x in types}.values()
    epsilon = max(float(jnp.finfo(x.dtype).eps) for x in kinds)
    return roundings * epsilon * max(map(_largest, values), default=0.0) / (tolerance or tolerance_of(*kinds))


def _largest(x: np.ndarray) -> float:
    return float(np.abs(x, where=np.isfinite(x), out=np.zeros_like(x)).max(initial=0))


def _largest_around(largest: Mapping[str, float]) -> dict[str, float]:
    """For each parameter, the largest gradient of those in the module that holds its layer, given that of each."""
    holders = {name: ".".join(name.split(".")[:-2]) for name in largest}
    units = {h: max(x for name, x in largest.items() if is_within(name, h)) for h in set(holders.values())}
    return {name: units[holder] for name, holder in holders.items()}


def _merged(outputs: Sequence[Row], parameters: Iterable[Row]) -> list[Row]:
    """Each parameter after the last of the outputs in the innermost module with an output that holds it."""
    behind: dict[int, list[Row]] = {}
    for row in parameters:
        holders = [output.layer for output in outputs if is_within(row.layer, output.layer)]
        innermost = max(holders, key=len, default="")
        place = max((i for i, output in enumerate(outputs) if is_within(output.layer, innermost)), default=-1)
        behind.setdefault(place, []).append(row)
    rows = behind.pop(-1, [])
    for i, output in enumerate(outputs):
        rows += [output, *behind.get(i, [])]
    return rows
