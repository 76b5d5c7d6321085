"""Two models whose layers are linked: run them, and compare what they recorded."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxformer_edu.compare.causes.positions import at_our_size
from flaxformer_edu.compare.links import Link, nearest
from flaxformer_edu.compare.rows import PARITY, Row, distance, measure, tolerance_of
from flaxformer_edu.compare.sides.ours import Edits, record
from flaxformer_edu.compare.sides.recorded import Recorded
from flaxformer_edu.compare.sides.records import Recording


@dataclass(frozen=True)
class Pair:
    """Our model and theirs, each with its inputs, and which layers of the two correspond.

    Theirs is a model of PyTorch, another one of ours, or a recorded run of either.
    """

    ours: nnx.Module
    theirs: Any
    inputs: Sequence[Any]
    their_inputs: Sequence[Any]
    links: Sequence[Link] = ()
    tolerance: float | None = None
    tolerances: Mapping[str, float] = field(default_factory=dict[str, float])  # of some of our layers, by path

    def record_ours(
        self, model: nnx.Module | None = None, edits: Edits | None = None, *, until: str | None = None
    ) -> Recording:
        """What our model computes, or a changed copy of it, up to the layer `until`."""
        return record(self.ours if model is None else model, self.inputs, edits, until=until)

    def record_theirs(self, *, evaluation: bool = False) -> Recording:
        """What theirs computes as it stands, or in evaluation; a recorded run stays what it is."""
        if isinstance(self.theirs, Recorded):
            return self.theirs.calls
        if isinstance(self.theirs, nnx.Module):
            return record(self.theirs, self.their_inputs)
        from flaxformer_edu.compare.sides import theirs

        with theirs.evaluation(self.theirs) if evaluation else nullcontext():
            return theirs.record_torch(self.theirs, self.their_inputs)

    def rows(
        self,
        ours: Recording,
        theirs: Recording,
        *,
        only: Sequence[str] | None = None,
        where_finite: bool = False,
        unit: float = 0.0,
    ) -> tuple[Row, ...]:
        """A row for each linked layer, or for some, in the order of ours.

        `where_finite` leaves out what is no number in theirs; `unit` is what `measure` takes.
        """
        wanted = [path for path in ours if path in self.link_of and (only is None or path in only)]
        return tuple(self.row(path, ours, theirs, where_finite=where_finite, unit=unit) for path in wanted)

    @cached_property
    def link_of(self) -> Mapping[str, Link]:
        """The link of each of our layers that has one, by path."""
        return {path: link for link in self.links for path in link.ours}

    def row(
        self, path: str, ours: Recording, theirs: Recording, *, where_finite: bool = False, unit: float = 0.0
    ) -> Row:
        """That of one linked layer."""
        our, their = self.aligned(path, ours, theirs)
        if our.shape == their.shape and where_finite:
            finite = np.isfinite(their)
            our, their = our[finite], their[finite]
        link, tolerance = self.link_of[path], self.tolerances.get(path, self.tolerance)
        given = _agree(ours[path].input, theirs[link.theirs[0]].input, tolerance)
        return measure(our, their, (path, ", ".join(link.theirs)), tolerance, given, unit=unit)

    def aligned(self, path: str, ours: Recording, theirs: Recording) -> tuple[np.ndarray, np.ndarray]:
        """The outputs of a linked layer, theirs with its axes as ours stand; if it can be, the shapes are the same."""
        link = self.link_of[path]
        outputs = {name: theirs[name].output for name in link.theirs}
        our, their = ours[path].output, link.to_ours(outputs)[path]
        found = nearest(their, our)
        if found is None and our.ndim == 3 and their.shape == our[:, 0].shape:
            return our[:, 0], their  # theirs went on with the class token alone
        return our, their if found is None else found


def _agree(ours: np.ndarray | None, theirs: np.ndarray | None, tolerance: float | None) -> bool | None:
    """Whether two inputs of a layer do; None where that cannot be said."""
    if ours is None or theirs is None:
        return None
    aligned = nearest(theirs, ours)
    if aligned is None:
        return None
    tolerance = tolerance_of(ours, aligned) if tolerance is None else tolerance
    return distance(ours, aligned)[1] <= tolerance


def parameter_rows(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], tolerance: float | None
) -> tuple[Row, ...]:
    """A row for each of our parameters, in which the same type must hold the same numbers, another the nearest ones.

    `theirs` may have positions for images of another size, which have been resampled: those are off by more.
    """
    fitted = at_our_size(ours, theirs)

    def row(name: str) -> Row:
        arrays = ours[name], fitted[name]
        exact = fitted[name] is theirs[name] and tolerance is None
        return measure(*arrays, (name, name), max(PARITY, *map(_unit, arrays)) if exact else tolerance)

    return tuple(row(name) for name in ours)


def _unit(x: np.ndarray) -> float:
    return float(jnp.finfo(x.dtype).eps) if jnp.issubdtype(x.dtype, jnp.floating) else 0.0
