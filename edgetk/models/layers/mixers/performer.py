"""Performer: linear attention with positive random features that estimate the softmax kernel without bias.

Source: Choromanski et al. 2020, arXiv:2009.14794, lemma 1 and section 2.4: phi(x) = exp(w x - |x|^2 / 2) / sqrt(m) for
x = q / d^(1/4), with m directions w that are orthogonal in blocks of d and as long as Gaussian ones.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from edgetk.models.layers.mixers._contract import Mixer
from edgetk.models.layers.mixers.linear import weighted
from edgetk.models.layers.precision import at_least_float32, no_autocast


class Performer(Mixer):
    """`features` random directions, the same for all heads, drawn once and stored."""

    complexity: ClassVar[str] = "(2 m d + 2 m d) N a head for m features; m d sums a head"
    few_queries: ClassVar[bool] = True

    def __init__(self, heads: int, width: int, length: int, features: int = 256) -> None:
        super().__init__(heads, width, length)
        self.register_buffer("directions", _directions(features, width))
        self.directions: Tensor

    def forward(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None = None, first: int = 0) -> Tensor:
        with no_autocast(v):
            # subtracting any one number of all queries' exponents, or of all keys', cancels; for a query it may be its own
            queries, keys = self._exponents(q), self._exponents(k)
            if real is not None:
                keys = torch.where(real[:, None, :, None], keys, -torch.inf)
            phi_q = torch.exp(queries - queries.amax(-1, keepdim=True))
            phi_k = torch.exp(keys - keys.amax((-2, -1), keepdim=True))
            return weighted(phi_q, phi_k, at_least_float32(v)).to(v.dtype)

    def _exponents(self, x: Tensor) -> Tensor:
        x = at_least_float32(x) * self.width**-0.25
        return x @ self.directions.transpose(0, 1) - x.square().sum(-1, keepdim=True) / 2

    def macs(self, tokens: int) -> int:
        features = self.directions.shape[0]
        return self.heads * tokens * features * (2 * self.width + 2 * self.width + 1)

    def macs_of(self, tokens: int, asked: int) -> int:
        features, width = self.directions.shape[0], self.width
        return self.heads * features * (tokens * 2 * width + asked * (2 * width + 1))


def _directions(features: int, width: int) -> Tensor:
    """(m, d), from torch's default generator."""
    rows = []
    for _ in range(-(-features // width)):
        q, _ = torch.linalg.qr(torch.randn(width, width))
        rows.append(q.T * torch.randn(width, width).norm(dim=1, keepdim=True))
    return torch.cat(rows)[:features]


MIXER = Performer
