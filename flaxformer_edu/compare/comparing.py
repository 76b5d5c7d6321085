"""The comparison of two models, from what the user hands in to the report."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from flax import nnx

from flaxformer_edu.compare import recording
from flaxformer_edu.compare.backward_rows import gradient_rows, stepped_rows
from flaxformer_edu.compare.diagnosis import Doctor
from flaxformer_edu.compare.gradients import Backward, Gradients, gradients, stepped
from flaxformer_edu.compare.links import Link, find_links
from flaxformer_edu.compare.pairing import Pair, parameter_rows
from flaxformer_edu.compare.position_causes import at_our_size, with_their_positions
from flaxformer_edu.compare.recorded import Recorded, as_arguments, leaves, precision, run, their_inputs
from flaxformer_edu.compare.report import Report
from flaxformer_edu.convert.layouts import detect_layout, find_layout
from flaxformer_edu.convert.rules import Layout, Match, check, match, parameter_shapes
from flaxformer_edu.errors import InputError

Array = jax.Array | np.ndarray
ToOurs = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]  # of arrays by their parameters' names


def models(
    ours: nnx.Module,
    theirs: Any,
    inputs: Array | Sequence[Array] | None = None,
    *,
    layout: str | Layout | None = None,
    tolerance: float | None = None,
    torch_inputs: Sequence[Any] | None = None,
    diagnose: bool = True,
    gradients: bool = False,
    loss: tuple[Callable[[Any], Any] | None, Callable[[Any], Any] | None] | None = None,
    step: tuple[Any, Any] | None = None,
) -> Report:
    """Run two models on the same inputs and compare every layer; say where they first differ, and why.

    `theirs` is a torch.nn.Module, whose names `layout` explains as in `convert` (without one, it is seen from the
    names), or another of our models, whose layers have the same paths. It is run as it stands: call its `.eval()`
    unless it is its dropout that is looked for. Ours is run in evaluation. Or it is a run of either that `record` made,
    or the path of its file: that needs no torch, and no `inputs`, which are those of the recorded run.

    `inputs` are the model's arguments, one or several, as ours takes them; images are handed to PyTorch channel first,
    and `torch_inputs` are for a model that takes other arguments altogether. `tolerance` is relative to the largest
    value of each output; by default it is that of its type, 1e-12 in float64 and 1e-5 in float32. Faults that are
    small, such as another epsilon, are sure to be seen only in float64.

    With `diagnose`, the causes in `causes.CAUSES` are tried in turn at the first layer that differs; each costs a run
    of our model. Of a layer that is called more than once, the first call is compared.

    With `gradients`, those of a loss are compared, too, with respect to each layer's output and each parameter. `loss`
    are two functions, of what our model gives and of what theirs gives; by default it is the sum of y + y^3 / 3 over
    the first output y, since a plain sum is constant behind a softmax or a norm. `step` are an optax transformation and
    a function that makes a torch optimiser for a list of parameters (for two of our models: two transformations): both
    take one step along their gradients, so that what differs after it is the optimisers' doing. `loss` and `step` imply
    `gradients`. A recorded run has its side's loss and step: write None for them.

    Raises InputError where either side does not run on the inputs or `layout` does not fit them: ConversionError then
    lists every tensor that is missing, unused or misshapen.
    """
    asked = gradients or loss is not None or step is not None
    backward = [Backward(*both) for both in zip(_pair("loss", loss), _pair("step", step), strict=True)]
    if isinstance(theirs, str | os.PathLike):
        theirs = Recorded.load(theirs)
    arrays = _arguments(theirs, inputs)
    with precision(ours, theirs):
        to_ours, matches = _names(ours, theirs, layout)
        given = torch_inputs
        if given is None:
            given = arrays if isinstance(theirs, nnx.Module) else their_inputs([np.asarray(x) for x in arrays])
        pair = Pair(ours, theirs, arrays, given, tolerance=tolerance)
        calls = pair.record_ours()
        if not isinstance(theirs, Recorded):
            theirs = run(theirs, arrays, torch_inputs, backward[1] if asked else None)
        pair = replace(pair, links=_links(matches, ours, calls, theirs))
        report = _forward(pair, calls, theirs, to_ours(theirs.parameters), diagnose)
        return _backward(report, pair, calls, theirs, to_ours, backward[0]) if asked else report


def _pair(name: str, given: Any) -> Sequence[Any]:
    if given is None:
        return None, None
    if not isinstance(given, list | tuple) or len(given) != 2:
        raise InputError(f"{name} is {given!r:.60}, expected two: ours and theirs")
    return given


def _arguments(theirs: Any, inputs: Any) -> tuple[Any, ...]:
    if isinstance(theirs, Recorded):
        if inputs is not None:
            raise InputError("a recorded run has its own inputs: leave `inputs` out, or record a run on these")
        return theirs.inputs
    if inputs is None:
        raise InputError("no inputs to run the two models on: only a recorded run has its own")
    return as_arguments(inputs)


def _forward(
    pair: Pair, ours: recording.Recording, theirs: Recorded, parameters: Mapping[str, np.ndarray], diagnose: bool
) -> Report:
    """The parameters and the layers; `parameters` are theirs under our names."""
    mine = recording.parameters(pair.ours)
    rows = parameter_rows(mine, at_our_size(mine, parameters), pair.tolerance)
    report = Report(parameters=rows, layers=pair.rows(ours, theirs.calls))
    if report.first_divergence is None or not diagnose:
        return report
    diagnosis, tried = Doctor(pair, ours, theirs.calls, parameters).diagnose(report.first_divergence)
    return replace(report, diagnosis=diagnosis, tried=tried)


def _backward(
    report: Report, pair: Pair, calls: recording.Recording, theirs: Recorded, to_ours: ToOurs, asked: Backward
) -> Report:
    """The same report with the gradients, and a step along theirs; without what has another size there."""
    if theirs.gradients is None:
        raise InputError("the recorded run has no gradients: record it with gradients=True")
    found = gradients(pair.ours, pair.inputs, calls, asked.loss)

    def fitting(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        shapes = {name: x.shape for name, x in found.parameters.items()}
        return {name: x for name, x in to_ours(arrays).items() if shapes.get(name) == x.shape}

    aligned = Gradients(fitting(theirs.gradients.parameters), theirs.gradients.outputs)
    report = replace(report, gradients=gradient_rows(pair, found, aligned))
    if asked.optimiser is None:
        return report
    if theirs.stepped is None:
        raise InputError("theirs took no step: give its optimiser, too, or record the run with step=...")
    before, after = fitting(theirs.parameters), fitting(theirs.stepped)
    mine = stepped(pair.ours, {**found.parameters, **aligned.parameters}, asked.optimiser)
    return replace(report, stepped=stepped_rows(mine, before, after, pair.tolerance))


def _names(ours: nnx.Module, theirs: Any, layout: str | Layout | None) -> tuple[ToOurs, Sequence[Match] | None]:
    """What brings arrays under their parameters' names to ours, and the rules' matches that do it.

    Without matches theirs is one of ours, whose names are the same.
    """
    if isinstance(theirs, nnx.Module) or (isinstance(theirs, Recorded) and theirs.framework == "flax"):
        parameters = theirs.parameters if isinstance(theirs, Recorded) else recording.parameters(theirs)
        _check_same(recording.parameters(ours), parameters)
        return dict, None
    return _conversion(ours, _weights(theirs), layout)


def _weights(theirs: Any) -> Mapping[str, np.ndarray]:
    if isinstance(theirs, Recorded):
        return theirs.parameters
    if not hasattr(theirs, "state_dict"):
        raise InputError(
            f"theirs is {type(theirs).__name__}, expected a torch.nn.Module or a model of ours, or a recorded run"
        )
    from flaxformer_edu.compare import torch_side

    return torch_side.parameters(theirs)


def _check_same(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> None:
    if different := sorted(ours.keys() ^ theirs.keys()):
        raise InputError(
            f"the two models have not the same parameters; only one has {', '.join(different[:4])}: "
            "compare models of the same configuration"
        )


def _conversion(
    ours: nnx.Module, weights: Mapping[str, np.ndarray], layout: str | Layout | None
) -> tuple[ToOurs, list[Match]]:
    """By the layout's rules; of some of the parameters (those that have gradients), what can be made of them."""
    layout = detect_layout(weights, ours) if layout is None else layout
    layout = find_layout(layout, ours, weights) if isinstance(layout, str) else layout
    # As wide as can be: that a type loses digits matters when weights are loaded, not when they are compared.
    shapes = {name: jax.ShapeDtypeStruct(s.shape, np.float64) for name, s in parameter_shapes(ours).items()}
    matches = match(layout, shapes)
    shapes = with_their_positions(shapes, matches, weights)
    check(matches, weights, shapes, layout)

    def to_ours(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        whole = [found for found in matches if all(name in arrays for name in found.torch)]
        return {name: x for found in whole for name, x in found.to_ours(arrays, shapes).items()}

    return to_ours, matches


def _links(
    matches: Sequence[Match] | None, ours: nnx.Module, calls: recording.Recording, theirs: Recorded
) -> list[Link]:
    if matches is None:
        return [Link((path,), (path,)) for path in calls if path in theirs.calls]
    mine = {path: leaf for path, leaf in leaves(ours).items() if path and path in calls}
    return find_links(matches, mine, {path: leaf for path, leaf in theirs.leaves.items() if path in theirs.calls})
