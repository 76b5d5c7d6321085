"""Faults in norms, linear maps and activations."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.false_alarms.sites import SMALL, Change, Site, after, before


def norm(site: Site, change: Callable[[nn.LayerNorm, Tensor, Tensor], Tensor]) -> str:
    """Another normalisation in place of one of the block's."""
    which = int(site.random.integers(2))
    after(site.module(site.port.names.norms[which]), change)  # pyright: ignore[reportArgumentType]
    return site.ours(f"norm{which + 1}")


def epsilon(site: Site) -> str:
    """Another epsilon."""
    which = int(site.random.integers(2))
    module = site.module(site.port.names.norms[which])
    module.eps = site.size(*({1e-3, 1e-4, 1e-5, 1e-6} - {module.eps}))
    return site.ours(f"norm{which + 1}")


def unbiased(module: nn.LayerNorm, x: Tensor, y: Tensor) -> Tensor:
    """The variance divided by one less."""
    del y
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + module.eps).sqrt() * module.weight + module.bias


def root_mean_square(module: nn.LayerNorm, x: Tensor, y: Tensor) -> Tensor:
    """No mean taken off."""
    del y
    return x / (x.pow(2).mean(-1, keepdim=True) + module.eps).sqrt() * module.weight + module.bias


def without_bias(module: Any, x: Tensor, y: Tensor) -> Tensor:
    """What the bias adds taken off again."""
    del x
    return y - module.bias


def scale_from_one(module: nn.LayerNorm, x: Tensor, y: Tensor) -> Tensor:
    """One more than the scale."""
    return y + F.layer_norm(x, module.normalized_shape, eps=module.eps)


def other_norm(site: Site) -> str:
    """The first norm's weights for the second."""
    first, second = (site.module(name) for name in site.port.names.norms)
    after(second, lambda module, x, _: F.layer_norm(x, module.normalized_shape, first.weight, first.bias, module.eps))
    return site.ours("norm2")


# Linear maps


def linear(site: Site, change: Change, parts: tuple[str, ...] = ("up", "down", "out")) -> str:
    """A linear map of the block that gives something else."""
    part = str(site.random.choice([part for part in parts if getattr(site.port.names, part) is not None]))
    after(site.module(getattr(site.port.names, part)), change)
    return site.ours({"up": "mlp.up", "down": "mlp.down", "out": "attention"}[part])


def transposed(site: Site) -> str:
    """A square kernel that was not transposed."""
    module = site.module(site.port.names.out)
    after(module, lambda module, x, _: x @ module.weight + module.bias)
    return site.ours("attention")


def scaled(site: Site) -> str:
    """A branch of the block times something near to one."""
    factor = 1 + site.size(-0.1, 0.1, -1e-2, 1e-3, -1e-3)
    return linear(site, lambda module, x, y: factor * y, ("down", "out"))


def layer_scaled(site: Site) -> str:
    """A branch times a vector near to one, as layer scale that was left out on our side."""
    gamma = torch.tensor(1 + site.size(*SMALL) * site.random.normal(size=site.port.size.width))
    return linear(site, lambda module, x, y: y * gamma.to(y.dtype), ("down", "out"))


def one_row_scaled(site: Site) -> str:
    """One output feature times something near to one."""
    row, factor = int(site.random.integers(site.port.size.width)), 1 + site.size(*SMALL)

    def change(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        factors = torch.ones(y.shape[-1], dtype=y.dtype)
        factors[row] = factor
        return y * factors

    return linear(site, change)


def swapped_features(site: Site) -> str:
    """Two neighbouring output features swapped."""
    row = int(site.random.integers(site.port.size.width - 1))

    def change(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        order = torch.arange(y.shape[-1])
        order[row], order[row + 1] = row + 1, row
        return y[..., order]

    return linear(site, change)


def narrow(site: Site) -> str:
    """One linear map computed in a narrower type than all else."""
    first = next(site.port.theirs.parameters()).dtype
    kinds = {torch.float32: (torch.float16, torch.bfloat16), torch.bfloat16: (torch.float8_e4m3fn,)}[first]
    kind = kinds[int(site.random.integers(len(kinds)))]

    def change(module: Any, x: Tensor, y: Tensor) -> Tensor:
        return F.linear(x.to(kind).to(y.dtype), module.weight.to(kind).to(y.dtype), module.bias)

    return linear(site, change)


def last_token_lost(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Zeros for the last token of each example."""
    del module, x
    return torch.cat([y[:, :-1], torch.zeros_like(y[:, -1:])], dim=1)


def soft_cap(site: Site) -> str:
    """Outputs that cannot grow beyond a cap."""
    cap = site.size(10, 30, 100)
    return linear(site, lambda module, x, y: cap * torch.tanh(y / cap))


def activation(site: Site) -> str:
    """Another activation between the two maps of the feed-forward network."""
    names, kept = site.port.names, {}
    ours = {"tutorial": "gelu_tanh", "nn.Transformer": "relu"}.get(site.port.kind, "gelu")
    kind = str(site.random.choice(sorted(ACTIVATIONS.keys() - {ours})))
    site.module(names.up).register_forward_hook(lambda module, given, result: kept.update(hidden=result))
    before(site.module(names.down), lambda _: ACTIVATIONS[kind](kept["hidden"]))
    return site.ours("mlp")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": F.silu,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "none": lambda x: x,
}
