"""Local attention: softmax inside blocks of consecutive tokens.

Source: the baseline of Long Range Arena, Tay et al. 2020, arXiv:2011.04006, section 3.2 (its code has blocks of 50).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from edgetk.models.layers.mixers._contract import Mixer, attend, block_bias, blocks, whole


class Local(Mixer):
    """Tokens see the `block` that they are in."""

    complexity: ClassVar[str] = "2 b N d a head for blocks of b; b N scores a head"
    streams: ClassVar[str] = "its block"

    def __init__(self, heads: int, width: int, length: int, block: int = 50) -> None:
        super().__init__(heads, width, length)
        self.block = block

    def forward(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None = None, first: int = 0) -> Tensor:
        tokens = q.shape[2]
        bias = block_bias(real, tokens, self.block, q.device)[:, None, :, None, :]
        queries, keys, values = (blocks(x, self.block) for x in (q, k, v))
        return whole(attend(queries, keys, values, bias), tokens)

    def macs(self, tokens: int) -> int:
        padded = tokens + -tokens % self.block
        return 2 * self.heads * padded * self.block * self.width


MIXER = Local
