"""Selective hard attention: softmax over all tokens, of which each query keeps the largest weights, as they are.

Source: AxFormer, Nagarajan et al. 2020, arXiv:2010.03688; `edgetk.models.layers.hard_attention` has the formula.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from edgetk.models.layers.hard_attention import KEEP, mix, product_macs
from edgetk.models.layers.mixers._contract import Mixer, hidden, scores


class Hard(Mixer):
    """The `keep` largest weights of each query and head count; it has no parameters, so trained softmax attention can turn
    into it."""

    complexity: ClassVar[str] = "N² d + N K d a head for the K largest weights; N² scores a head"
    few_queries: ClassVar[bool] = True
    #: a rounding may exchange two weights that are nearly equal, of which one is kept
    hashed: ClassVar[bool] = True

    def __init__(self, heads: int, width: int, length: int, keep: int = KEEP) -> None:
        super().__init__(heads, width, length)
        self.keep = keep

    def forward(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None = None, first: int = 0) -> Tensor:
        return mix(torch.softmax(scores(q, k, hidden(real)), dim=-1).to(v.dtype), v, self.keep)

    def macs(self, tokens: int) -> int:
        return self.heads * (tokens * tokens * self.width + product_macs(tokens, self.width, self.keep))


MIXER = Hard
