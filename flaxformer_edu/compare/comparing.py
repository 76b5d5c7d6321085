"""The comparison of two models, from what the user hands in to the report."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from flax import nnx

from flaxformer_edu.compare.both import Both
from flaxformer_edu.compare.compiled import CompiledCheck
from flaxformer_edu.compare.names import find_names, layer_links
from flaxformer_edu.compare.pairing import Pair
from flaxformer_edu.compare.report import Report
from flaxformer_edu.compare.sides.recorded import Recorded
from flaxformer_edu.compare.sides.records import BackwardRequest
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
    referee: bool | None = None,
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
    value of each output; by default it follows, for each layer, from how far rounding moves it.

    The `referee` runs both models in float64 as well, where a fault that is smaller than rounding shows: both hold the
    same numbers there, those of the narrower side. It costs about as much again, and by default it is asked where ours
    has at most 300 million parameters, both sides can be run (a recorded run cannot) and no `tolerance` is given.

    With `diagnose`, the causes in `causes.CAUSES` are tried in turn at the first layer that differs; each costs a run
    of our model. Of a layer that is called more than once, the first call is compared.

    With `compiled`, ours is compiled by XLA, too, as one program, and compared with itself: where the two differ the
    compiler is wrong, and its switches are tried in turn. That takes the time of compiling it; with gradients, of
    compiling those as well.

    With `gradients`, those of a loss are compared, too, with respect to each layer's output and each parameter. `loss`
    are two functions, of what our model gives and of what theirs gives; by default it is the sum of y + y^3 / 3 over
    the first output y, since a plain sum is constant behind a softmax or a norm. `step` are an optax transformation and
    a function that makes a torch optimizer for a list of parameters (for two of our models: two transformations): both
    take one step along their gradients, so that what differs after it is the optimizers' doing. `loss` and `step` imply
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
        shared = [name for each in matches or () for name in each.torch]
        both = Both(pair, calls, theirs, to_ours, shared, (our_request, their_request) if backward else None)
        report = both.compare(referee=referee, diagnose=diagnose)
        if not compiled:
            return report
        check = CompiledCheck(ours, arrays, calls, both.gradients, our_request.loss)
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
