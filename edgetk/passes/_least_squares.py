"""Which inputs of a linear layer can go, and what the others must then weigh: closed forms on second moments.

Source: optimal brain surgeon (Hassibi & Stork 1993, eq. 5) for blocks of columns, with the layer's output error as the loss.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from edgetk.passes._statistics import Moments

#: ridge on the second moments, as a share of their mean diagonal: keeps dead channels from making them singular
RIDGE = 1e-4
#: share of the channels left that goes at once; the block is removed jointly, so this costs little
CHUNK = 1 / 24


@dataclass(frozen=True)
class Point:
    """What is left after some eliminations, and the share of the layer's output variance that is lost."""

    keep: tuple[int, ...]
    error: float


def regularised(moments: Moments) -> Tensor:
    """Second moments (K + 1, K + 1) with a ridge on the inputs, not on the constant."""
    second = moments.second.clone()
    width = len(second) - 1
    second[range(width), range(width)] += RIDGE * second.diagonal()[:width].mean()
    return second


def output_variance(weight: Tensor, moments: Moments) -> float:
    """Variance of W z, summed over outputs. weight (out, K)."""
    w = weight.double()
    return float(((w @ moments.covariance) * w).sum())


def eliminate(weight: Tensor, moments: Moments, taps: int, smallest: int) -> list[Point]:
    """Remove channels one small block after the other, cheapest first, until `smallest` are left.

    weight (out, taps * C), column k * C + c belonging to channel c. The constant (bias) is never removed and always refitted.
    """
    channels = weight.shape[1] // taps
    inverse = torch.linalg.inv(regularised(moments))
    w = torch.cat([weight.double(), weight.new_zeros(len(weight), 1).double()], dim=1)
    total = max(output_variance(weight, moments), 1e-30)
    alive = torch.arange(channels)
    lost, path = 0.0, [Point(tuple(range(channels)), 0.0)]
    while len(alive) > smallest:
        columns = alive[:, None] + channels * torch.arange(taps)[None, :]
        blocks = inverse[columns[:, :, None], columns[:, None, :]]
        parts = w[:, columns].permute(1, 0, 2)
        costs = (parts @ torch.linalg.inv(blocks) * parts).sum(dim=(1, 2))
        count = min(max(1, int(len(alive) * CHUNK)), len(alive) - smallest)
        gone = columns[costs.argsort()[:count]].flatten()
        middle = torch.linalg.inv(inverse[gone[:, None], gone[None, :]])
        pull = w[:, gone] @ middle
        lost += float((pull * w[:, gone]).sum())
        w = w - pull @ inverse[gone]
        inverse = inverse - inverse[:, gone] @ middle @ inverse[gone]
        w[:, gone] = 0.0
        alive = alive[~torch.isin(alive, gone % channels)]
        path.append(Point(tuple(alive.tolist()), lost / total))
    return path


def refit(weight: Tensor, bias: Tensor | None, moments: Moments, columns: list[int]) -> tuple[Tensor, Tensor | None]:
    """The best weights (out, len(columns)) and bias on a part of the inputs: least squares against all of them."""
    second = regularised(moments)
    width = weight.shape[1]
    use = torch.tensor([*columns, width] if bias is not None else columns)
    target = torch.cat([weight.double(), weight.new_zeros(len(weight), 1).double()], dim=1) @ second[:, use]
    solved = torch.linalg.solve(second[use][:, use], target.T).T
    if bias is None:
        return solved.to(weight.dtype), None
    return solved[:, :-1].to(weight.dtype), (bias.double() + solved[:, -1]).to(bias.dtype)


def low_rank(weight: Tensor, moments: Moments) -> tuple[Tensor, Tensor, Tensor]:
    """U (out, K'), V (K', K) with W ~ U[:, :r] V[:r] best for this input at every rank r, and the error of each r.

    Truncated SVD of W L with L L^T the input's covariance (Eckart & Young 1936 in the metric of the data); error[r] is the
    share of output variance lost at rank r.
    """
    covariance = moments.covariance
    covariance = covariance + RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)
    factor = torch.linalg.cholesky(covariance)
    u, s, v = torch.linalg.svd(weight.double() @ factor, full_matrices=False)
    energy = s.square()
    error = torch.cat([energy.flip(0).cumsum(0).flip(0), energy.new_zeros(1)]) / energy.sum().clamp_min(1e-30)
    right = torch.linalg.solve_triangular(factor.T, v.T, upper=True).T
    root = s.sqrt()
    return u * root, root[:, None] * right, error


def cheapest(path: list[Point], width: int) -> list[int]:
    """The `width` channels that elimination keeps longest, ascending."""
    for wide, narrow in itertools.pairwise(path):
        if len(narrow.keep) < width:
            last = [c for c in wide.keep if c not in narrow.keep]
            return sorted([*narrow.keep, *last[len(last) - (width - len(narrow.keep)) :]])
    return sorted(path[-1].keep)
