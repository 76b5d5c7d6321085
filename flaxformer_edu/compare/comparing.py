"""The comparison of two models, from what the user hands in to the report."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from flax import nnx

from flaxformer_edu.compare.causes.positions import at_our_size
from flaxformer_edu.compare.compiled import CompiledCheck
from flaxformer_edu.compare.diagnosis import CauseSearch
from flaxformer_edu.compare.gradient_rows import gradient_rows, stepped_rows
from flaxformer_edu.compare.names import ToOurs, find_names, layer_links
from flaxformer_edu.compare.pairing import Pair, parameter_rows
from flaxformer_edu.compare.report import Report
from flaxformer_edu.compare.sides import ours as our_side
from flaxformer_edu.compare.sides.our_gradients import gradients as our_gradients
from flaxformer_edu.compare.sides.our_gradients import stepped
from flaxformer_edu.compare.sides.recorded import Recorded
from flaxformer_edu.compare.sides.records import BackwardRequest, Gradients, Recording
from flaxformer_edu.compare.sides.running import as_arguments, precision, run, their_inputs
from flaxformer_edu.convert.rules import Layout
from flaxformer_edu.errors import InputError

Array = jax.Array | np.ndarray


def models(
    ours: nnx.Module,
    theirs: Any,
    inputs: Array | Sequence[Array] | None = None,
    *,
    layout: str | Layout | None = None,
    tolerance: float | None = None,
    torch_inputs: Sequence[Any] | None = None,
    diagnose: bool = True,
    compiled: bool = True,
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

    With `compiled`, ours is compiled by XLA, too, as one program, and compared with itself: where the two differ the
    compiler is wrong, and its switches are tried in turn. That takes the time of compiling it; with gradients, of
    compiling those as well.

    With `gradients`, those of a loss are compared, too, with respect to each layer's output and each parameter. `loss`
    are two functions, of what our model gives and of what theirs gives; by default it is the sum of y + y^3 / 3 over
    the first output y, since a plain sum is constant behind a softmax or a norm. `step` are an optax transformation and
    a function that makes a torch optimiser for a list of parameters (for two of our models: two transformations): both
    take one step along their gradients, so that what differs after it is the optimisers' doing. `loss` and `step` imply
    `gradients`. A recorded run has its side's loss and step: write None for them.

    Raises InputError where either side does not run on the inputs or `layout` does not fit them: ConversionError then
    lists every tensor that is missing, unused or misshapen.
    """
    backward = gradients or loss is not None or step is not None
    requests = zip(_both_sides("loss", loss), _both_sides("step", step), strict=True)
    our_request, their_request = (BackwardRequest(*request) for request in requests)
    if isinstance(theirs, str | os.PathLike):
        theirs = Recorded.load(theirs)
    arrays = _arguments(theirs, inputs)
    with precision(ours, theirs):
        to_ours, matches = find_names(ours, theirs, layout)
        theirs_given = torch_inputs
        if theirs_given is None:
            theirs_given = arrays if isinstance(theirs, nnx.Module) else their_inputs([np.asarray(x) for x in arrays])
        pair = Pair(ours, theirs, arrays, theirs_given, tolerance=tolerance)
        calls = pair.record_ours()
        if not isinstance(theirs, Recorded):
            theirs = run(theirs, arrays, torch_inputs, their_request if backward else None)
        pair = replace(pair, links=layer_links(matches, ours, calls, theirs))
        report = _forward(pair, calls, theirs, to_ours(theirs.parameters), diagnose)
        of_ours = our_gradients(ours, arrays, calls, our_request.loss) if backward else None
        if of_ours is not None:
            report = _backward(report, pair, of_ours, theirs, to_ours, our_request)
        if not compiled:
            return report
        check = CompiledCheck(ours, arrays, calls, of_ours, our_request.loss)
        return report.with_compiled(check.report(diagnose=diagnose))


def _both_sides(name: str, given: Any) -> Sequence[Any]:
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
    pair: Pair, ours: Recording, theirs: Recorded, parameters: Mapping[str, np.ndarray], diagnose: bool
) -> Report:
    """The parameters and the layers; `parameters` are theirs under our names."""
    mine = our_side.parameters(pair.ours)
    rows = parameter_rows(mine, at_our_size(mine, parameters), pair.tolerance)
    report = Report(parameters=rows, layers=pair.rows(ours, theirs.calls))
    if report.first_divergence is None or not diagnose:
        return report
    diagnosis, tried = CauseSearch(pair, ours, theirs.calls, parameters).find(report.first_divergence)
    return replace(report, diagnosis=diagnosis, tried=tried)


def _backward(
    report: Report, pair: Pair, ours: Gradients, theirs: Recorded, to_ours: ToOurs, request: BackwardRequest
) -> Report:
    """The same report with the gradients, and a step along theirs; without what has another size there."""
    if theirs.gradients is None:
        raise InputError("the recorded run has no gradients: record it with gradients=True")

    def fitting(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        shapes = {name: x.shape for name, x in ours.parameters.items()}
        return {name: x for name, x in to_ours(arrays).items() if shapes.get(name) == x.shape}

    aligned = Gradients(fitting(theirs.gradients.parameters), theirs.gradients.outputs)
    report = replace(report, gradients=gradient_rows(pair, ours, aligned))
    if request.optimiser is None:
        return report
    if theirs.stepped is None:
        raise InputError("theirs took no step: give its optimiser, too, or record the run with step=...")
    before, after = fitting(theirs.parameters), fitting(theirs.stepped)
    mine = stepped(pair.ours, {**ours.parameters, **aligned.parameters}, request.optimiser)
    return replace(report, stepped=stepped_rows(mine, before, after, pair.tolerance))
