"""Linformer: keys and values projected over the length, y = softmax(q (E k)^T / sqrt(d)) (E v).

Source: Wang et al. 2020, arXiv:2006.04768, eq. 7; one matrix E for keys and values of all heads (the paper's layer-wise
sharing goes further and shares it between layers).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from edgetk.models.layers.mixers._contract import Mixer, attend


class Linformer(Mixer):
    """`rank` projected positions; fewer tokens than `length` use the first columns of E."""

    complexity: ClassVar[str] = "4 r N d a head for rank r; r N scores a head"
    few_queries: ClassVar[bool] = True

    def __init__(self, heads: int, width: int, length: int, rank: int = 32) -> None:
        super().__init__(heads, width, length)
        self.projection = nn.Parameter(torch.randn(rank, length) * length**-0.5)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None = None, first: int = 0) -> Tensor:
        if real is not None:
            k, v = k * real[:, None, :, None].to(k.dtype), v * real[:, None, :, None].to(v.dtype)
        rows = self.projection[:, : k.shape[2]].to(k.dtype)
        return attend(q, rows @ k, rows @ v)

    def macs(self, tokens: int) -> int:
        return 4 * self.heads * self.projection.shape[0] * tokens * self.width

    def macs_of(self, tokens: int, asked: int) -> int:
        return 2 * self.heads * self.projection.shape[0] * (tokens + asked) * self.width


MIXER = Linformer
