"""A matrix as dictionary times sparse coefficients: exact projection, sparse coding, and the alternation of the two.

A (short, long) ~ D S with D (short, r) and S (r, long), s non-zeros in each column. Sources: hard thresholding pursuit, Foucart
2011, SIAM J. Numer. Anal. 49; alternating dictionary learning (method of optimal directions), Engan et al. 1999, ICASSP.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: gradient steps between two exact fits
STEPS = 15
#: ridge of exact fits, as a share of the mean diagonal
RIDGE = 1e-6
TINY = 1e-30


@dataclass(frozen=True)
class Factors:
    """D (short, r) with columns of norm 1, and S (r, long)."""

    dictionary: Tensor
    coefficients: Tensor

    def product(self) -> Tensor:
        return self.dictionary @ self.coefficients


def support(shadow: Tensor, nonzeros: int, grouped: bool = False) -> Tensor:
    """Where the projection of (r, long) keeps a number: the `nonzeros` largest of each column, or the largest of each of
    that many groups of rows. Boolean; of equal ones the lowest row is kept.
    """
    size = shadow.abs()
    if grouped:
        groups = size.reshape(nonzeros, -1, size.shape[1])
        first = groups.argmax(1, keepdim=True)  # of equals the first: `max` promises nothing, a comparison does
        ranks = torch.arange(groups.shape[1], device=size.device)[None, :, None]
        equal = torch.where(groups == groups.gather(1, first), ranks, groups.shape[1])
        return (ranks == equal.amin(1, keepdim=True)).reshape(size.shape)
    least = size.topk(nonzeros, dim=0).values[-1]
    above, equal = size > least, size == least
    return above | (equal & (equal.cumsum(0) <= nonzeros - above.sum(0)))


def project(shadow: Tensor, nonzeros: int, grouped: bool = False) -> Tensor:
    """The nearest matrix (Euclidean) with `nonzeros` in each column; see `support`."""
    return shadow * support(shadow, nonzeros, grouped)


def normalised(factors: Factors) -> Factors:
    """The same product with dictionary columns of norm 1; a column of zeros stays one."""
    norms = factors.dictionary.norm(dim=0)
    safe = torch.where(norms > 0, norms, torch.ones_like(norms))
    return Factors(factors.dictionary / safe, factors.coefficients * safe[:, None])


def pursue(matrix: Tensor, factors: Factors, nonzeros: int, grouped: bool = False, steps: int = STEPS) -> Tensor:
    """Better coefficients for a fixed dictionary: `steps` of gradient and projection, from those that are there."""
    d = factors.dictionary
    gram, target = d.T @ d, d.T @ matrix
    step = 1.0 / largest(gram)
    s = factors.coefficients
    for _ in range(steps):
        s = project(s + step * (target - gram @ s), nonzeros, grouped)
    return s


def refit(matrix: Tensor, dictionary: Tensor, kept: Tensor, nonzeros: int) -> Tensor:
    """The best coefficients (r, long) on a support with `nonzeros` in each column: least squares, column by column."""
    rows = kept.to(torch.int8).argsort(dim=0, descending=True, stable=True)[:nonzeros].T  # (long, s)
    gram, target = dictionary.T @ dictionary, dictionary.T @ matrix
    right = target.T.gather(1, rows)[..., None]
    solved = torch.empty_like(right)
    chunk = max(1, 2**24 // nonzeros**2)  # bounds the memory of all columns' systems
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        systems = gram[part[:, :, None], part[:, None, :]]
        ridge = RIDGE * systems.diagonal(dim1=1, dim2=2).mean(1).clamp_min(TINY)
        systems = systems + ridge[:, None, None] * torch.eye(nonzeros, dtype=gram.dtype, device=gram.device)
        factor = torch.linalg.cholesky_ex(systems).L
        solved[start : start + chunk] = torch.cholesky_solve(right[start : start + chunk], factor)
    return torch.zeros_like(target).scatter(0, rows.T, solved[..., 0].T)


def best_dictionary(matrix: Tensor, coefficients: Tensor, metric: Tensor | None = None) -> Tensor:
    """The best dictionary for fixed coefficients: A C S^T (S C S^T)^-1, C (long, long) the metric of the long axis or none.

    Atoms that nobody uses become zero.
    """
    weighted = coefficients if metric is None else coefficients @ metric
    gram = weighted @ coefficients.T
    ridge = RIDGE * gram.diagonal().mean().clamp_min(TINY)
    gram = gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky_ex(gram).L
    half = torch.linalg.solve_triangular(factor, weighted @ matrix.T, upper=False)
    solved: Tensor = torch.linalg.solve_triangular(factor.T, half, upper=True)
    return solved.T


def improve(
    matrix: Tensor, factors: Factors, nonzeros: int, grouped: bool = False, steps: int = STEPS, metric: Tensor | None = None
) -> Factors:
    """One round: pursue, refit, then the best dictionary, its norms pushed into the coefficients."""
    kept = support(pursue(matrix, factors, nonzeros, grouped, steps), nonzeros, grouped)
    s = refit(matrix, factors.dictionary, kept, nonzeros)
    return normalised(Factors(best_dictionary(matrix, s, metric), s))


def start(matrix: Tensor, rank: int, generator: torch.Generator | None = None) -> Factors:
    """A dictionary of `rank` columns of the matrix drawn without repetition, normalised, and no coefficients yet.

    Where the matrix has fewer columns, the rest is random. `generator` is of the CPU.
    """
    order = torch.randperm(matrix.shape[1], generator=generator)[:rank].to(matrix.device)
    columns = matrix[:, order]
    if len(order) < rank:
        more = torch.randn(matrix.shape[0], rank - len(order), generator=generator).to(matrix)
        columns = torch.cat([columns, more], dim=1)
    dead = columns.norm(dim=0) == 0
    columns = torch.where(dead, torch.ones_like(columns), columns)
    return normalised(Factors(columns / columns.norm(dim=0), matrix.new_zeros(rank, matrix.shape[1])))


def learn(
    matrix: Tensor,
    rank: int,
    nonzeros: int,
    rounds: int = 8,
    grouped: bool = False,
    metric: Tensor | None = None,
    seed: int = 0,
) -> Factors:
    """Dictionary and coefficients of A (short, long) by `rounds` alternations from a random start, in A's type."""
    factors = start(matrix, rank, torch.Generator().manual_seed(seed))
    for _ in range(rounds):
        factors = improve(matrix, factors, nonzeros, grouped, metric=metric)
    return factors


