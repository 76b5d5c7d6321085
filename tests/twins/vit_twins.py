"""The Vision Transformer "from scratch" of many tutorials, in PyTorch: what the layout `scratch` is checked against.

It has the tutorials' module names: each attention head is a module of its own, or, in the "faster" variant, all of
them share one projection. Importing this module needs torch.
"""

import math

import torch
from torch import Tensor, nn


class AttentionHead(nn.Module):
    """One head with its own query, key and value, each `dim` wide."""

    def __init__(self, width: int, dim: int, dropout: float, bias: bool):
        super().__init__()
        self.query = nn.Linear(width, dim, bias=bias)
        self.key = nn.Linear(width, dim, bias=bias)
        self.value = nn.Linear(width, dim, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`batch length width` in, `batch length dim` out."""
        query, key, value = self.query(x), self.key(x), self.value(x)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        return self.dropout(scores.softmax(-1)) @ value


class HeadsApart(nn.Module):
    """Multi-head attention as a list of heads."""

    def __init__(self, width: int, heads: int, dropout: float, bias: bool):
        super().__init__()
        self.heads = nn.ModuleList([AttentionHead(width, width // heads, dropout, bias) for _ in range(heads)])
        self.output_projection = nn.Linear(width, width)
        self.output_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`batch length width` in and out."""
        mixed = torch.cat([head(x) for head in self.heads], dim=-1)
        return self.output_dropout(self.output_projection(mixed))


class HeadsTogether(nn.Module):
    """The "faster" attention: one projection for the queries, keys and values of all heads."""

    def __init__(self, width: int, heads: int, dropout: float, bias: bool):
        super().__init__()
        self.heads = heads
        self.qkv_projection = nn.Linear(width, 3 * width, bias=bias)
        self.attn_dropout = nn.Dropout(dropout)
        self.output_projection = nn.Linear(width, width)
        self.output_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`batch length width` in and out."""
        batch, length, width = x.shape
        query, key, value = (
            part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.qkv_projection(x).chunk(3, dim=-1)
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        mixed = self.attn_dropout(scores.softmax(-1)) @ value
        return self.output_dropout(self.output_projection(mixed.transpose(1, 2).reshape(batch, length, width)))


class Perceptron(nn.Module):
    """dense_1, tanh GELU, dense_2, dropout."""

    def __init__(self, width: int, hidden: int, dropout: float):
        super().__init__()
        self.dense_1 = nn.Linear(width, hidden)
        self.activation = nn.GELU(approximate="tanh")
        self.dense_2 = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`... width` in and out."""
        return self.dropout(self.dense_2(self.activation(self.dense_1(x))))


class Block(nn.Module):
    """Pre-norm attention and perceptron, each with a residual connection."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, bias: bool, faster: bool):
        super().__init__()
        self.attention = (HeadsTogether if faster else HeadsApart)(width, heads, dropout, bias)
        self.layernorm_1 = nn.LayerNorm(width)
        self.mlp = Perceptron(width, hidden, dropout)
        self.layernorm_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """`batch length width` in and out."""
        x = x + self.attention(self.layernorm_1(x))
        return x + self.mlp(self.layernorm_2(x))


class PatchEmbeddings(nn.Module):
    """A convolution that sees each patch once."""

    def __init__(self, patch_size: int, channels: int, width: int):
        super().__init__()
        self.projection = nn.Conv2d(channels, width, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """`batch channel height width` in, `batch patch width` out."""
        return self.projection(images).flatten(2).transpose(1, 2)


class Embeddings(nn.Module):
    """Class token, patches and learned positions."""

    def __init__(self, image_size: int, patch_size: int, channels: int, width: int, dropout: float):
        super().__init__()
        self.patch_embeddings = PatchEmbeddings(patch_size, channels, width)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.randn(1, (image_size // patch_size) ** 2 + 1, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: Tensor) -> Tensor:
        """`batch channel height width` in, `batch length width` out."""
        patches = self.patch_embeddings(images)
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        return self.dropout(x + self.position_embeddings)


class Encoder(nn.Module):
    """A stack of blocks, without a norm behind the last."""

    def __init__(self, blocks: list[Block]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """`batch length width` in and out."""
        for block in self.blocks:
            x = block(x)
        return x


class VisionTransformer(nn.Module):
    """The whole model: a linear classifier of what the encoder makes of the class token."""

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        channels: int,
        width: int,
        layers: int,
        heads: int,
        hidden: int,
        classes: int,
        dropout: float = 0.0,
        qkv_bias: bool = True,
        faster: bool = False,
    ):
        super().__init__()
        self.embedding = Embeddings(image_size, patch_size, channels, width, dropout)
        self.encoder = Encoder([Block(width, heads, hidden, dropout, qkv_bias, faster) for _ in range(layers)])
        self.classifier = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """`batch channel height width` in, `batch class` out."""
        return self.classifier(self.encoder(self.embedding(images))[:, 0])
