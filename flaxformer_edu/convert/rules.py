"""The engine: a layout is a list of rules, and each rule works in both directions."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import jax
import numpy as np
from einops import EinopsError, rearrange
from flax import nnx

from flaxformer_edu.errors import InputError

Shapes = Mapping[str, jax.ShapeDtypeStruct]


class ConversionError(InputError):
    """Names, shapes or types do not fit; the message lists everything that does not."""


@dataclass(frozen=True)
class Rule:
    """How one or more PyTorch tensors and one or more of our parameters correspond.

    Names are templates: `{i}` stands for a number, the same on both sides, and `{query,key,value}` for several tensors,
    which are stacked along a new first axis; either side may have one such list. The einops pattern leads from
    PyTorch's axes to ours; swapping its sides is the inverse. `sizes` are those of its axes that our shapes do not
    give. Without a pattern the tensors are equal.

    >>> Rule("layers.{i}.linear1.weight", "blocks.{i}.mlp.up.kernel", "hidden width -> width hidden")
    >>> Rule("attn.in_proj_bias", "attention.{query,key,value}.bias", "(qkv width) -> qkv width")
    >>> Rule("heads.{0,1,2}.query.weight", "query.kernel", "head dim width -> width (head dim)")
    """

    torch: str
    ours: str
    pattern: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self):
        unknown = _wildcards(self.torch) - _wildcards(self.ours)
        if unknown:
            raise InputError(f"{self}: our name has no {{{', '.join(unknown)}}}, and each name may have one list")
        if self.pattern is not None and self.pattern.count("->") != 1:
            raise InputError(f"{self}: a pattern has PyTorch's axes, ->, and ours")


def _wildcards(template: str) -> set[str]:
    return set(re.findall(r"\{([^}]*)\}", alternatives(template)[0]))


def alternatives(template: str) -> list[str]:
    """The templates that one with a list in braces stands for: one for each word of the list."""
    braces = re.search(r"\{([\w.]+(?:,[\w.]+)+)\}", template)
    return [template] if braces is None else [template.replace(braces[0], word) for word in braces[1].split(",")]


@dataclass(frozen=True)
class Layout:
    """A naming scheme: its rules, and the tensors (shell patterns) that carry nothing we need."""

    rules: tuple[Rule, ...]
    ignore: tuple[str, ...] = ()


# A scheme that has changed its names, or whose rules depend on the model's sizes, is a function of the model: it gives
# all its variants, the one to write first.
Variants = Layout | Callable[[Any], tuple[Layout, ...]]


@dataclass(frozen=True)
class Match:
    """A rule applied to a model: the tensors `torch` correspond to the parameters `ours`."""

    torch: tuple[str, ...]
    ours: tuple[str, ...]
    pattern: str | None
    sizes: Mapping[str, int]

    def to_ours(self, tensors: Mapping[str, np.ndarray], shapes: Shapes) -> dict[str, np.ndarray]:
        """Our parameters, from PyTorch's tensors."""
        stacked = _stack([tensors[name] for name in self.torch])
        if self.pattern is not None:
            theirs, ours = self.pattern.split("->")
            stacked = _rearrange(stacked, theirs, ours, {**self._sizes(), **_axes(ours, self._our_shape(shapes))})
        return dict(zip(self.ours, [stacked] if len(self.ours) == 1 else stacked, strict=True))

    def to_torch(self, parameters: Mapping[str, jax.Array | np.ndarray]) -> dict[str, np.ndarray]:
        """PyTorch's tensors, from our parameters."""
        stacked = self._inverse(_stack([np.asarray(parameters[name]) for name in self.ours]))
        tensors = [stacked] if len(self.torch) == 1 else stacked
        return {name: np.asarray(tensor, order="C") for name, tensor in zip(self.torch, tensors, strict=True)}

    def torch_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """The shape that each of PyTorch's tensors must have."""
        unfilled = np.broadcast_to(np.float32(0), self._our_shape(shapes))  # takes no memory, whatever its shape
        shape = self._inverse(unfilled).shape
        return shape if len(self.torch) == 1 else shape[1:]

    def _inverse(self, stacked: np.ndarray) -> np.ndarray:
        if self.pattern is None:
            return stacked
        theirs, ours = self.pattern.split("->")
        return _rearrange(stacked, ours, theirs, self._sizes())

    def _sizes(self) -> dict[str, int]:
        """The rule's own, and how many tensors PyTorch has for its list in braces."""
        listed = re.match(r"\w+", self.pattern or "") if len(self.torch) > 1 else None
        return {**self.sizes, **({listed[0]: len(self.torch)} if listed else {})}

    def _our_shape(self, shapes: Shapes) -> tuple[int, ...]:
        first = shapes[self.ours[0]].shape
        return first if len(self.ours) == 1 else (len(self.ours), *first)


def _stack(tensors: list[np.ndarray]) -> np.ndarray:
    return tensors[0] if len(tensors) == 1 else np.stack(tensors)


def _rearrange(x: np.ndarray, given: str, wanted: str, sizes: Mapping[str, int]) -> np.ndarray:
    names = set(re.findall(r"[a-z]\w*", given))
    try:
        return rearrange(x, f"{given} -> {wanted}", **{name: size for name, size in sizes.items() if name in names})
    except EinopsError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ConversionError(f"the pattern {given}->{wanted} does not fit the shape {x.shape}: {reason}") from None


