"""Each row's tolerance from how far rounding moves it, and its verdict in float64."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from flaxformer_edu.compare.pairing import Pair
from flaxformer_edu.compare.referee import Referee, Types
from flaxformer_edu.compare.rounding import Rounding, between, float64_tolerance, tolerance, unit_of
from flaxformer_edu.compare.rows import Row
from flaxformer_edu.compare.sides.records import Recording

Aligned = Mapping[str, tuple[np.ndarray, np.ndarray]]  # the outputs of both sides, by our layer's path


def judged_rows(
    pair: Pair, ours: Recording, theirs: Recording, types: Types, judge: Referee | Rounding
) -> tuple[Row, ...]:
    """The rows of two recordings.

    Rounding is what either side differs by from its own float64 run, or, without a referee, what a moved run of ours
    says.
    """
    aligned = {path: pair.aligned(path, ours, theirs) for path in ours if path in pair.link_of}
    errors = _errors(aligned, judge) if isinstance(judge, Referee) else (judge, judge)
    moved = {path: _relative(_of_one_side(path, errors, types), their) for path, (_, their) in aligned.items()}
    tolerances = {path: tolerance(x, types.unit) for path, x in moved.items()}
    rows = replace(pair, tolerances=tolerances).rows(ours, theirs)
    if not isinstance(judge, Referee):
        return rows
    exact = judge.rows({path: float64_tolerance(x, types.unit) for path, x in moved.items()})
    return tuple(with_float64(row, exact[row.layer], errors) if row.layer in exact else row for row in rows)


def judged_gradients(
    rows: tuple[Row, ...], moved: Rounding, types: Types, exact: Mapping[str, Row]
) -> tuple[Row, ...]:
    """The rows of gradients, with what rounding moves ours by, and the rows of the float64 runs."""
    judged = []
    for row in rows:
        scale = row.max_abs / row.max_rel if row.max_rel else 0.0
        relative = _over(moved.largest.get(row.layer, 0.0), scale)
        row = replace(row, tolerance=tolerance(relative, types.unit))
        if row.layer in exact:
            wide = replace(exact[row.layer], tolerance=float64_tolerance(relative, types.unit))
            row = with_float64(row, wide)
        judged.append(row)
    return tuple(judged)


def with_float64(row: Row, exact: Row, errors: tuple[Rounding, Rounding] | None = None) -> Row:
    """A row with the verdict of the float64 runs; where it differs in them alone, they say whether its input agrees."""
    input_agrees = exact.input_agrees if row.max_rel <= row.tolerance else row.input_agrees
    ours, theirs = (None, None) if errors is None else (error.rms.get(row.layer) for error in errors)
    return replace(
        row,
        float64=exact.max_rel,
        float64_tolerance=exact.tolerance,
        input_agrees=input_agrees,
        our_error=ours,
        their_error=theirs,
    )


def _errors(aligned: Aligned, referee: Referee) -> tuple[Rounding, Rounding]:
    """How far each side is from its own float64 run; where theirs has none, ours stands for both."""
    ours, theirs = ({path: pair[side] for path, pair in aligned.items()} for side in (0, 1))
    if referee.theirs is None:
        exact = {path: _as(ours[path], referee.ours[path].output) for path in ours if path in referee.ours}
        rounding = between(ours, exact)
        return rounding, rounding
    wide = {path: referee.pair.aligned(path, referee.ours, referee.theirs) for path in aligned}
    exact_ours, exact_theirs = ({path: pair[side] for path, pair in wide.items()} for side in (0, 1))
    return between(ours, exact_ours), between(theirs, exact_theirs)


def _as(rounded: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The class token alone, where that is what was compared."""
    return exact[:, 0] if rounded.ndim < exact.ndim else exact


def _of_one_side(path: str, errors: tuple[Rounding, Rounding], types: Types) -> float:
    """How far rounding moves a layer: that of the narrower side, or, of the same type, of the nearer one.

    So a side that rounds more than its type does, as products in TF32, excuses nothing.
    """
    ours, theirs = (error.largest.get(path, 0.0) for error in errors)
    our_unit, their_unit = unit_of(types.ours), unit_of(types.theirs)
    return min(ours, theirs) if our_unit == their_unit else ours if our_unit > their_unit else theirs


def _relative(moved: float, values: np.ndarray) -> float:
    wide = values.astype(np.float64)
    return _over(moved, float(np.abs(wide).max(initial=0, where=np.isfinite(wide))))


def _over(moved: float, scale: float) -> float:
    """What is not finite is not rounding."""
    return moved / scale if scale and np.isfinite(moved) else 0.0
