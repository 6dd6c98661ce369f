"""Every token sees every token: y = softmax(q k^T / sqrt(d)) v. Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from edgetk.models.layers.mixers._contract import Mixer, attend, hidden


class Softmax(Mixer):
    """Scaled dot-product attention."""

    complexity: ClassVar[str] = "2 N² d a head; N² scores a head"
    few_queries: ClassVar[bool] = True

    def forward(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None = None, first: int = 0) -> Tensor:
        return attend(q, k, v, hidden(real))

    def macs(self, tokens: int) -> int:
        return 2 * self.heads * tokens * tokens * self.width


MIXER = Softmax
