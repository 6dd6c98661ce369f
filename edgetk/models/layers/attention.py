"""Softmax attention over tokens, whole and with keys and values of a coarser grid.

Sources: Vaswani et al. 2017, arXiv:1706.03762, eq. 1; spatial reduction: Wang et al. 2021 (PVT), arXiv:2102.12122, eq. 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: height and width of the grid that tokens lie on, row by row
Grid = tuple[int, int]


def split_heads(x: Tensor, heads: int) -> Tensor:
    """x (B, N, C) -> (B, H, N, C / H)."""
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """x (B, H, N, d) -> (B, N, H * d)."""
    return x.transpose(1, 2).flatten(2)


def to_tokens(image: Tensor) -> Tensor:
    """image (B, C, height, width) -> tokens (B, N, C), row by row."""
    return image.flatten(2).transpose(1, 2)


def to_image(x: Tensor, grid: Grid) -> Tensor:
    """tokens (B, N, C) -> image (B, C, height, width)."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], *grid)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for q (…, N, d), k and v (…, M, d)."""
    weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1), dim=-1)
    return weights.to(v.dtype) @ v


class SoftmaxAttention(nn.Module):
    """Every token sees every token; x (B, N, C) -> (B, N, C). `qkv` is one layer whose outputs are q, k, v in this order."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.width = dim // heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    @property
    def heads(self) -> int:
        """As many as `proj` reads."""
        return self.proj.in_features // self.width

    def forward(self, x: Tensor, grid: Grid | None = None) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        y: Tensor = self.proj(merge_heads(softmax_attention(q, k, v)))
        return y


class ReducedAttention(nn.Module):
    """Softmax attention whose keys and values come from the tokens' grid, made `reduction` times coarser by a convolution."""

    def __init__(self, dim: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.width, self.reduction = dim // heads, reduction
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.reduce = nn.Conv2d(dim, dim, reduction, stride=reduction) if reduction > 1 else None
        self.norm = nn.LayerNorm(dim) if reduction > 1 else None

    @property
    def heads(self) -> int:
        """As many as `proj` reads."""
        return self.proj.in_features // self.width

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """x (B, N, C) with N = height * width -> (B, N, C)."""
        coarse = x
        if self.reduce is not None and self.norm is not None:
            coarse = self.norm(to_tokens(self.reduce(to_image(x, grid))))
        k, v = (split_heads(part, self.heads) for part in self.kv(coarse).chunk(2, dim=-1))
        y: Tensor = self.proj(merge_heads(softmax_attention(split_heads(self.q(x), self.heads), k, v)))
        return y
