"""Softmax attention of one query that never changes, multiplied out: scores by a vector a head, values after the weighted mean.

With q_h the query of head h, W_k and W_v the projections of keys and values, and a norm γ x̂ + β in front,

    softmax_n(q_h · W_k,h (γ x̂_n + β) / √d) = softmax_n(u_h · x̂_n),   u_h = γ ⊙ W_k,hᵀ q_h / √d      (β adds the same to all n)
    Σ_n p_n W_v,h (γ x̂_n + β) = (W_v,h γ) Σ_n p_n x̂_n + W_v,h β                                      (the p_n sum up to 1)

N tokens of width C and H heads take 2 N H C multiply-accumulates, and the projections once, in the place of 2 N C H d: the
same function, exactly but for rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgetk.models.layers.mixers import MASKED


class PooledAttention(nn.Module):
    """Normalised tokens x (B, N, C), real (B, N) -> (B, 1, C): what the one query reads from all tokens."""

    def __init__(self, dim: int, heads: int, width: int) -> None:
        super().__init__()
        self.keys = nn.Linear(dim, heads, bias=False)
        self.values = nn.Conv1d(heads * dim, heads * width, 1, groups=heads)
        self.proj = nn.Linear(heads * width, dim, bias=False)

    @classmethod
    @torch.no_grad()
    def of(cls, attention: Any, norm: nn.LayerNorm, query: Tensor) -> PooledAttention:
        """Of attention with `to_q`, `to_k`, `to_v`, `proj`, `heads`, `width` behind `norm`; `query` (C,) is what asks."""
        heads, width, scale, shift = attention.heads, attention.width, norm.weight, norm.bias
        made = cls(norm.normalized_shape[0], heads, width)
        asked = attention.to_q(norm(query)).view(heads, 1, width) * width**-0.5
        made.keys.weight.copy_((asked @ attention.to_k.weight.view(heads, width, -1))[:, 0] * scale)
        assert made.values.bias is not None
        made.values.weight.copy_((attention.to_v.weight * scale)[..., None])
        made.values.bias.copy_(attention.to_v.weight @ shift)
        made.proj.weight.copy_(attention.proj.weight)
        return made.to(query.device)

    def forward(self, x: Tensor, real: Tensor | None = None, wanted: int | None = None) -> Tensor:
        y: Tensor = self.proj(self.read(x, real).transpose(1, 2))
        return y

    def read(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """What the heads read, one after the other: (B, H d, 1)."""
        scores = self.keys(x).transpose(1, 2)
        if real is not None:
            scores = scores + torch.where(real, 0.0, MASKED)[:, None, :].to(scores.dtype)
        pooled = torch.softmax(scores, dim=-1).to(x.dtype) @ x
        y: Tensor = self.values(pooled.flatten(1)[..., None])
        return y


__all__ = ["PooledAttention"]
