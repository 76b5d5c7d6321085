"""Which of their modules computes what ours does, as the converter's rules for parameters tell."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
from einops import rearrange

from flaxformer_edu.convert.rules import Match

# How one framework's axes may stand in the other: images channel first, their pixels in a row, the batch second.
ARRANGEMENTS = (
    "batch channel row column -> batch row column channel",
    "batch channel row column -> batch (row column) channel",
    "batch row column channel -> batch (row column) channel",
    "length batch width -> batch length width",
)


@dataclass(frozen=True)
class Link:
    """Modules of ours and of theirs, by path, whose outputs correspond by an einops pattern (None: are equal)."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    pattern: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)

    def to_ours(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What our modules should put out, made of the outputs of theirs."""
        tensors = [outputs[path] for path in self.theirs]
        stacked = tensors[0] if len(tensors) == 1 else np.stack(tensors)
        if self.pattern is not None:
            stacked = rearrange(stacked, self.pattern, **self.sizes)
        return dict(zip(self.ours, [stacked] if len(self.ours) == 1 else list(stacked), strict=True))


def find_links(
    matches: Iterable[Match], our_leaves: Mapping[str, bool], their_leaves: Mapping[str, bool]
) -> list[Link]:
    """The modules on both sides that hold the same parameters; the whole models are one such pair.

    The modules are those that were called, by path, each with whether it has none within. Of those that hold one
    another and the same parameters, the innermost correspond, then the ones around them.
    """
    matches = list(matches)
    links = {(link.ours, link.theirs): link for link in reversed([_leaf_link(each) for each in matches])}
    leaf_links = [
        link
        for link in links.values()
        if all(our_leaves.get(path, False) for path in link.ours)
        and all(their_leaves.get(path, False) for path in link.theirs)
    ]
    ours = _containers([each.ours for each in matches], our_leaves)
    theirs = _containers([each.torch for each in matches], their_leaves)
    pairs = [pair for held in ours for pair in zip(ours[held], theirs.get(held, ()), strict=False)]
    return [*leaf_links, *(Link((our,), (their,)) for our, their in pairs), Link(("",), ("",))]


def _leaf_link(rule: Match) -> Link:
    """A rule for the parameters of leaves says, by the axis of their output features, how their outputs correspond."""
    ours, theirs = (tuple(name.rpartition(".")[0] for name in names) for names in (rule.ours, rule.torch))
    if rule.pattern is None:
        return Link(ours, theirs)
    given, wanted = (re.findall(r"\([^)]*\)|\S+", side) for side in rule.pattern.split("->"))
    given = given[
        : 1 if len(theirs) == 1 else 2
    ]  # after the list in braces, if any, stand the outputs, then the inputs
    names = set(re.findall(r"\w+", " ".join(given)))
    wanted = [axis for axis in wanted if names.issuperset(re.findall(r"\w+", axis))]
    sizes = {name: size for name, size in rule.sizes.items() if name in names}
    if len(ours) > 1:
        sizes[wanted[0]] = len(ours)
    given, wanted = (_with_other_axes(axes, len(paths) > 1) for axes, paths in ((given, theirs), (wanted, ours)))
    return Link(ours, theirs, None if given == wanted else f"{given} -> {wanted}", sizes)


def _with_other_axes(axes: list[str], listed: bool) -> str:
    return " ".join([*axes[:listed], "...", *axes[listed:]])


def _containers(names: list[tuple[str, ...]], leaves: Mapping[str, bool]) -> dict[frozenset[int], list[str]]:
    """For each set of matches, the called modules, the innermost first, that hold exactly their parameters."""
    holding: dict[frozenset[int], list[str]] = {}
    for path, leaf in sorted(leaves.items(), key=lambda item: -len(item[0])):
        within = [[name.startswith(f"{path}.") for name in match] for match in names]
        held = frozenset(i for i, inside in enumerate(within) if all(inside))
        if path and not leaf and held and not any(any(inside) and not all(inside) for inside in within):
            holding.setdefault(held, []).append(path)
    return holding


def nearest(theirs: np.ndarray, ours: np.ndarray) -> np.ndarray | None:
    """Their array with its axes as ours stand; None if nothing has our shape, the nearest if more than one has."""
    fitting = [x for x in (theirs, *_arranged(theirs)) if x.shape == ours.shape]
    if not fitting:
        return None
    return reduce(lambda best, x: x if _gap(x, ours) < _gap(best, ours) else best, fitting)


def _arranged(x: np.ndarray) -> Iterable[np.ndarray]:
    for pattern in ARRANGEMENTS:
        if x.ndim == len(pattern.partition("->")[0].split()):
            yield rearrange(x, pattern)


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0))
