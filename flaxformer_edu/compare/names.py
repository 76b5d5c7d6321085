"""Their parameters under our names, and which of their layers computes what ours does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from flaxformer_edu.compare.causes.positions import with_their_positions
from flaxformer_edu.compare.links import Link, find_links
from flaxformer_edu.compare.sides import ours as our_side
from flaxformer_edu.compare.sides.recorded import Recorded
from flaxformer_edu.compare.sides.records import Recording
from flaxformer_edu.compare.sides.running import leaves
from flaxformer_edu.convert.layouts import detect_layout, find_layout
from flaxformer_edu.convert.rules import Layout, Match, check, match, parameter_shapes
from flaxformer_edu.errors import InputError

ToOurs = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]  # of arrays by their parameters' names


def find_names(ours: nnx.Module, theirs: Any, layout: str | Layout | None) -> tuple[ToOurs, Sequence[Match] | None]:
    """What brings arrays under their parameters' names to ours, and the rules' matches by which it does.

    Without matches theirs is one of ours, whose names are the same.
    """
    if isinstance(theirs, nnx.Module) or (isinstance(theirs, Recorded) and theirs.framework == "flax"):
        parameters = theirs.parameters if isinstance(theirs, Recorded) else our_side.parameters(theirs)
        _check_same(our_side.parameters(ours), parameters)
        return dict, None
    return _conversion(ours, _weights(theirs), layout)


def _weights(theirs: Any) -> Mapping[str, np.ndarray]:
    if isinstance(theirs, Recorded):
        return theirs.parameters
    if not hasattr(theirs, "state_dict"):
        raise InputError(
            f"theirs is {type(theirs).__name__}, expected a torch.nn.Module or a model of ours, or a recorded run"
        )
    from flaxformer_edu.compare.sides.theirs import parameters

    return parameters(theirs)


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
        whole = [each for each in matches if all(name in arrays for name in each.torch)]
        return {name: x for each in whole for name, x in each.to_ours(arrays, shapes).items()}

    return to_ours, matches


def layer_links(
    matches: Sequence[Match] | None, ours: nnx.Module, calls: Recording, theirs: Recorded
) -> list[Link]:
    """Which layers correspond; without matches, those that have the same path."""
    if matches is None:
        return [Link((path,), (path,)) for path in calls if path in theirs.calls]
    mine = {path: leaf for path, leaf in leaves(ours).items() if path and path in calls}
    return find_links(matches, mine, {path: leaf for path, leaf in theirs.leaves.items() if path in theirs.calls})
