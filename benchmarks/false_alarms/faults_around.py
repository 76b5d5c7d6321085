"""Faults around the blocks and in them as wholes, in the pixels and in the weights."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.false_alarms.faults_in_maps import without_bias
from benchmarks.false_alarms.sites import SMALL, Site, Unsuitable, after, before


def block_scaled(site: Site) -> str:
    """What a block gives times something near to one."""
    factor = 1 + site.size(-0.1, *SMALL)
    after(site.block, lambda module, x, y: factor * y)
    return site.ours()


def residual_doubled(site: Site) -> str:
    """A share of a block's input added once more."""
    share = site.size(1, 0.1, 1e-2)
    after(site.block, lambda module, x, y: y + share * x)
    return site.ours()


def block_left_out(site: Site) -> str:
    """A block that gives what it is given."""
    after(site.block, lambda module, x, y: x)
    return site.ours()


def block_twice(site: Site) -> str:
    """A block that is run on its own output."""
    forward = site.block.forward
    site.block.forward = lambda x, *args, **options: forward(forward(x, *args, **options), *args, **options)
    return site.ours()


def dropout_on(site: Site) -> str:
    """Dropout within a block, in evaluation too."""
    layers = [x for x in site.block.modules() if isinstance(x, nn.Dropout) and x.p > 0]
    if not layers:
        raise Unsuitable
    layer = layers[int(site.random.integers(len(layers)))]
    layer.train()
    layer.train = lambda mode=True: layer
    return site.ours()


# Around the blocks


def before_blocks(site: Site, change: Callable[[Tensor], Tensor]) -> str:
    """What goes into the first block changed."""
    first = site.port.theirs.get_submodule(site.port.names.block.format(i=0))
    before(first, change)
    return site.port.names.ours.format(i=0)


def class_token_zeroed(site: Site) -> str:
    """Zeros in the class token's place, its position left."""
    token = site.whole(site.port.names.class_token)

    def change(x: Tensor) -> Tensor:
        return torch.cat([x[:, :1] - token, x[:, 1:]], dim=1)

    return before_blocks(site, change)


def class_token_last(site: Site) -> str:
    """The first token behind all others."""
    site.whole(site.port.names.class_token)
    return before_blocks(site, lambda x: x.roll(-1, 1))


def positions_shifted(site: Site) -> str:
    """Each position in the next one's place."""
    table = site.whole(site.port.names.positions)

    def change(x: Tensor) -> Tensor:
        used = table.reshape(1, *table.shape[-2:])[:, : x.shape[1]].to(x.dtype)
        return x - used + used.roll(1, 1)

    return before_blocks(site, change)


def positions_scaled(site: Site) -> str:
    """Positions times something near to one."""
    table, share = site.whole(site.port.names.positions), site.size(-1, 1, *SMALL)
    return before_blocks(site, lambda x: x + share * table.reshape(1, *table.shape[-2:])[:, : x.shape[1]].to(x.dtype))


def pixels(site: Site, change: Callable[[Tensor], Tensor]) -> str:
    """Images that are prepared otherwise."""
    site.whole(site.port.names.patches)
    before(site.port.theirs, change)
    return "patch_embedding"


def patch_bias(site: Site) -> str:
    """Patches without their bias."""
    patches = site.whole(site.port.names.patches)
    shape = (-1, 1, 1) if isinstance(patches, nn.Conv2d) else (-1,)
    after(patches, lambda module, x, y: y - module.bias.reshape(shape))
    return "patch_embedding"


def head_bias(site: Site) -> str:
    """Logits without their bias."""
    after(site.whole(site.port.names.head), without_bias)
    return {"captioner": "output"}.get(site.port.kind, "head")


def temperature(site: Site) -> str:
    """Logits times something near to one."""
    factor = 1 + site.size(*SMALL)
    after(site.whole(site.port.names.head), lambda module, x, y: factor * y)
    return {"captioner": "output"}.get(site.port.kind, "head")


# Weights


def weights(site: Site, change: Callable[[Tensor], Tensor], part: str) -> str:
    """A kernel that was loaded wrongly."""
    kernel = site.module(getattr(site.port.names, part)).weight
    with torch.no_grad():
        kernel.copy_(change(kernel.clone()))
    return site.ours({"up": "mlp.up", "down": "mlp.down", "out": "attention"}[part])


def row_perturbed(site: Site) -> str:
    """A row of weights a little off."""
    part, row = str(site.random.choice(["up", "down"])), int(site.random.integers(site.port.size.width))
    noise = site.size(1e-2, 1e-1) * torch.tensor(site.random.normal(size=site.port.size.width))

    def change(kernel: Tensor) -> Tensor:
        kernel[row, : len(noise)] += (noise * kernel.std()).to(kernel.dtype)
        return kernel

    return weights(site, change, part)


def kernel_transposed(site: Site) -> str:
    """A square kernel stored the other way round."""
    return weights(site, lambda kernel: kernel.mT, "out") if site.port.names.out else row_perturbed(site)


def kernel_rounded(site: Site) -> str:
    """A kernel that went through a narrower type."""
    kernel = site.module(site.port.names.up).weight
    kind = torch.float8_e4m3fn if kernel.dtype == torch.bfloat16 else torch.float16
    return weights(site, lambda kernel: kernel.to(kind).to(kernel.dtype), "up")


def bias_element(site: Site) -> str:
    """One element of a bias a little off."""
    bias = site.module(site.port.names.down).bias
    with torch.no_grad():
        bias[int(site.random.integers(len(bias)))] += site.size(1e-2, 1e-1)
    return site.ours("mlp.down")


def norms_not_loaded(site: Site) -> str:
    """A norm's weights as it was made."""
    module = site.module(site.port.names.norms[0])
    nn.init.ones_(module.weight)
    nn.init.zeros_(module.bias)
    return site.ours("norm1")


def blocks_swapped(site: Site) -> str:
    """The maps of two neighbouring blocks' feed-forward networks swapped."""
    if site.port.size.depth < 2:
        raise Unsuitable
    first = Site(site.port, min(site.index, site.port.size.depth - 2), site.random)
    second = Site(site.port, first.index + 1, site.random)
    one, other = (x.module(site.port.names.up).weight for x in (first, second))
    with torch.no_grad():
        one.data, other.data = other.data.clone(), one.data.clone()
    return first.ours("mlp.up")
