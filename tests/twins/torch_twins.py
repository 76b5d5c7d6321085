"""The courses' layers and models in PyTorch: what ours are compared with, and whose checkpoints they load.

Written from the recipes in `expected_tensors.json`, with the courses' names, so that a state dict fits both ways.
Importing this module needs torch.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = {"gelu": nn.GELU(), "gelu_tanh": nn.GELU(approximate="tanh"), "relu": nn.ReLU()}


class MultiHeadAttention(nn.Module):
    """Attention with `num_heads` heads; a mask is 0 or False where attention is blocked."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.1, rotary: "Rotary | None" = None):
        super().__init__()
        self.key = nn.Linear(embed_dim, embed_dim)
        self.query = nn.Linear(embed_dim, embed_dim)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.attn_drop = nn.Dropout(dropout)
        self.num_heads, self.rotary = num_heads, rotary

    def forward(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """`batch length width` in and out."""
        batch, length, width = query.shape
        q, k, v = (
            linear(x).view(batch, x.shape[1], self.num_heads, -1).transpose(1, 2)
            for linear, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        scores = q @ k.transpose(-1, -2) / math.sqrt(width / self.num_heads)
        if attn_mask is not None:
            blocked = attn_mask == 0
            # A query with nothing to attend to gets zeros, not NaN.
            scores = scores.masked_fill(blocked, float("-inf")).masked_fill(blocked.all(-1, keepdim=True), 0.0)
        weights = scores.softmax(-1)
        if attn_mask is not None:
            weights = weights.masked_fill(blocked.all(-1, keepdim=True), 0.0)
        heads = self.attn_drop(weights) @ v
        return self.proj(heads.transpose(1, 2).reshape(batch, length, width))


class FeedForwardNetwork(nn.Module):
    """fc1, activation, dropout, fc2."""

    def __init__(self, embed_dim: int, ffn_dim: int, dropout: float = 0.1, activation: str = "gelu"):
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, ffn_dim)
        self.activation = ACTIVATIONS[activation]
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(ffn_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """`batch length width` in and out."""
        return self.fc2(self.dropout(self.activation(self.fc1(x))))


class _Layer(nn.Module):
    """A residual connection around a sublayer; the course has it post-norm."""

    def __init__(self, dropout: float, norm_first: bool):
        super().__init__()
        self.norm_first, self.drop = norm_first, nn.Dropout(dropout)

    def residual(self, x: Tensor, norm: nn.Module, sublayer) -> Tensor:
        if self.norm_first:
            return x + self.drop(sublayer(norm(x)))
        return norm(x + self.drop(sublayer(x)))


class TransformerDecoderLayer(_Layer):
    """Self-attention, cross-attention, feed-forward."""

    def __init__(self, input_dim, num_heads, dim_feedforward=2048, dropout=0.1, norm_first=False, activation="gelu"):
        super().__init__(dropout, norm_first)
        self.self_attn = MultiHeadAttention(input_dim, num_heads, dropout)
        self.cross_attn = MultiHeadAttention(input_dim, num_heads, dropout)
        self.ffn = FeedForwardNetwork(input_dim, dim_feedforward, dropout, activation)
        self.norm_self = nn.LayerNorm(input_dim)
        self.norm_cross = nn.LayerNorm(input_dim)
        self.norm_ffn = nn.LayerNorm(input_dim)

    def forward(self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None) -> Tensor:
        """`batch length width` in and out; `memory` is attended to in full."""
        x = self.residual(tgt, self.norm_self, lambda h: self.self_attn(h, h, h, tgt_mask))
        x = self.residual(x, self.norm_cross, lambda h: self.cross_attn(h, memory, memory))
        return self.residual(x, self.norm_ffn, self.ffn)


class TransformerEncoderLayer(_Layer):
    """Self-attention, feed-forward."""

    def __init__(
        self, input_dim, num_heads, dim_feedforward=2048, dropout=0.1, norm_first=False, activation="gelu", rotary=None
    ):
        super().__init__(dropout, norm_first)
        self.self_attn = MultiHeadAttention(input_dim, num_heads, dropout, rotary)
        self.ffn = FeedForwardNetwork(input_dim, dim_feedforward, dropout, activation)
        self.norm_self = nn.LayerNorm(input_dim)
        self.norm_ffn = nn.LayerNorm(input_dim)

    def forward(self, src: Tensor, src_mask: Tensor | None = None) -> Tensor:
        """`batch length width` in and out."""
        x = self.residual(src, self.norm_self, lambda h: self.self_attn(h, h, h, src_mask))
        return self.residual(x, self.norm_ffn, self.ffn)


class _Stack(nn.Module):
    """Deep copies of one layer, as the course makes them: the copies draw no random numbers."""

    def __init__(self, layer: nn.Module, num_layers: int):
        super().__init__()
        self.layers = nn.ModuleList([copy.deepcopy(layer) for _ in range(num_layers)])


class TransformerDecoder(_Stack):
    """Decoder layers one after the other."""

    def forward(self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None) -> Tensor:
        """`batch length width` in and out."""
        for layer in self.layers:
            tgt = layer(tgt, memory, tgt_mask)
        return tgt


class TransformerEncoder(_Stack):
    """Encoder layers one after the other."""

    def forward(self, src: Tensor, src_mask: Tensor | None = None) -> Tensor:
        """`batch length width` in and out."""
        for layer in self.layers:
            src = layer(src, src_mask)
        return src


class PositionalEncoding(nn.Module):
    """x + P, then dropout. The table is a buffer that is not saved."""

    def __init__(self, embed_dim: int, dropout: float = 0.1, max_len: int = 5000):
        super().__init__()
        position = torch.arange(max_len, dtype=torch.float64)[:, None]
        angle = position * 10_000.0 ** (-torch.arange(0, embed_dim, 2, dtype=torch.float64) / embed_dim)
        table = torch.zeros(1, max_len, embed_dim, dtype=torch.float64)
        table[0, :, 0::2], table[0, :, 1::2] = torch.sin(angle), torch.cos(angle)[:, : embed_dim // 2]
        self.register_buffer("pe", table, persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.pe: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """`batch length width` in and out."""
        return self.dropout(x + self.pe[:, : x.shape[1]].to(x.dtype))


class LearnedPositions(nn.Module):
    """x + a learned table."""

    def __init__(self, max_len: int, embed_dim: int):
        super().__init__()
        self.position_embeddings = nn.Parameter(torch.randn(max_len, embed_dim))

    def forward(self, x: Tensor) -> Tensor:
        """`batch length width` in and out."""
        return x + self.position_embeddings[: x.shape[1]]


class Rotary(nn.Module):
    """RoPE as a multiplication of complex numbers, on `batch head length dim`."""

    def __init__(self, base: float = 10_000.0, interleaved: bool = False):
        super().__init__()
        self.base, self.interleaved = base, interleaved

    def forward(self, x: Tensor) -> Tensor:
        """Turn pair k at position p by p / base^(2k/dim)."""
        length, dim = x.shape[-2:]
        angle = torch.arange(length, dtype=x.dtype)[:, None] * self.base ** (
            -torch.arange(0, dim, 2, dtype=torch.float64).to(x.dtype) / dim
        )
        shape = (dim // 2, 2) if self.interleaved else (2, dim // 2)
        pairs = x.unflatten(-1, shape)
        pairs = pairs if self.interleaved else pairs.transpose(-1, -2)
        turned = torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(angle), angle)
        pairs = torch.view_as_real(turned)
        return (pairs if self.interleaved else pairs.transpose(-1, -2)).flatten(-2)


class PatchEmbedding(nn.Module):
    """Patches row by row, each flattened channel, row, column, then one linear map. Images are channel first."""

    def __init__(self, img_size: int, patch_size: int, in_channels: int = 3, embed_dim: int = 128):
        super().__init__()
        self.patch_size = patch_size
        self.num_patches = (img_size // patch_size) ** 2
        self.proj = nn.Linear(patch_size * patch_size * in_channels, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """`batch channel height width` to `batch patch width`."""
        return self.proj(F.unfold(x, self.patch_size, stride=self.patch_size).transpose(1, 2))


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        module.weight.data.normal_(0.0, 0.02)
        if isinstance(module, nn.Linear):
            module.bias.data.zero_()
    elif isinstance(module, nn.LayerNorm):
        module.weight.data.fill_(1.0)
        module.bias.data.zero_()


class CaptioningTransformer(nn.Module):
    """The captioning model; `word_to_idx` must hold <NULL>, and may hold <START> and <END>."""

    def __init__(self, word_to_idx, input_dim, wordvec_dim, num_heads=4, num_layers=2, max_length=50):
        super().__init__()
        self.vocab_size = len(word_to_idx)
        self._null = word_to_idx["<NULL>"]
        self._start = word_to_idx.get("<START>")
        self._end = word_to_idx.get("<END>")
        self.visual_projection = nn.Linear(input_dim, wordvec_dim)
        self.embedding = nn.Embedding(self.vocab_size, wordvec_dim, padding_idx=self._null)
        self.positional_encoding = PositionalEncoding(wordvec_dim, max_len=max_length)
        self.transformer = TransformerDecoder(TransformerDecoderLayer(wordvec_dim, num_heads), num_layers)
        self.apply(_init_weights)
        self.output = nn.Linear(wordvec_dim, self.vocab_size)

    def forward(self, features: Tensor, captions: Tensor) -> Tensor:
        """Scores of the next word at each position."""
        length = captions.shape[1]
        words = self.positional_encoding(self.embedding(captions))
        memory = self.visual_projection(features).unsqueeze(1)
        mask = torch.tril(torch.ones(length, length, device=captions.device))
        return self.output(self.transformer(words, memory, mask))

    @torch.no_grad()
    def sample(self, features: Tensor, max_length: int = 30) -> Tensor:
        """Greedy captions in the course's way: the whole prefix again for each word."""
        batch = features.shape[0]
        captions = torch.full((batch, max_length), self._null, dtype=torch.long)
        prefix = torch.full((batch, 1), self._start, dtype=torch.long)
        for t in range(max_length):
            word = self(features, prefix)[:, -1].argmax(1)
            captions[:, t] = word
            prefix = torch.cat([prefix, word[:, None]], dim=1)
        return captions


class VisionTransformer(nn.Module):
    """The course's ViT: post-norm, mean over the patches."""

    def __init__(
        self,
        img_size=32,
        patch_size=8,
        in_channels=3,
        embed_dim=128,
        num_layers=6,
        num_heads=4,
        dim_feedforward=256,
        num_classes=10,
        dropout=0.1,
    ):
        super().__init__()
        self.patch_embed = PatchEmbedding(img_size, patch_size, in_channels, embed_dim)
        self.positional_encoding = PositionalEncoding(embed_dim, dropout)
        layer = TransformerEncoderLayer(embed_dim, num_heads, dim_feedforward, dropout)
        self.transformer = TransformerEncoder(layer, num_layers)
        self.head = nn.Linear(embed_dim, num_classes)
        self.apply(_init_weights)

    def forward(self, x: Tensor) -> Tensor:
        """`batch channel height width` to `batch class`."""
        x = self.transformer(self.positional_encoding(self.patch_embed(x)))
        return self.head(x.mean(dim=1))
