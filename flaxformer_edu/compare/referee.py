"""The referee: both models in float64, with the same numbers, where a fault cannot hide in rounding.

A correct port agrees there to 1e-12. What is left is told apart from a fault: constants that theirs rounded when it was
made, as tables of positions, and parts that it computes in a narrower type on purpose.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxformer_edu.compare.links import nearest
from flaxformer_edu.compare.pairing import Pair
from flaxformer_edu.compare.rounding import unit_of
from flaxformer_edu.compare.rows import PARITY, Row, distance
from flaxformer_edu.compare.sides import our_float64
from flaxformer_edu.compare.sides.our_gradients import gradients
from flaxformer_edu.compare.sides.ours import Arguments, float_type, record, run
from flaxformer_edu.compare.sides.recorded import Recorded
from flaxformer_edu.compare.sides.records import BackwardRequest, Call, Gradients, Recording
from flaxformer_edu.errors import InputError

EXCUSED = 4  # times as far as a unit of rounding in their constants moves a layer, it may be off
FLOAT64 = np.dtype(np.float64)


@dataclass(frozen=True)
class Types:
    """What either side computes in, and the narrower of the types that their parameters are held in."""

    ours: np.dtype
    theirs: np.dtype
    held: np.dtype

    @classmethod
    def of(cls, ours: nnx.Module, theirs: Recorded) -> "Types":
        """Of our model, and of a run of theirs."""
        kinds = [x.dtype for x in theirs.parameters.values() if jnp.issubdtype(x.dtype, jnp.floating)]
        their_type = kinds[0] if kinds else np.dtype(np.float32)
        held = max(float_type(ours), their_type, key=unit_of)
        return cls(our_float64.compute_type(ours), their_type, held)

    @property
    def rounds(self) -> bool:
        """Whether either side is narrower than float64."""
        return self.unit > unit_of(FLOAT64)

    @property
    def unit(self) -> float:
        """The rounding of the narrower side."""
        return max(unit_of(self.ours), unit_of(self.theirs))


@dataclass(frozen=True)
class Referee:
    """Both models in float64, what they compute there, and which of their tensors ours was given."""

    pair: Pair
    ours: Recording
    theirs: Recording | None
    shared: Collection[str]
    held: np.dtype
    reason: str = ""  # why theirs has not been run

    def rows(self, tolerances: Mapping[str, float]) -> dict[str, Row]:
        """The rows of the linked layers by path; none without theirs.

        Where more is off than rounding in float64 leaves, what their constants' rounding explains is mended on the
        way: so each layer is judged by itself.
        """
        if self.theirs is None:
            return {}
        pair = replace(self.pair, tolerances=tolerances)
        rows = {row.layer: row for row in pair.rows(self.ours, self.theirs)}
        if all(row.agrees for row in rows.values()) or not self.excuses_anything:
            return rows
        return self._mended_rows(pair)

    @property
    def excuses_anything(self) -> bool:
        """Whether they have constants whose rounding shows."""
        return any(map(any, self.excuses.values()))

    def finds(self, row: Row) -> bool:
        """Whether a row's cause is to be looked for in float64.

        Their constants are not mended while causes are tried: what shows without float64 is looked for there, then.
        """
        hidden = row.max_rel <= row.tolerance
        return row.agrees_in_float64 is False and (hidden or not self.excuses_anything)

    def their_gradients(self, request: BackwardRequest) -> Gradients:
        """Those of theirs."""
        if isinstance(self.pair.theirs, nnx.Module):
            return gradients(self.pair.theirs, self.pair.their_inputs, self.theirs or {}, request.loss)
        from flaxformer_edu.compare.sides.their_gradients import record_backward

        return record_backward(self.pair.theirs, self.pair.their_inputs, BackwardRequest(request.loss))[1]

    @cached_property
    def excuses(self) -> Mapping[str, tuple[float, float]]:
        """How far the rounding of their constants moves what each of their modules is given, and what it gives."""
        if self.theirs is None or isinstance(self.pair.theirs, nnx.Module):
            return {}
        from flaxformer_edu.compare.sides.their_float64 import moved_by_constants

        linked = {name: self.theirs[name] for link in self.pair.links for name in link.theirs}
        return moved_by_constants(self.pair.theirs, self.pair.their_inputs, linked, self.shared, self.held.name)

    def _mended_rows(self, pair: Pair) -> dict[str, Row]:
        """Ours again, each layer judged, then given theirs to go on with."""
        theirs, rows = self.theirs or {}, dict[str, Row]()

        def excuse(path: str, part: int) -> float:
            return EXCUSED * max(self.excuses.get(name, (0.0, 0.0))[part] for name in pair.link_of[path].theirs)

        def enter(path: str) -> Any:
            def edit(arguments: Arguments) -> None:
                wanted = theirs[pair.link_of[path].theirs[0]].input
                if path not in rows and wanted is not None:
                    _hand_in(arguments, wanted, excuse(path, 0))

            return edit

        def see(path: str, arguments: Arguments, result: Any) -> Any:
            leaves, structure = jax.tree.flatten(result)
            first = next((i for i, leaf in enumerate(leaves) if _is_floating(leaf)), None)
            if path not in pair.link_of or path in rows or first is None:
                return result
            given = next((x for x in arguments.args[1:] if _is_floating(x)), None)
            calls = {path: Call(np.asarray(leaves[first]), None if given is None else np.asarray(given))}
            row, their = pair.row(path, calls, theirs), pair.aligned(path, calls, theirs)[1]
            slack = excuse(path, 1) / max(float(np.abs(their).max(initial=0)), 1e-300)
            rows[path] = replace(row, tolerance=row.tolerance + slack)
            if leaves[first].shape == their.shape:
                leaves[first] = jnp.asarray(their)
            return jax.tree.unflatten(structure, leaves)

        run(pair.ours, pair.inputs, see, {path: enter(path) for path in pair.link_of})
        return rows


def _hand_in(arguments: Arguments, theirs: np.ndarray, excuse: float) -> None:
    """Give a layer their input, where ours differs from it by no more than is excused."""
    for name, value in list(arguments.arguments.items())[1:]:
        if _is_floating(value):
            ours = np.asarray(value)
            wanted = nearest(theirs, ours)
            if wanted is not None and distance(ours, wanted)[0] <= excuse:
                arguments.arguments[name] = jnp.asarray(wanted)
            return


@contextmanager
def in_float64(pair: Pair, theirs: Recorded, shared: Collection[str]) -> Iterator[Referee]:
    """Both sides in float64, as long as the context lasts: theirs is changed itself, and changed back."""
    types = Types.of(pair.ours, theirs)
    with ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        ours = our_float64.in_float64(pair.ours, types.held)
        inputs = [_rounded(x, types.held) for x in pair.inputs]
        wide = replace(pair, ours=ours, inputs=inputs, tolerance=PARITY)
        calls = record(ours, inputs)
        found, reason = None, "theirs is a recorded run"
        if not isinstance(pair.theirs, Recorded):
            try:
                wide = replace(wide, **_theirs_in_float64(pair.theirs, pair.their_inputs, types.held, stack))
                found, reason = wide.record_theirs(), ""
            except (InputError, TypeError, RuntimeError) as error:  # a model or a device that has no float64
                reason = str(error)
        yield Referee(wide, calls, found, shared, types.held, reason)


def _theirs_in_float64(theirs: Any, inputs: Any, held: np.dtype, stack: ExitStack) -> dict[str, Any]:
    if isinstance(theirs, nnx.Module):
        return {"theirs": our_float64.in_float64(theirs, held), "their_inputs": [_rounded(x, held) for x in inputs]}
    from flaxformer_edu.compare.sides import their_float64

    stack.enter_context(their_float64.in_float64(theirs, held.name))
    return {"their_inputs": [their_float64.as_float64(x, held.name) for x in inputs]}


def _rounded(x: Any, held: np.dtype) -> np.ndarray:
    array = np.asarray(x)
    return array.astype(held).astype(FLOAT64) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _is_floating(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray) and jnp.issubdtype(x.dtype, jnp.floating)
