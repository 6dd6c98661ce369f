"""Random numbers for augmentation, by operations that a CUDA graph can capture: torch's default generator of the device."""

from __future__ import annotations

import torch
from torch import Tensor


def beta_table(beta: float, entries: int = 4096) -> Tensor:
    """Values of a Beta(beta, beta) variable at `entries` evenly spaced quantiles, ascending: (entries,) float32.

    Drawing one entry uniformly draws from the distribution; the samplers of torch.distributions cannot be captured.
    """
    x = torch.linspace(0.0, 1.0, 65537, dtype=torch.float64)
    density = (x * (1 - x)) ** (beta - 1)
    cdf = torch.cumulative_trapezoid(density, x)
    cdf = torch.cat((cdf.new_zeros(1), cdf / cdf[-1]))
    quantiles = (torch.arange(entries, dtype=torch.float64) + 0.5) / entries
    right = torch.searchsorted(cdf, quantiles).clamp(1, len(cdf) - 1)
    low, high = cdf[right - 1], cdf[right]
    return (x[right - 1] + (quantiles - low) / (high - low) * (x[1] - x[0])).float()


def uniform(device: torch.device, n: int, low: float, high: float) -> Tensor:
    """(n, 1) float32, uniform in [low, high)."""
    return low + (high - low) * torch.rand(n, 1, device=device)


def integers(device: torch.device, n: int, low: int, high: int) -> Tensor:
    """(n,) int64, uniform in [low, high); double precision, for float32 cannot reach every sample of a long recording."""
    drawn = torch.rand(n, device=device, dtype=torch.float64) * (high - low)
    return drawn.long().clamp_max(high - low - 1) + low


def chosen(device: torch.device, n: int, probability: float) -> Tensor:
    """(n, 1) bool, True with that probability."""
    return torch.rand(n, 1, device=device) < probability


__all__ = ["beta_table", "chosen", "integers", "uniform"]
