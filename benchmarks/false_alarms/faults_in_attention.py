"""Faults in attention: in what it makes of its scores, and of its heads."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from benchmarks.false_alarms.sites import Site, before

Weights = Callable[[Tensor], Tensor]  # of attention's scores


class _Attention(TorchFunctionMode):
    """Another way from scores to weights, wherever attention is computed."""

    def __init__(self, weights: Weights):
        super().__init__()
        self.weights, self.busy = weights, False

    def apply(self, scores: Tensor) -> Tensor:
        """The weights of scores; a softmax within is what it is."""
        self.busy = True
        try:
            return self.weights(scores)
        finally:
            self.busy = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.softmax and not self.busy:
            return self.apply(args[0])
        return func(*args, **kwargs)


def attention(site: Site, weights: Weights) -> str:
    """Attention in one block that makes something else of its scores."""

    mode = _Attention(weights)

    def attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *rest: Any, **options: Any) -> Tensor:
        del rest
        scores = query @ key.transpose(-1, -2) * (options.get("scale") or query.shape[-1] ** -0.5)
        return mode.apply(scores if attn_mask is None else scores + attn_mask) @ value

    module = site.module(site.port.names.attention)
    forward = module.forward

    def run(*args: Any, **kwargs: Any) -> Any:
        original = F.scaled_dot_product_attention
        F.scaled_dot_product_attention = attend
        try:
            with mode:
                return forward(*args, **kwargs)
        finally:
            F.scaled_dot_product_attention = original

    module.forward = run
    return site.ours("attention")


def scaled_scores(site: Site) -> str:
    """Scores times something: the root of a head's features, or near to one."""
    dim = site.port.size.width / site.port.size.heads
    factor = site.size(dim**0.5, site.port.size.heads**-0.5, 1.1, 0.99, 1.001)
    return attention(site, lambda scores: (factor * scores).softmax(-1))


def hidden_last(scores: Tensor) -> Tensor:
    """Nobody sees the last token."""
    return torch.cat([scores[..., :-1], torch.full_like(scores[..., -1:], -1e9)], -1).softmax(-1)


def causal(scores: Tensor) -> Tensor:
    """Later tokens are hidden; of a causal model, none."""
    if (scores == -torch.inf).any():
        return scores.masked_fill(scores == -torch.inf, 0.0).softmax(-1)
    return scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf).softmax(-1)


def one_more(scores: Tensor) -> Tensor:
    """Softmax with one more in its denominator."""
    zero = torch.zeros_like(scores[..., :1])
    return torch.cat([scores, zero], -1).softmax(-1)[..., :-1]


def capped(site: Site) -> str:
    """Scores that cannot grow beyond a cap."""
    cap = site.size(5, 20, 50)
    return attention(site, lambda scores: (cap * torch.tanh(scores.clamp(-1e4) / cap)).softmax(-1))


def narrow_softmax(site: Site) -> str:
    """Weights rounded to few digits."""
    kind = torch.float8_e4m3fn if next(site.port.theirs.parameters()).dtype == torch.bfloat16 else torch.bfloat16
    return attention(site, lambda scores: scores.softmax(-1).to(kind).to(scores.dtype))


def merged_heads(site: Site) -> str:
    """Heads put side by side with their features outermost."""
    heads = site.port.size.heads
    before(
        site.module(site.port.names.out), lambda x: x.unflatten(-1, (heads, -1)).transpose(-1, -2).flatten(-2)
    )
    return site.ours("attention")