def relative_error(matrix: Tensor, factors: Factors) -> float:
    """||A - D S|| / ||A||, Frobenius."""
    return float((matrix - factors.product()).norm() / matrix.norm().clamp_min(TINY))


def lines(coefficients: Tensor, nonzeros: int, grouped: bool = False) -> tuple[Tensor, Tensor]:
    """The projection of S (r, long) as values and rows (long, s), rows ascending; zeros fill up a column with fewer."""
    used = support(coefficients, nonzeros, grouped).to(torch.int8)
    rows = used.argsort(dim=0, descending=True, stable=True)[:nonzeros].sort(0).values
    return coefficients.gather(0, rows).T.contiguous(), rows.T.contiguous()


def largest(gram: Tensor) -> Tensor:
    """An upper bound of the largest eigenvalue, close after a few power steps; no synchronisation with a GPU."""
    v = gram.abs().sum(0)
    for _ in range(8):
        v = gram @ v
        v = v / v.norm().clamp_min(TINY)
    bound: Tensor = ((gram @ v).norm() * 1.02).clamp_min(TINY)
    return bound


__all__ = [
    "TINY",
    "Factors",
    "best_dictionary",
    "improve",
    "largest",
    "learn",
    "lines",
    "normalised",
    "project",
    "pursue",
    "refit",
    "relative_error",
    "start",
    "support",
]
