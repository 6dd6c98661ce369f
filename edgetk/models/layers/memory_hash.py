"""Hashing of a token's sub-vectors by the signs of their coordinates, and how much the chosen table row counts.

Source: MemoryFormer, Ding et al., NeurIPS 2024, arXiv:2411.12992, eq. 4 to 8. With z in R^tau and s_i = +1
where z_i >= 0, else -1:

    h(z) = sum_i (s_i + 1) / 2 * 2^i                       the first coordinate is the lowest bit
    p(z) = exp(<z, s> / t) / sum_c exp(<z, c> / t) = prod_i sigmoid(2 |z_i| / t)       c over all 2^tau corners

"p" is the paper's weight, "l1p" (|z|_1 p) that of the authors' code; "l1" and "one" leave p out. The index has no gradient: all
that reaches z goes through the weight.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from edgetk.core.errors import UsageError

Weighting = Literal["p", "l1p", "l1", "one"]
WEIGHTINGS: tuple[str, ...] = get_args(Weighting)
#: bits behind the point of a weight as int16: "p" and "one" are at most 1, the others end at 16
FRACTION_BITS = {"p": 14, "one": 14, "l1p": 11, "l1": 11}
#: highest code of a weight
TOP_CODE = {"p": 2**14, "one": 2**14, "l1p": 2**15 - 1, "l1": 2**15 - 1}
#: more bits make more rows than any memory holds
MAX_BITS = 16


def check(who: str, bits: int, weighting: str, temperature: float) -> None:
    """Raise UsageError where a hash cannot have these settings."""
    if not 1 <= bits <= MAX_BITS:
        raise UsageError(f"{who}: the bits of a hash must be in [1, {MAX_BITS}], got {bits}; correct it")
    if weighting not in WEIGHTINGS:
        raise UsageError(f"{who}: the weight must be one of {', '.join(WEIGHTINGS)}, got {weighting!r}; correct it")
    if not 0.0 < temperature < math.inf:
        raise UsageError(f"{who}: the temperature must be above 0, got {temperature}; correct it")


def split(x: Tensor, bits: int) -> Tensor:
    """Tokens x (…, K * tau) as sub-vectors (…, K, tau) that follow one another."""
    return x.reshape(*x.shape[:-1], x.shape[-1] // bits, bits)


def row(z: Tensor) -> Tensor:
    """Which row of its table each sub-vector z (…, tau) names: (…) int64 in [0, 2^tau)."""
    powers = 2 ** torch.arange(z.shape[-1], device=z.device)
    return ((z >= 0) * powers).sum(-1)


def weigh(z: Tensor, weighting: Weighting = "p", temperature: float = 1.0) -> Tensor:
    """How much the row of each sub-vector z (…, tau) counts: (…), in z's type."""
    if weighting == "one":
        return torch.ones_like(z[..., 0])
    size = z.abs()
    if weighting == "l1":
        return size.sum(-1)
    # a sum of logarithms: the gradient of a product looks for zeros, which no captured step may do
    p = F.logsigmoid(size * (2.0 / temperature)).sum(-1).exp()
    return p if weighting == "p" else size.sum(-1) * p


def fixed_point(weight: Tensor, weighting: Weighting) -> Tensor:
    """Weights as codes of int16: rounded to even with FRACTION_BITS behind the point, at most TOP_CODE; a floating type."""
    return torch.clamp(torch.round(weight * float(2 ** FRACTION_BITS[weighting])), 0.0, float(TOP_CODE[weighting]))


def most_tables(weighting: Weighting) -> int:
    """Sums of this many rows of int8 stay within int32 whatever the weights are."""
    return (2**31 - 1) // (127 * TOP_CODE[weighting])


def second_moment(weighting: Weighting, bits: int, temperature: float = 1.0) -> float:
    """E[weight^2] for z ~ N(0, 1)^tau: what the size of table entries is chosen by."""
    if weighting == "one":
        return 1.0
    z = torch.linspace(0.0, 12.0, 20001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) * math.sqrt(2 / math.pi)
    share = torch.ones_like(z) if weighting == "l1" else torch.sigmoid(2 * z / temperature).square()
    flat, first, second = (float(torch.trapezoid(density * share * z**power, z)) for power in range(3))
    if weighting == "p":
        return flat**bits
    pairs = bits * (bits - 1) * first**2 * flat ** (bits - 2) if bits > 1 else 0.0
    return bits * second * flat ** (bits - 1) + pairs


__all__ = [
    "FRACTION_BITS", "MAX_BITS", "TOP_CODE", "WEIGHTINGS", "Weighting", "check", "fixed_point", "most_tables", "row",
    "second_moment", "split", "weigh",
]  # fmt: skip
