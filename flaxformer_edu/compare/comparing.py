"""The comparison of two models, from what the user hands in to the report."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from flax import nnx

from flaxformer_edu.compare.diagnosis import Doctor
from flaxformer_edu.compare.links import Link, find_links
from flaxformer_edu.compare.pairing import Pair, parameter_rows
from flaxformer_edu.compare.recording import Recording, float_type
from flaxformer_edu.compare.report import Report
from flaxformer_edu.convert.layouts import detect_layout, find_layout
from flaxformer_edu.convert.rules import Layout, Match, check, match, parameter_name, parameter_shapes
from flaxformer_edu.errors import InputError

Array = jax.Array | np.ndarray


def models(
    ours: nnx.Module,
    theirs: Any,
    inputs: Array | Sequence[Array],
    *,
    layout: str | Layout | None = None,
    tolerance: float | None = None,
    torch_inputs: Sequence[Any] | None = None,
    diagnose: bool = True,
) -> Report:
    """Run two models on the same inputs and compare every layer; say where they first differ, and why.

    `theirs` is a torch.nn.Module, whose names `layout` explains as in `convert` (without one, it is seen from the
    names), or another of our models, whose layers have the same paths. It is run as it stands: call its `.eval()`
    unless it is its dropout that is looked for. Ours is run in evaluation.

    `inputs` are the model's arguments, one or several, as ours takes them; images are handed to PyTorch channel first,
    and `torch_inputs` are for a model that takes other arguments altogether. `tolerance` is relative to the largest
    value of each output; by default it is that of its type, 1e-12 in float64 and 1e-5 in float32. Faults that are
    small, such as another epsilon, are sure to be seen only in float64.

    With `diagnose`, the causes in `causes.CAUSES` are tried in turn at the first layer that differs; each costs a run
    of our model. Of a layer that is called more than once, the first call is compared.

    Raises InputError where either side does not run on the inputs or `layout` does not fit them: ConversionError then
    lists every tensor that is missing, unused or misshapen.
    """
    arrays = tuple(inputs) if isinstance(inputs, list | tuple) else (inputs,)
    double = any(float_type(model) == np.float64 for model in (ours, theirs) if isinstance(model, nnx.Module))
    with jax.enable_x64(True) if double else nullcontext():
        if isinstance(theirs, nnx.Module):
            pair = Pair(ours, theirs, arrays, arrays, tolerance=tolerance)
            return _report(pair, _same_parameters(ours, theirs), None, diagnose)
        parameters, matches = _converted(ours, theirs, layout)
        given = tuple(_channel_first(x) for x in arrays) if torch_inputs is None else torch_inputs
        return _report(Pair(ours, theirs, arrays, given, tolerance=tolerance), parameters, matches, diagnose)


def _report(
    pair: Pair, parameters: Mapping[str, np.ndarray], matches: Sequence[Match] | None, diagnose: bool
) -> Report:
    """Of a pair that has no links yet; theirs has `parameters`, and is one of ours where there are no `matches`."""
    ours, theirs = pair.record_ours(), pair.record_theirs()
    if matches is None:
        links = [Link((path,), (path,)) for path in ours if path in theirs]
    else:
        links = find_links(matches, _our_leaves(pair.ours, ours), _their_leaves(pair.theirs, theirs))
    pair = replace(pair, links=links)
    rows = parameter_rows(_parameters(pair.ours), parameters, pair.tolerance)
    report = Report(parameters=rows, layers=pair.rows(ours, theirs))
    if report.first_divergence is None or not diagnose:
        return report
    diagnosis, tried = Doctor(pair, theirs, parameters).diagnose(report.first_divergence)
    return replace(report, diagnosis=diagnosis, tried=tried)


def _channel_first(x: Any) -> np.ndarray:
    """Images as PyTorch takes them; anything else as it is."""
    x = np.asarray(x)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 and x.dtype != bool else x


def _parameters(model: nnx.Module) -> dict[str, np.ndarray]:
    state = nnx.to_flat_state(nnx.state(model))
    return {parameter_name(path): np.asarray(variable[...]) for path, variable in state}


def _same_parameters(ours: nnx.Module, theirs: nnx.Module) -> dict[str, np.ndarray]:
    mine, other = _parameters(ours), _parameters(theirs)
    if different := sorted(mine.keys() ^ other.keys()):
        raise InputError(
            f"the two models have not the same parameters; only one has {', '.join(different[:4])}: "
            "compare models of the same configuration"
        )
    return other


def _converted(ours: nnx.Module, theirs: Any, layout: str | Layout | None) -> tuple[dict[str, np.ndarray], list[Match]]:
    """Their parameters under our names and in our axes, and the rules' matches that led there."""
    from flaxformer_edu.convert.models import as_numpy

    if not hasattr(theirs, "state_dict"):
        raise InputError(f"theirs is {type(theirs).__name__}, expected a torch.nn.Module or a model of ours")
    weights = {name: as_numpy(tensor) for name, tensor in theirs.state_dict().items()}
    layout = detect_layout(weights, ours) if layout is None else layout
    layout = find_layout(layout, ours, weights) if isinstance(layout, str) else layout
    # As wide as can be: that a type loses digits matters when weights are loaded, not when they are compared.
    shapes = {name: jax.ShapeDtypeStruct(s.shape, np.float64) for name, s in parameter_shapes(ours).items()}
    matches = match(layout, shapes)
    check(matches, weights, shapes, layout)
    return {name: x for found in matches for name, x in found.to_ours(weights, shapes).items()}, matches


def _our_leaves(model: nnx.Module, run: Recording) -> Mapping[str, bool]:
    """Whether each layer that ran has none within."""
    paths = [parameter_name(path) for path, _ in nnx.iter_modules(model)]
    return {path: not any(other.startswith(f"{path}.") for other in paths) for path in run if path}


def _their_leaves(model: Any, run: Recording) -> Mapping[str, bool]:
    from flaxformer_edu.compare.torch_side import leaves

    return {path: leaf for path, leaf in leaves(model).items() if path in run}
