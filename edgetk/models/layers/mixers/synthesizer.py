"""Synthesizer: weights that are learned and do not look at the tokens, y = softmax(R1 R2^T) v.

Source: Tay et al. 2020, arXiv:2005.00743, section 3.2.3 (factorized random), rank 32.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from edgetk.models.layers.mixers._contract import Mixer, hidden


class Synthesizer(Mixer):
    """R1, R2 (H, length, rank); fewer tokens use the first rows."""

    complexity: ClassVar[str] = "N² d a head, since its scores do not depend on the input; N² weights a head"
    reads_queries: ClassVar[bool] = False
    few_queries: ClassVar[bool] = True

    def __init__(self, heads: int, width: int, length: int, rank: int = 32) -> None:
        super().__init__(heads, width, length)
        self.left = nn.Parameter(torch.randn(heads, length, rank) * rank**-0.25)
        self.right = nn.Parameter(torch.randn(heads, length, rank) * rank**-0.25)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None = None, first: int = 0) -> Tensor:
        tokens, heads = v.shape[2], slice(first, first + v.shape[1])
        scores = (self.left[heads, : q.shape[2]] @ self.right[heads, :tokens].transpose(-2, -1))[None]
        bias = hidden(real)
        if bias is not None:
            scores = scores + bias.to(scores.dtype)
        y: Tensor = torch.softmax(scores, dim=-1).to(v.dtype) @ v
        return y

    def macs(self, tokens: int) -> int:
        return self.heads * tokens * tokens * self.width


MIXER = Synthesizer
