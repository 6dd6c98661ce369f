"""Sparse Transformer: half of the heads see their own block, the other half the last tokens of every block.

Source: Child et al. 2019, arXiv:1904.10509, section 4.2 ("fixed" patterns, blocks of 128 and summaries of 32), here without the
causal mask, since an encoder sees the whole input.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from edgetk.models.layers.mixers._contract import Mixer, attend, block_bias, blocks, whole


class Sparse(Mixer):
    """Heads of even number: blocks of `block`; of odd number: the last `summary` tokens of each block."""

    complexity: ClassVar[str] = "2 b N d, and 2 N² d c / b, by turns of the heads, for summaries of c in blocks of b"

    def __init__(self, heads: int, width: int, length: int, block: int = 128, summary: int = 32) -> None:
        super().__init__(heads, width, length)
        self.block, self.summary = block, min(summary, block)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None = None, first: int = 0) -> Tensor:
        tokens, size = q.shape[2], self.block
        shown = block_bias(real, tokens, size, q.device)
        parts: list[Tensor | None] = [None] * q.shape[1]
        for odd in (0, 1):
            heads = [h for h in range(q.shape[1]) if (first + h) % 2 == odd]
            if not heads:
                continue
            mine, keys, values = (x[:, heads] for x in (q, k, v))
            if odd:
                keys, values = (blocks(x, size)[:, :, :, -self.summary :].flatten(2, 3) for x in (keys, values))
                y = attend(mine, keys, values, shown[:, :, -self.summary :].flatten(1)[:, None, None, :])
            else:
                mine, keys, values = (blocks(x, size) for x in (mine, keys, values))
                y = whole(attend(mine, keys, values, shown[:, None, :, None, :]), tokens)
            for i, h in enumerate(heads):
                parts[h] = y[:, i]
        return torch.stack([part for part in parts if part is not None], dim=1)

    def macs(self, tokens: int) -> int:
        count = -(-tokens // self.block)
        even, odd = -(-self.heads // 2), self.heads // 2
        return 2 * self.width * (even * count * self.block * self.block + odd * tokens * count * self.summary)


MIXER = Sparse
