"""Two models whose layers are linked: run them, and compare what they recorded."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import nnx

from flaxformer_edu.compare.links import Link, nearest
from flaxformer_edu.compare.rows import Row, distance, measure, tolerance_of
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
        links = {path: link for link in self.links for path in link.ours}
        wanted = [path for path in ours if path in links and (only is None or path in only)]
        return tuple(self._row(path, links[path], ours, theirs, where_finite, unit) for path in wanted)

    def _row(self, path: str, link: Link, ours: Recording, theirs: Recording, where_finite: bool, unit: float) -> Row:
        outputs = {name: theirs[name].output for name in link.theirs}
        our, their = ours[path].output, link.to_ours(outputs)[path]
        aligned = nearest(their, our)
        if aligned is None and our.ndim == 3 and their.shape == our[:, 0].shape:
            our, aligned = our[:, 0], their  # theirs went on with the class token alone
        if aligned is not None and where_finite:
            finite = np.isfinite(aligned)
            our, aligned = our[finite], aligned[finite]
        row_names = (path, ", ".join(link.theirs))
        given = self._input_agrees(ours[path].input, theirs[link.theirs[0]].input)
        return measure(our, their if aligned is None else aligned, row_names, self.tolerance, given, unit=unit)

    def _input_agrees(self, ours: np.ndarray | None, theirs: np.ndarray | None) -> bool | None:
        if ours is None or theirs is None:
            return None
        aligned = nearest(theirs, ours)
        if aligned is None:
            return None
        tolerance = tolerance_of(ours, aligned) if self.tolerance is None else self.tolerance
        return distance(ours, aligned)[1] <= tolerance


def parameter_rows(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], tolerance: float | None
) -> tuple[Row, ...]:
    """A row for each of our parameters."""
    return tuple(measure(ours[name], theirs[name], (name, name), tolerance) for name in ours)
