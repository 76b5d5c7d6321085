"""The tile Vision Transformer of a homework in PyTorch: what `ViTConfig.tiles` is compared with.

Digits of 28 x 28 pixels in 4 x 4 tiles, a class token, pre-norm blocks of one head whose projection is merged, has no
bias and no projection behind it. Written as such homework is, with its ways to say where a tile is; RoPE here turns
complex numbers. Importing this module needs torch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BASE = 10_000.0
TILE, ROWS = 7, 4
LENGTH = 1 + ROWS**2


def angles(length: int, width: int) -> Tensor:
    """`length width/2`: position times frequency."""
    frequencies = BASE ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.arange(length, dtype=torch.float64)[:, None] * frequencies


def sinusoid(length: int, width: int) -> Tensor:
    """`length width`: sines in the even features, cosines in the odd ones."""
    table = torch.empty(length, width, dtype=torch.float64)
    table[:, 0::2], table[:, 1::2] = angles(length, width).sin(), angles(length, width).cos()
    return table


def rotate(x: Tensor) -> Tensor:
    """RoPE on `batch length width`: features k and k + width/2 are one complex number."""
    real, imaginary = x.chunk(2, dim=-1)
    turn = torch.polar(torch.ones(()).double(), angles(x.shape[1], x.shape[2]))
    turned = torch.complex(real, imaginary) * turn.to(torch.complex(real, imaginary).dtype)
    return torch.cat([turned.real, turned.imag], dim=-1)


class TileAttention(nn.Module):
    """One head."""

    def __init__(self, width: int, positions: str):
        super().__init__()
        self.width, self.positions = width, positions
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`batch length width` in and out."""
        q, k, v = self.to_qkv(x).split(self.width, dim=-1)
        if self.positions == "rotary":
            q, k = rotate(q), rotate(k)
        if self.positions == "multiplied":
            table = sinusoid(x.shape[1], self.width).to(x.dtype)
            q, k = q * table, k * table
        return F.softmax(q @ k.transpose(1, 2) / self.width**0.5, dim=-1) @ v


class TileBlock(nn.Module):
    """Attention and a feed-forward network with ReLU, each behind its normalisation."""

    def __init__(self, width: int, hidden: int, positions: str):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = TileAttention(width, positions)
        self.feed_forward = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """`batch length width` in and out."""
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class TileViT(nn.Module):
    """`batch 1 28 28` in, `batch class` out."""

    def __init__(self, width: int, hidden: int, layers: int, positions: str, classes: int = 10):
        super().__init__()
        self.embed = nn.Linear(TILE * TILE, width)
        self.class_token = nn.Parameter(torch.randn(width))
        self.positions = nn.Parameter(torch.randn(LENGTH, width)) if positions == "learned" else None
        self.add_sinusoid = positions == "sinusoidal"
        self.blocks = nn.ModuleList(TileBlock(width, hidden, positions) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        tiles = images[:, 0].unfold(1, TILE, TILE).unfold(2, TILE, TILE).reshape(-1, ROWS**2, TILE * TILE)
        x = torch.cat([self.class_token.expand(len(tiles), 1, -1), self.embed(tiles)], dim=1)
        if self.positions is not None:
            x = x + self.positions
        if self.add_sinusoid:
            x = x + sinusoid(LENGTH, x.shape[-1]).to(x.dtype)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))