def _axes(pattern: str, shape: tuple[int, ...]) -> dict[str, int]:
    """The sizes of the axes that stand alone in one side of a pattern."""
    axes = re.findall(r"\([^)]*\)|\S+", pattern)
    return {axis: size for axis, size in zip(axes, shape, strict=True) if axis[0] not in "(1"}


def parameter_shapes(model: nnx.Module) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and type of each parameter, by its name."""
    state = nnx.to_flat_state(nnx.state(model))
    return {parameter_name(path): jax.ShapeDtypeStruct(v.shape, v.dtype) for path, v in state}


def parameter_name(path: tuple[Any, ...]) -> str:
    """A parameter's path in the model, with dots: "encoder.blocks.0.norm1.scale"."""
    return ".".join(str(part) for part in path)


def within(torch: str, ours: str, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The same rules for a part of a larger model: both names get a prefix."""
    return tuple(replace(rule, torch=f"{torch}.{rule.torch}", ours=f"{ours}.{rule.ours}") for rule in rules)


def match(layout: Layout, shapes: Shapes) -> list[Match]:
    """Apply the layout's rules to a model's parameters. Raises ConversionError unless each is used exactly once."""
    matches = apply(layout, shapes)
    made = Counter(name for matched in matches for name in matched.ours)
    used = Counter(name for matched in matches for name in matched.torch)
    problems = [f"no rule makes our parameter {name}" for name in _numbered([n for n in shapes if n not in made])]
    problems += [f"{count} rules make our parameter {name}" for name, count in made.items() if count > 1]
    problems += [f"{count} rules use the tensor {name}" for name, count in used.items() if count > 1]
    if problems:
        raise ConversionError("the layout does not fit the model:\n  " + "\n  ".join(problems))
    return matches


def _numbered(names: Iterable[str]) -> list[str]:
    """Names that differ in one number as one, with the numbers: "blocks.{i}.norm1.scale (i = 0 to 5)"."""
    groups: dict[str, list[int]] = {}
    for name in names:
        number = re.search(r"(?<=\.)\d+(?=\.)", name)
        template = name if number is None else f"{name[: number.start()]}{{i}}{name[number.end() :]}"
        groups.setdefault(template, []).extend([] if number is None else [int(number[0])])
    return [_with_numbers(template, numbers) for template, numbers in groups.items()]


def _with_numbers(template: str, numbers: list[int]) -> str:
    if len(numbers) < 2:
        return template.replace("{i}", "".join(map(str, numbers)))
    run = numbers == list(range(numbers[0], numbers[-1] + 1))
    return f"{template} (i = {f'{numbers[0]} to {numbers[-1]}' if run else ', '.join(map(str, numbers))})"


def apply(layout: Layout, shapes: Shapes) -> list[Match]:
    """Each rule, for each way of putting numbers for its wildcards such that all its parameters exist."""
    return [matched for rule in layout.rules for matched in _match_rule(rule, shapes)]


def _match_rule(rule: Rule, shapes: Shapes) -> list[Match]:
    templates = alternatives(rule.ours)
    expression = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(templates[0]))
    matches = []
    for name in shapes:
        numbers = re.fullmatch(expression, name)
        if numbers is not None:
            ours = tuple(template.format(**numbers.groupdict()) for template in templates)
            torch = tuple(template.format(**numbers.groupdict()) for template in alternatives(rule.torch))
            if all(name in shapes for name in ours):
                matches.append(Match(torch, ours, rule.pattern, rule.sizes))
    return matches


def check(matches: list[Match], weights: Mapping[str, np.ndarray], shapes: Shapes, layout: Layout) -> None:
    """Raise one ConversionError listing every tensor missing, unused, misshapen or of a type that would lose digits."""
    wanted = {name: matched for matched in matches for name in matched.torch}
    unused = [n for n in weights if n not in wanted and not any(fnmatchcase(n, pattern) for pattern in layout.ignore)]
    problems, narrowed = [], []
    for name, matched in wanted.items():
        if name not in weights:
            near = get_close_matches(name, unused, n=1)
            problems.append(f"missing    {name}" + (f" (unused and similar: {near[0]})" if near else ""))
            continue
        given, expected, dtype = weights[name], matched.torch_shape(shapes), shapes[matched.ours[0]].dtype
        if given.shape != expected:
            problems.append(
                f"misshapen  {name}: {given.shape} given, {expected} expected for {', '.join(matched.ours)}"
            )
        elif not np.can_cast(given.dtype, dtype, "safe"):
            narrowed.append(f"wrong type {name}: {given.dtype} does not fit into {dtype} (cast it, or set param_dtype)")
    for name in unused:
        near = get_close_matches(name, wanted, n=1)
        problems.append(f"unused     {name} {weights[name].shape}" + (f" (similar: {near[0]})" if near else ""))
    problems += narrowed
    if problems:
        title = f"{len(problems)} tensors of the checkpoint and the model do not fit together:\n  "
        raise ConversionError(title + "\n  ".join(problems))
