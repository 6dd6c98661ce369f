"""BigBird: blocks of tokens see their neighbours, the first and the last block, and a few random ones.

Source: Zaheer et al. 2020, arXiv:2007.14062, section 2 (ITC: some blocks of the input are the global ones), blocks of 64.
"""

from __future__ import annotations

from random import Random
from typing import ClassVar

import torch
from torch import Tensor

from edgetk.models.layers.mixers._contract import MASKED, Mixer, attend, block_bias, blocks, hidden, whole


class BigBird(Mixer):
    """Blocks see three neighbours, two global blocks, which see all, and `random` ones: drawn from `seed`, for all heads."""

    complexity: ClassVar[str] = "2 (5 + r) b N d a head for r random blocks of b; (5 + r) b N scores a head"
    may_be_zero: ClassVar[tuple[str, ...]] = ("random", "seed")

    def __init__(self, heads: int, width: int, length: int, block: int = 64, random: int = 3, seed: int = 0) -> None:
        super().__init__(heads, width, length)
        self.block, self.random, self.seed = block, random, seed

    def seen(self, count: int) -> list[list[int]]:
        """Which of `count` blocks each block sees; the first and the last one see all."""
        draw = Random(self.seed)
        rows = []
        for i in range(count):
            near = {j for j in (i - 1, i, i + 1, 0, count - 1) if 0 <= j < count}
            others = [j for j in range(count) if j not in near]
            rows.append(sorted(near | set(draw.sample(others, min(self.random, len(others))))))
        return rows

    def forward(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None = None, first: int = 0) -> Tensor:
        tokens, size = q.shape[2], self.block
        count = -(-tokens // size)
        if count <= 2:  # both blocks see all
            return attend(q, k, v, hidden(real))
        rows = self.seen(count)
        most = max(map(len, rows[1:-1]))
        index = torch.tensor([(row + row[:1] * most)[:most] for row in rows[1:-1]], device=q.device)
        spare = torch.tensor([[MASKED * (j >= len(row)) for j in range(most)] for row in rows[1:-1]], device=q.device)
        shown = block_bias(real, tokens, size, q.device)
        bias = (shown[:, index] + spare[None, :, :, None]).clamp_min(MASKED).flatten(2)[:, None, :, None, :]
        keys, values = (blocks(x, size)[:, :, index].flatten(3, 4) for x in (k, v))
        queries = blocks(q, size)
        middle = attend(queries[:, :, 1:-1], keys, values, bias)
        ends = [attend(queries[:, :, i], k, v, hidden(real))[:, :, None] for i in (0, -1)]
        return whole(torch.cat([ends[0], middle, ends[1]], dim=2), tokens)

    def macs(self, tokens: int) -> int:
        count = -(-tokens // self.block)
        if count <= 2:
            return 2 * self.heads * tokens * tokens * self.width
        most = max(map(len, self.seen(count)[1:-1]))
        pairs = (count - 2) * self.block * most * self.block + 2 * self.block * tokens
        return 2 * self.heads * pairs * self.width


MIXER = BigBird
