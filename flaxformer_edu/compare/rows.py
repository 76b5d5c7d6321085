"""How far two arrays are from one another: a row of the report."""

import math
from dataclasses import asdict, dataclass

import numpy as np

PARITY = 1e-12  # what is not told from rounding in float64, however little it moves
TOLERANCES = {"float64": PARITY, "float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}  # relative; see Row


@dataclass(frozen=True, kw_only=True)
class Row:
    """How far a parameter, the output of a layer, or a gradient with respect to one of them, is from theirs.

    layer, theirs: its name on either side; the whole model's is "".
    shape, their_shape: where these are not the same, nothing else is compared.
    max_abs: the largest difference; max_rel: the same in units of their largest value, which `tolerance` is for (of
    gradients and of what an optimizer changes: see `gradient_rows`). `rounding` says where it comes from.
    cosine: of the angle between the two, as vectors.
    input_agrees: whether the layer was given the same on both sides; None where that cannot be said.
    float64: max_rel between float64 runs of both sides, which `float64_tolerance` is for; None where there are none.
    our_error, their_error: how far either side is from its own float64 run, as rms(difference) / rms(float64).
    """

    layer: str
    theirs: str
    shape: tuple[int, ...]
    their_shape: tuple[int, ...]
    max_abs: float
    max_rel: float
    cosine: float
    tolerance: float
    input_agrees: bool | None = None
    float64: float | None = None
    float64_tolerance: float | None = None
    our_error: float | None = None
    their_error: float | None = None

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance, and in float64 within that for float64."""
        return self.max_rel <= self.tolerance and self.agrees_in_float64 is not False

    @property
    def agrees_in_float64(self) -> bool | None:
        """Whether the float64 runs agree; None where there are none."""
        if self.float64 is None or self.float64_tolerance is None:
            return None
        return self.float64 <= self.float64_tolerance

    def as_json(self) -> dict[str, object]:
        """What JSON can hold of it: numbers that are not finite become null."""
        content = {**asdict(self), "agrees": self.agrees}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in content.items()}


def tolerance_of(*arrays: np.ndarray) -> float:
    """That of the narrowest of their types."""
    return max(TOLERANCES[x.dtype.name] for x in arrays)


def measure(
    ours: np.ndarray,
    theirs: np.ndarray,
    names: tuple[str, str],
    tolerance: float | None,
    input_agrees: bool | None = None,
    *,
    unit: float = 0.0,
) -> Row:
    """The row of two arrays; without a tolerance, that of the narrower of their types.

    The largest difference is relative to their largest value, or to `unit` where that is larger.
    """
    same = ours.shape == theirs.shape
    largest, relative = distance(ours, theirs, unit) if same else (math.inf, math.inf)
    return Row(
        layer=names[0],
        theirs=names[1],
        shape=ours.shape,
        their_shape=theirs.shape,
        max_abs=largest,
        max_rel=relative,
        cosine=_cosine(ours, theirs) if math.isfinite(largest) else math.nan,
        tolerance=tolerance_of(ours, theirs) if tolerance is None else tolerance,
        input_agrees=input_agrees,
    )


def distance(ours: np.ndarray, theirs: np.ndarray, unit: float = 0.0) -> tuple[float, float]:
    """The largest difference, and the same in units of their largest value, or of `unit` where that is larger.

    Infinite where either has a value that is not finite.
    """
    if ours.size == 0:
        return 0.0, 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        largest = _largest(np.asarray(_wide(ours) - _wide(theirs)))  # of two numbers NumPy makes no array
    scale = max(_largest(_wide(theirs)), unit)
    return (largest, largest / (scale or 1.0)) if math.isfinite(largest) else (math.inf, math.inf)


def _largest(x: np.ndarray) -> float:
    return float(max(x.max(), -x.min()))


def _wide(x: np.ndarray) -> np.ndarray:
    """The same in float32 at least."""
    return x.astype(np.promote_types(x.dtype, np.float32), copy=False)


def _cosine(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Of the angle between two vectors: 1 where both are zero, 0 where one is."""
    a, b = _wide(ours).ravel(), _wide(theirs).ravel()
    lengths = math.sqrt(_product(a, a)) * math.sqrt(_product(b, b))
    return _product(a, b) / lengths if lengths else float(not (a.any() or b.any()))


def _product(a: np.ndarray, b: np.ndarray) -> float:
    """In float64, and not by BLAS, whose threads take longer to start than such a sum lasts."""
    return float(np.einsum("i,i->", a, b, dtype=np.float64))
