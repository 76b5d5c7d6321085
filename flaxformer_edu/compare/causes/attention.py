"""What goes wrong in attention, tried as changes of its weights or of its parts' inputs.

A scale and the order of heads, query, key and value are linear: changing the projections' weights has the same effect
as changing the code.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from flaxformer_edu.compare.causes.trial import Case, Trial
from flaxformer_edu.compare.sides.ours import Arguments
from flaxformer_edu.layers import MultiHeadAttention, Multiplied, Rotary, causal_mask

NAMES = ("query", "key", "value")
ORDERS = (
    ("key", "query", "value"),
    ("value", "key", "query"),
    ("query", "value", "key"),
    ("key", "value", "query"),
    ("value", "query", "key"),
)
Projections = Float[Array, "*input qkv"]  # the columns (the bias: elements) of query, key and value, side by side
MERGES = {
    "their heads are merged with the features of a head outermost": "... (head dim) -> ... (dim head)",
    "their heads are merged without being moved after the positions": "... length (head dim) -> ... (head length dim)",
}
PACKINGS = {
    "their heads are cut with the features of a head outermost": "... (qkv dim head) -> ... (qkv head dim)",
    "their query, key and value are packed head by head": "... (head qkv dim) -> ... (qkv head dim)",
    "their query, key and value are packed feature by feature": "... (head dim qkv) -> ... (qkv head dim)",
}


def swapped_projections(case: Case) -> Iterator[Trial]:
    """Query, key and value in another order."""
    for order in ORDERS:
        pairs = [f"{name} as {ours}" for ours, name in zip(NAMES, order, strict=True) if name != ours]
        yield from _with_projections(case, f"they use {', '.join(pairs)}", partial(_reordered, order))


def _reordered(order: tuple[str, ...], attention: MultiHeadAttention, columns: Projections) -> Projections:
    parts = jnp.split(columns, 3, axis=-1)
    return jnp.concatenate([parts[NAMES.index(name)] for name in order], axis=-1)


def attention_scale(case: Case) -> Iterator[Trial]:
    """Scores that are not divided by the root of a head's features."""
    wanted: dict[str, Callable[[MultiHeadAttention], float]] = {
        "their scores are not scaled": lambda attention: 1.0,
        "their scores are scaled by the whole width, not by a head's": lambda attention: attention.width**-0.5,
    }
    for explanation, scale in wanted.items():
        yield from _with_projections(case, explanation, partial(_scaled, scale))


def _scaled(
    scale: Callable[[MultiHeadAttention], float], attention: MultiHeadAttention, columns: Projections
) -> Projections:
    query, key, value = jnp.split(columns, 3, axis=-1)
    factor = scale(attention) * math.sqrt(attention.width // attention.heads)
    return jnp.concatenate([query * factor, key, value], axis=-1)


def head_order(case: Case) -> Iterator[Trial]:
    """Heads that are cut from the projections, or put together again, in another order."""
    for explanation, pattern in PACKINGS.items():
        yield from _with_projections(case, explanation, partial(_packed, pattern))
    attentions = {path: layer for path, layer in case.find(MultiHeadAttention).items() if layer.out is not None}
    for explanation, pattern in MERGES.items():
        edits = {f"{path}.out": partial(_merged, pattern, layer.heads) for path, layer in attentions.items()}
        if edits:
            yield Trial(explanation, tuple(attentions), case.model, edits)


def _packed(pattern: str, attention: MultiHeadAttention, columns: Projections) -> Projections:
    return rearrange(columns, pattern, qkv=3, head=attention.heads)


def _merged(pattern: str, heads: int, arguments: Arguments) -> None:
    x = arguments.arguments["inputs"]
    arguments.arguments["inputs"] = rearrange(x, pattern, head=heads).reshape(x.shape)


def mask_convention(case: Case) -> Iterator[Trial]:
    """True for what is hidden, instead of for what may be seen; masks that are not used, or are missing here."""
    changes: dict[str, Callable[[Arguments], None]] = {
        "their mask is inverted: True hides": _invert_mask,
        "they do not use the mask": lambda arguments: arguments.arguments.update(mask=None),
        "they hide later positions, we do not": _hide_later,
    }
    attentions = tuple(case.find(MultiHeadAttention))
    for explanation, change in changes.items():
        if attentions:
            yield Trial(explanation, attentions, case.model, dict.fromkeys(attentions, change))


def _invert_mask(arguments: Arguments) -> None:
    if arguments.arguments.get("mask") is not None:
        arguments.arguments["mask"] = jnp.logical_not(arguments.arguments["mask"])


def _hide_later(arguments: Arguments) -> None:
    if arguments.arguments.get("mask") is None and arguments.arguments.get("key") is None:
        arguments.arguments["mask"] = causal_mask(arguments.arguments["query"].shape[1])


def rotary_layout(case: Case) -> Iterator[Trial]:
    """Rotary positions of other pairs of features; or such that one side lacks."""
    choices = {
        "their rotary positions turn features (2k, 2k + 1)": Rotary(interleaved=True),
        "their rotary positions turn features (k, k + dim/2)": Rotary(),
        "they have no rotary positions": None,
        "they multiply by sinusoids instead of turning": Multiplied(),
    }
    even = [layer for layer in case.find(MultiHeadAttention).values() if layer.width // layer.heads % 2 == 0]
    for explanation, rotary in choices.items() if even else ():
        yield from case.setting(explanation, MultiHeadAttention, "rotary", rotary)


def _with_projections(
    case: Case, explanation: str, change: Callable[[MultiHeadAttention, Projections], Projections]
) -> Iterator[Trial]:
    """With the weights and biases of query, key and value, side by side, changed in each attention in the scope."""

    def apply(attention: MultiHeadAttention) -> None:
        layers = [attention.qkv] if attention.merged_qkv else [getattr(attention, name) for name in NAMES]
        for leaf in ("kernel", "bias") if layers[0].bias is not None else ("kernel",):
            columns = jnp.concatenate([getattr(layer, leaf)[...] for layer in layers], axis=-1)
            parts = jnp.split(change(attention, columns), len(layers), axis=-1)
            for layer, part in zip(layers, parts, strict=True):
                getattr(layer, leaf)[...] = part

    yield from case.trial(explanation, MultiHeadAttention, apply)
