"""The parts of a MemoryFormer: rotary positions, attention without an output projection, a block of tables and its dense twin.

Sources: MemoryFormer, Ding et al., NeurIPS 2024, arXiv:2411.12992, eq. 13 (its inner norm reads the sum, as in the authors'
code); rotary positions on a quarter of each head as in GPT-NeoX: Su et al. 2021, arXiv:2104.09864, eq. 34.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.models.layers.attention import merge_heads, split_heads
from edgetk.models.layers.elements import gone
from edgetk.models.layers.memory_hash import Weighting
from edgetk.models.layers.memory_layer import MemoryLayer

ROTARY_SHARE = 0.25
ROTARY_BASE = 10000.0


class Rotary(nn.Module):
    """Turns the first coordinates of queries and keys (B, H, N, d) by angles that grow with the token's place."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.turned = max(1, int(width * ROTARY_SHARE) // 2)
        speed = ROTARY_BASE ** -(torch.arange(self.turned) / self.turned)
        angles = torch.arange(tokens)[:, None] * speed
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        a, b, rest = torch.split(x, [self.turned, self.turned, x.shape[-1] - 2 * self.turned], dim=-1)
        cosine, sine = self.cosine[: x.shape[2]].to(x.dtype), self.sine[: x.shape[2]].to(x.dtype)
        return torch.cat([a * cosine - b * sine, b * cosine + a * sine, rest], dim=-1)


def attend(qkv: Tensor, heads: int, rotary: Rotary, causal: bool) -> Tensor:
    """Softmax attention of queries, keys and values that lie beside each other: (B, N, 3 C) -> (B, N, C)."""
    q, k, v = (split_heads(part, heads) for part in qkv.chunk(3, dim=-1))
    return merge_heads(F.scaled_dot_product_attention(rotary(q), rotary(k), v, is_causal=causal))


class MemoryBlock(nn.Module):
    """x (B, N, C) += attention(qkv(norm(x))); += reduce(norm(expand(norm(x)))), both feed-forward layers and `qkv` of tables.

    `expand` emits (tau + extra) features for each of its K tables, so that `reduce` has as many tables of 2^(tau + extra) rows.
    Nothing stands between attention and residual, and no activation between the two. Either sum may be gone.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        bits: int,
        extra: int,
        weighting: Weighting,
        temperature: float,
        std: float | None,
        causal: bool,
        who: str,
    ) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        table = partial(MemoryLayer, weighting=weighting, temperature=temperature, std=std)
        hidden = dim // bits * (bits + extra)
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = table(dim, 3 * dim, bits, who=f"{who}.qkv")
        self.norm2 = nn.LayerNorm(dim)
        self.expand = table(dim, hidden, bits, who=f"{who}.expand")
        self.norm3 = nn.LayerNorm(hidden)
        self.reduce = table(hidden, dim, bits + extra, who=f"{who}.reduce")

    def forward(self, x: Tensor, rotary: Rotary) -> Tensor:
        if not gone(self.qkv):
            x = x + attend(self.qkv(self.norm1(x)), self.heads, rotary, self.causal)
        if not gone(self.reduce):
            x = x + self.reduce(self.norm3(self.expand(self.norm2(x))))
        return x


class DenseBlock(nn.Module):
    """The block it is compared with: x += proj(attention(qkv(norm(x)))); x += reduce(gelu(expand(norm(x)))), 4 C hidden.

    Either sum may be gone, and heads.
    """

    def __init__(self, dim: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.width, self.causal = dim // heads, causal
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 4 * dim)
        self.reduce = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor, rotary: Rotary) -> Tensor:
        if gone(self.qkv) and not gone(self.proj):
            x = x + self.proj(x)  # no head is left: the bias
        elif not gone(self.proj):
            x = x + self.proj(attend(self.qkv(self.norm1(x)), self.heads, rotary, self.causal))
        if not gone(self.reduce):
            x = x + self.reduce(F.gelu(self.expand(self.norm2(x))))
        return x

    @property
    def heads(self) -> int:
        """As many as `proj` reads."""
        return self.proj.in_features // self.width
