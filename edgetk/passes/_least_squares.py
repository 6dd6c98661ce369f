"""Which inputs of a linear layer can go, and what the others must then weigh: closed forms on second moments.

Source: optimal brain surgeon (Hassibi & Stork 1993, eq. 5) for blocks of columns, with the layer's output error as the loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgetk.passes._statistics import Moments

#: ridge on the second moments, as a share of their mean diagonal: keeps dead channels from making them singular
RIDGE = 1e-4
#: what stands for nothing in a denominator, or as a ridge where all inputs are dead
TINY = 1e-30
#: share of the channels left that goes at once; the block is removed jointly, so this costs little
CHUNK = 1 / 24


@dataclass(frozen=True)
class Point:
    """What is left after some eliminations, what the last one took (cheapest first), and the share of the layer's output
    variance that is lost."""

    keep: tuple[int, ...]
    error: float
    gone: tuple[int, ...] = ()


def regularised(moments: Moments) -> Tensor:
    """Second moments (K + 1, K + 1) with a ridge on the inputs, not on the constant."""
    second = moments.second.clone()
    width = len(second) - 1
    second[range(width), range(width)] += RIDGE * second.diagonal()[:width].mean().clamp_min(TINY)
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
    total = max(output_variance(weight, moments), TINY)
    alive = torch.arange(channels)
    lost, path = 0.0, [Point(tuple(range(channels)), 0.0)]
    while len(alive) > smallest:
        columns = alive[:, None] + channels * torch.arange(taps)[None, :]
        blocks = inverse[columns[:, :, None], columns[:, None, :]]
        parts = w[:, columns].permute(1, 0, 2)
        costs = (parts @ torch.linalg.inv(blocks) * parts).sum(dim=(1, 2))
        count = min(max(1, int(len(alive) * CHUNK)), len(alive) - smallest)
        chosen = costs.argsort()[:count]
        gone = columns[chosen].flatten()
        middle = torch.linalg.inv(inverse[gone[:, None], gone[None, :]])
        pull = w[:, gone] @ middle
        lost += float((pull * w[:, gone]).sum())
        w = w - pull @ inverse[gone]
        inverse = inverse - inverse[:, gone] @ middle @ inverse[gone]
        w[:, gone] = 0.0
        taken = alive[chosen]
        alive = alive[~torch.isin(alive, taken)]
        path.append(Point(tuple(alive.tolist()), lost / total, tuple(taken.tolist())))
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


def low_rank(weight: Tensor, moments: Moments, bias: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """U (out, K'), V (K', K) with W ~ U[:, :r] V[:r] best for this input at every rank r, and the error of each r.

    Truncated SVD of W L with L L^T the input's covariance (Eckart & Young 1936 in the metric of the data); error[r] is the
    share of output variance lost at rank r. Without a `bias` that can take up the mean of what is lost, second moments about
    zero stand for the covariance.
    """
    metric = moments.covariance if bias else moments.second[:-1, :-1]
    metric = metric + RIDGE * metric.diagonal().mean().clamp_min(TINY) * torch.eye(len(metric), dtype=metric.dtype)
    factor = torch.linalg.cholesky(metric)
    u, s, v = torch.linalg.svd(weight.double() @ factor, full_matrices=False)
    energy = s.square()
    error = torch.cat([energy.flip(0).cumsum(0).flip(0), energy.new_zeros(1)]) / energy.sum().clamp_min(TINY)
    right = torch.linalg.solve_triangular(factor.T, v.T, upper=True).T
    root = s.sqrt()
    return u * root, root[:, None] * right, error


def cheapest(path: list[Point], width: int) -> list[int]:
    """The `width` channels that elimination keeps longest, ascending."""
    point = next(p for p in path if len(p.keep) < width or p is path[-1])
    back = width - len(point.keep)
    return sorted([*point.keep, *point.gone[len(point.gone) - back :]]) if back > 0 else sorted(point.keep)
