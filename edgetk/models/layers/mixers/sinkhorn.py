"""Sinkhorn attention: tokens see their own block and one that is brought to it by a learned, nearly hard permutation of blocks.

Source: Tay et al. 2020, arXiv:2002.11296, section 3: a score for each pair of blocks from the sum of a block's keys, normalised
over rows and columns in turn (in logarithms) until it is nearly a permutation, then applied to blocks of keys and values.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from edgetk.core.errors import UsageError
from edgetk.models.layers.mixers._contract import MASKED, Mixer, attend, block_bias, blocks, whole
from edgetk.models.layers.precision import no_autocast


class Sinkhorn(Mixer):
    """Blocks of `block`; `iterations` of normalising, at `temperature`."""

    complexity: ClassVar[str] = "(4 b + N / b) N d a head for blocks of b; 2 b N scores a head"

    def __init__(
        self, heads: int, width: int, length: int, block: int = 50, iterations: int = 8, temperature: float = 0.75
    ) -> None:
        super().__init__(heads, width, length)
        self.block, self.iterations, self.temperature = block, iterations, temperature
        self.sort = nn.Linear(width, -(-length // block), bias=False)

    def permutation(self, k: Tensor) -> Tensor:
        """Blocks of keys (B, H, n, s, d) -> (B, H, n, n), rows and columns sum to 1 nearly."""
        with no_autocast(k):
            count = k.shape[2]
            scores = self.sort(k.sum(dim=3).float())[..., :count] / self.temperature
            for _ in range(self.iterations):
                scores = scores - torch.logsumexp(scores, dim=-1, keepdim=True)
                scores = scores - torch.logsumexp(scores, dim=-2, keepdim=True)
            return torch.exp(scores)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None = None, first: int = 0) -> Tensor:
        tokens, size = q.shape[2], self.block
        if tokens > self.sort.out_features * size:
            raise UsageError(
                f"mixer sinkhorn: at most {self.sort.out_features * size} tokens were planned for, got {tokens}; "
                "make it with a larger length"
            )
        if real is not None:
            k, v = k * real[:, None, :, None].to(k.dtype), v * real[:, None, :, None].to(v.dtype)
        queries, keys, values = (blocks(x, size) for x in (q, k, v))
        moves = self.permutation(keys)
        own = block_bias(real, tokens, size, q.device)[:, None]  # (B, 1, n, s)
        # a token that is brought along counts for as much as it is a real one
        share = moves @ torch.where(own > MASKED / 2, 1.0, 0.0).to(moves.dtype)
        brought = [(moves.to(x.dtype) @ x.flatten(3)).view_as(x) for x in (keys, values)]
        seen_keys, seen_values = (torch.cat([a, b], dim=3) for a, b in zip((keys, values), brought, strict=True))
        bias = torch.cat([own.expand(q.shape[0], q.shape[1], -1, -1), torch.log(share + 1e-13)], dim=-1)
        return whole(attend(queries, seen_keys, seen_values, bias[..., None, :]), tokens)

    def macs(self, tokens: int) -> int:
        count, size = -(-tokens // self.block), self.block
        sorting = count * self.width * self.sort.out_features + 2 * count * count * size * self.width + count * count * size
        return self.heads * (sorting + 2 * count * size * 2 * size * self.width)


MIXER = Sinkhorn
