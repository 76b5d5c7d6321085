"""The engine: a layout is a list of rules, and each rule works in both directions."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

import jax
import numpy as np
from einops import rearrange

from flaxformer_edu.errors import InputError

Shapes = Mapping[str, jax.ShapeDtypeStruct]


class ConversionError(InputError):
    """Names, shapes or types do not fit; the message lists everything that does not."""


@dataclass(frozen=True)
class Rule:
    """How one PyTorch tensor and one or more of our parameters correspond.

    Names are templates: `{i}` stands for a number, the same on both sides, and `{query,key,value}`, on our side, for
    several parameters, which are stacked along a new first axis. The einops pattern leads from PyTorch's axes to ours;
    swapping its sides is the inverse. Without a pattern the tensors are equal.

    >>> Rule("layers.{i}.linear1.weight", "blocks.{i}.mlp.up.kernel", "hidden width -> width hidden")
    >>> Rule("attn.in_proj_bias", "attention.{query,key,value}.bias", "(qkv width) -> qkv width")
    """

    torch: str
    ours: str
    pattern: str | None = None

    def our_names(self) -> list[str]:
        """The templates of our names: one, or one for each alternative in braces."""
        braces = re.search(r"\{(\w+(?:,\w+)+)\}", self.ours)
        if braces is None:
            return [self.ours]
        return [self.ours.replace(braces[0], name) for name in braces[1].split(",")]


@dataclass(frozen=True)
class Layout:
    """A naming scheme: its rules, and the tensors (shell patterns) that carry nothing we need."""

    rules: tuple[Rule, ...]
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class Match:
    """A rule applied to a model: the tensor `torch` corresponds to the parameters `ours`."""

    torch: str
    ours: tuple[str, ...]
    pattern: str | None

    def to_ours(self, tensor: np.ndarray, shapes: Shapes) -> dict[str, np.ndarray]:
        """Our parameters, made of PyTorch's tensor."""
        if self.pattern is not None:
            tensor = rearrange(tensor, self.pattern, **self._axes(shapes))
        return dict(zip(self.ours, [tensor] if len(self.ours) == 1 else tensor, strict=True))

    def to_torch(self, parameters: Mapping[str, jax.Array | np.ndarray]) -> np.ndarray:
        """PyTorch's tensor, made of our parameters."""
        arrays = [np.asarray(parameters[name]) for name in self.ours]
        stacked = arrays[0] if len(arrays) == 1 else np.stack(arrays)
        if self.pattern is not None:
            stacked = rearrange(stacked, _inverse(self.pattern))
        return np.asarray(stacked, order="C")

    def torch_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """The shape that PyTorch's tensor must have."""
        if self.pattern is None:
            return self._our_shape(shapes)
        ours = jax.ShapeDtypeStruct(self._our_shape(shapes), np.float32)
        return jax.eval_shape(lambda x: rearrange(x, _inverse(self.pattern or "")), ours).shape

    def _our_shape(self, shapes: Shapes) -> tuple[int, ...]:
        first = shapes[self.ours[0]].shape
        return first if len(self.ours) == 1 else (len(self.ours), *first)

    def _axes(self, shapes: Shapes) -> dict[str, int]:
        """The axes' sizes, read off our shapes: what a composed axis of PyTorch's is made of."""
        _, ours = (self.pattern or "").split("->")
        return dict(zip(ours.split(), self._our_shape(shapes), strict=True))


def _inverse(pattern: str) -> str:
    return "->".join(reversed(pattern.split("->")))


def within(torch: str, ours: str, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The same rules for a part of a larger model: both names get a prefix."""
    return tuple(Rule(f"{torch}.{rule.torch}", f"{ours}.{rule.ours}", rule.pattern) for rule in rules)


def match(layout: Layout, shapes: Shapes) -> list[Match]:
    """Apply the layout's rules to a model's parameters. Raises ConversionError unless each is used exactly once."""
    matches = [found for rule in layout.rules for found in _match_rule(rule, shapes)]
    claimed = Counter(name for found in matches for name in found.ours)
    used = Counter(found.torch for found in matches)
    problems = [f"no rule makes our parameter {name}" for name in shapes if name not in claimed]
    problems += [f"{count} rules make our parameter {name}" for name, count in claimed.items() if count > 1]
    problems += [f"{count} rules use the tensor {name}" for name, count in used.items() if count > 1]
    if problems:
        raise ConversionError("the layout does not fit the model:\n  " + "\n  ".join(problems))
    return matches


def _match_rule(rule: Rule, shapes: Shapes) -> list[Match]:
    """Every way of putting numbers for the rule's wildcards such that all its parameters exist."""
    first, *_ = templates = rule.our_names()
    expression = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(first))
    found = []
    for name in shapes:
        numbers = re.fullmatch(expression, name)
        if numbers is not None:
            ours = tuple(template.format(**numbers.groupdict()) for template in templates)
            if all(name in shapes for name in ours):
                found.append(Match(rule.torch.format(**numbers.groupdict()), ours, rule.pattern))
    return found


def check(matches: list[Match], weights: Mapping[str, np.ndarray], shapes: Shapes, layout: Layout) -> None:
    """Raise one ConversionError listing every tensor missing, unused, misshapen or of a type that would lose digits."""
    wanted = {found.torch: found for found in matches}
    unused = [n for n in weights if n not in wanted and not any(fnmatchcase(n, pattern) for pattern in layout.ignore)]
    problems, narrowed = [], []
    for name, found in wanted.items():
        if name not in weights:
            near = get_close_matches(name, unused, n=1)
            problems.append(f"missing    {name}" + (f" (unused and similar: {near[0]})" if near else ""))
            continue
        given, expected, dtype = weights[name], found.torch_shape(shapes), shapes[found.ours[0]].dtype
        if given.shape != expected:
            problems.append(f"misshapen  {name}: {given.shape} given, {expected} expected for {', '.join(found.ours)}")
        elif not np.can_cast(given.dtype, dtype, "safe"):
            narrowed.append(f"wrong type {name}: {given.dtype} does not fit into {dtype} (cast it, or set param_dtype)")
    for name in unused:
        near = get_close_matches(name, wanted, n=1)
        problems.append(f"unused     {name} {weights[name].shape}" + (f" (similar: {near[0]})" if near else ""))
    problems += narrowed
    if problems:
        title = f"{len(problems)} tensors of the checkpoint and the model do not fit together:\n  "
        raise ConversionError(title + "\n  ".join(problems))
