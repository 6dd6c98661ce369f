"""Linear attention: y = phi(q) (phi(k)^T v) / (phi(q) sum phi(k)), phi(x) = elu(x) + 1.

Source: Katharopoulos et al. 2020, arXiv:2006.16236, eq. 4, 5 and 7.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from edgetk.models.layers.mixers._contract import Mixer
from edgetk.models.layers.precision import at_least_float32, no_autocast


def weighted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (k^T v) / (q sum k) for non-negative features q, k (B, H, N, m) and values v (B, H, N, d)."""
    total = k.sum(dim=-2, keepdim=True).transpose(-2, -1)
    y: Tensor = (q @ (k.transpose(-2, -1) @ v)) / (q @ total).clamp_min(1e-6)
    return y


class Linear(Mixer):
    """Softmax attention's exponential kernel replaced by a product of features."""

    complexity: ClassVar[str] = "2 N d² a head; d² sums a head"
    few_queries: ClassVar[bool] = True

    def forward(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None = None, first: int = 0) -> Tensor:
        with no_autocast(v):  # sums over all tokens
            features = F.elu(at_least_float32(k)) + 1
            if real is not None:
                features = features * real[:, None, :, None]
            return weighted(F.elu(at_least_float32(q)) + 1, features, at_least_float32(v)).to(v.dtype)

    def macs(self, tokens: int) -> int:
        return self.heads * tokens * (2 * self.width * self.width + self.width)

    def macs_of(self, tokens: int, asked: int) -> int:
        return self.heads * (tokens * self.width * self.width + asked * (self.width * self.width + self.width))


MIXER = Linear
