"""Learned positions for images of another size: libraries resample them in different ways."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, permutations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Float

from flaxformer_edu.compare.causes.trial import Case, Trial
from flaxformer_edu.compare.rows import TOLERANCES
from flaxformer_edu.convert.rules import Match, Shapes
from flaxformer_edu.data.resampling import Grid, Matrix, along_both, matrix, resample
from flaxformer_edu.layers import LearnedPositions

Table = Float[np.ndarray, "length width"]
ROUNDED = TOLERANCES["float32"]  # timm resamples in it, whatever the model computes in
FEATURES = 16  # as many tell one resampling from another
ZERO = 1e-3  # of what two unrelated grids would give: within the rounding of float32
DESCRIPTIONS = {
    "antialiased": "bicubic, antialiased (timm)",
    "plain": "bicubic, not antialiased (transformers)",
    "corners": "bicubic, corners kept (torchvision)",
    "linear": "linear, corners kept (Google)",
    "linear, corners moved": "linear, not antialiased",
}


def bicubic_convention(case: Case) -> Iterator[Trial]:
    """Positions resampled in another way, by theirs when it is called, or before it was built."""
    for path, layer in case.find(LearnedPositions).items():
        ours, theirs = np.asarray(layer.embedding[...]), case.parameters[f"{path}.embedding"]
        if ours.shape == theirs.shape:
            readings = list(islice(_two_ways(theirs, ours), 2))
            tables = {reading + ", for one" * (len(readings) > 1): theirs for reading in readings[:1]}
        else:
            tables = _resampled(theirs, len(ours))
        for explanation, table in tables.items():
            embedding = jnp.asarray(table, ours.dtype)
            change = partial(_set_embedding, embedding)
            for trial in replace(case, scope=path).trial(explanation, LearnedPositions, change):
                yield replace(trial, slack=ROUNDED)


def _set_embedding(value: Any, layer: LearnedPositions) -> None:
    layer.embedding[...] = value


def _two_ways(theirs: Table, ours: Table) -> Iterator[str]:
    """How two tables of one size can have come from one of another, where they differ for the patches alone."""
    prefix = _prefix(len(ours), len(theirs))
    if prefix is None or not np.allclose(theirs[:prefix], ours[:prefix], rtol=ROUNDED):
        return
    grids = _grid(theirs, prefix), _grid(ours, prefix)
    side = len(grids[0])
    for source in range(2, 2 * side - 1):  # of larger ones, too little is left to compare
        for first, second in permutations(DESCRIPTIONS, 2) if source != side else ():
            if same_source(*grids, matrix(first, source, side), matrix(second, source, side)):
                ways = f"{DESCRIPTIONS[first]}; ours: {DESCRIPTIONS[second]}"
                yield f"their positions come of {source} x {source} patches: {ways}"


def same_source(first: Grid, second: Grid, to_first: Matrix, to_second: Matrix) -> bool:
    """Whether some grid gives `first` by the one matrix and `second` by the other.

    It need not be known: where U W1 = V W2, U (W1 grid W1^T) U^T is V (W2 grid W2^T) V^T. U and V have as many rows as
    twice the side of what is given exceeds the side of that grid: of a larger one, nothing can be said.
    """
    left, sizes, _ = np.linalg.svd(np.concatenate([to_first, -to_second]))
    free = left[:, np.count_nonzero(sizes > 1e-9 * sizes[0]) :].T
    u, v = np.split(free, 2, axis=1)
    apart = first[..., :FEATURES].astype(np.float64) - second[..., :FEATURES]
    both = [along_both(x, grid[..., :FEATURES]) for x, grid in ((u, first), (v, second))]
    expected = np.linalg.norm(apart) * np.linalg.norm(u) ** 2 / len(first)
    return bool(np.linalg.norm(both[0] - both[1]) <= ZERO * expected)


def _resampled(theirs: Table, length: int) -> dict[str, Table]:
    """Their table at our length, in each of the ways."""
    prefix = _prefix(length, len(theirs))
    if prefix is None:
        return {}
    grid, side = _grid(theirs, prefix), round((length - prefix) ** 0.5)
    tables = {}
    for convention, description in DESCRIPTIONS.items():
        patches = rearrange(resample(grid, side, convention), "row column width -> (row column) width")
        explanation = f"they resample their positions of {len(grid)} x {len(grid)} patches when called: {description}"
        tables[explanation] = np.concatenate([theirs[:prefix], patches])
    return tables


def _prefix(*lengths: int) -> int | None:
    """How many tokens stand in front of the patches, if these are squares then: none, a class token, a second one."""
    return next((n for n in (0, 1, 2) if all(x > n and round((x - n) ** 0.5) ** 2 == x - n for x in lengths)), None)


def _grid(table: Table, prefix: int) -> Grid:
    return rearrange(table[prefix:], "(row column) width -> row column width", row=round((len(table) - prefix) ** 0.5))


def with_their_positions(shapes: Shapes, matches: Sequence[Match], weights: Mapping[str, np.ndarray]) -> Shapes:
    """The shapes that our parameters would have with positions for images of their size."""
    changed = dict(shapes)
    for each in matches:
        name, given = each.ours[0], weights.get(each.torch[0])
        if not name.endswith("positions.embedding") or given is None or given.ndim < 2:
            continue
        length, width = given.shape[-2:]
        if width == shapes[name].shape[1] and _prefix(length, shapes[name].shape[0]) is not None:
            changed[name] = jax.ShapeDtypeStruct((length, width), shapes[name].dtype)
    return changed


def at_our_size(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Their parameters with positions for images of another size resampled, in the way that comes nearest to ours."""
    fitted = dict(theirs)
    for name, table in theirs.items():
        if name in ours and ours[name].shape != table.shape and (tables := _resampled(table, len(ours[name]))):
            fitted[name] = min(tables.values(), key=lambda x: float(np.abs(x - ours[name]).max()))
    return fitted
