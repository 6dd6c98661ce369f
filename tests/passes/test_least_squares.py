"""Closed forms against brute force: least squares on the data itself, not on its moments."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from edgetk.passes import _least_squares as ls
from edgetk.passes._least_squares import Point, cheapest, eliminate, low_rank, output_variance, refit
from edgetk.passes._statistics import Collector, Moments

ROWS = 200


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the ridge the closed forms are exact."""
    monkeypatch.setattr(ls, "RIDGE", 0.0)


def draw(width: int, seed: int = 0, mean: float = 1.0) -> Tensor:
    """Correlated inputs with a mean, (ROWS, width)."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator)
    return (torch.randn(ROWS, width, generator=generator) @ mix + mean * torch.randn(width, generator=generator)).double()


def moments(z: Tensor) -> Moments:
    collector = Collector()
    for part in z.split(64):
        collector.add(part)
    return collector.moments()


def brute(z: Tensor, weight: Tensor, columns: list[int], constant: bool = True) -> tuple[float, Tensor]:
    """Squared error per row of the best weights on `columns` (and a constant), and these weights (columns, out)."""
    x = torch.cat([z[:, columns], torch.ones(len(z), int(constant))], dim=1).double()
    y = z @ weight.double().T
    solved = torch.linalg.lstsq(x, y).solution
    return float((x @ solved - y).square().sum() / len(z)), solved


def test_moments_are_means_over_all_rows_added() -> None:
    z = draw(3)
    found = moments(z)
    wide = torch.cat([z, torch.ones(ROWS, 1)], dim=1)
    torch.testing.assert_close(found.second, wide.T @ wide / ROWS)
    torch.testing.assert_close(found.mean, z.mean(0))
    torch.testing.assert_close(found.covariance, z.T.cov(correction=0))


def test_a_small_variance_beside_a_large_mean_is_not_lost() -> None:
    z = (1000 + torch.randn(ROWS, 2)).float()
    torch.testing.assert_close(moments(z).covariance, z.double().T.cov(correction=0), rtol=1e-6, atol=0)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("bias", [True, False])
def test_refit_is_least_squares(bias: bool) -> None:
    z, weight, keep = draw(7), torch.randn(4, 7), [0, 2, 5]
    start = torch.randn(4) if bias else None
    found, constant = refit(weight, start, moments(z), keep)
    _, solved = brute(z, weight, keep, constant=bias)
    torch.testing.assert_close(found.double(), solved[:3].T, rtol=1e-4, atol=1e-4)
    if start is None:
        assert constant is None
    else:
        torch.testing.assert_close(constant.double(), solved[3] + start.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("exact")
def test_refit_on_all_inputs_changes_nothing() -> None:
    weight, bias = torch.randn(4, 7), torch.randn(4)
    found = refit(weight, bias, moments(draw(7)), list(range(7)))
    torch.testing.assert_close(found, (weight, bias), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("taps", [1, 2])
def test_every_point_of_elimination_is_the_least_squares_error(taps: int) -> None:
    channels = 5
    z, weight = draw(taps * channels), torch.randn(3, taps * channels)
    total = output_variance(weight, moments(z))
    assert total == pytest.approx(float((z @ weight.double().T).var(0, correction=0).sum()))
    path = eliminate(weight, moments(z), taps, smallest=1)
    assert [len(p.keep) for p in path] == [5, 4, 3, 2, 1]
    for before, point in itertools.pairwise(path):
        errors = {}
        for gone in before.keep:
            kept = [c for c in before.keep if c != gone]
            errors[gone], _ = brute(z, weight, [tap * channels + c for tap in range(taps) for c in kept])
        (gone,) = point.gone
        assert errors[gone] == pytest.approx(min(errors.values()), rel=1e-6), "the cheapest channel goes"
        assert set(point.keep) == set(before.keep) - {gone}
        assert point.error == pytest.approx(errors[gone] / total, rel=1e-5, abs=1e-9)


@pytest.mark.usefixtures("exact")
def test_blocks_go_together_in_wide_layers() -> None:
    z, weight = draw(52), torch.randn(3, 52)
    path = eliminate(weight, moments(z), 1, smallest=40)
    assert [len(p.keep) for p in path] == [52, 50, 48, 46, 45, 44, 43, 42, 41, 40]
    error, _ = brute(z, weight, list(path[1].keep))
    assert path[1].error == pytest.approx(error / output_variance(weight, moments(z)), rel=1e-4)


def test_channels_that_copy_others_cost_nothing() -> None:
    z = draw(6)
    z[:, 4] = z[:, 1]
    z[:, 5] = 0.0
    path = eliminate(torch.randn(3, 6), moments(z), 1, smallest=4)
    assert 5 not in path[-1].keep
    assert {1, 4} & set(path[-1].keep)
    assert path[-1].error < 1e-3


def test_dead_inputs_are_no_error() -> None:
    dead = moments(torch.zeros(ROWS, 4))
    assert [len(p.keep) for p in eliminate(torch.randn(2, 4), dead, 1, 2)] == [4, 3, 2]
    assert bool(low_rank(torch.randn(2, 4), dead)[2].isfinite().all())
    weight, _ = refit(torch.randn(2, 4), torch.zeros(2), dead, [0, 1])
    assert bool(weight.isfinite().all())


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("bias", [True, False])
def test_low_rank_errors_are_the_best_there_are_and_the_measured_ones(bias: bool) -> None:
    z, weight = draw(8), torch.randn(5, 8).double()
    u, v, error = low_rank(weight, moments(z), bias)
    x = z - z.mean(0) if bias else z
    y = x @ weight.T
    singular = torch.linalg.svdvals(y).square()
    assert len(error) == 6
    for rank in range(6):
        measured = (y - x @ (u[:, :rank] @ v[:rank]).T).square().sum() / y.square().sum()
        assert float(error[rank]) == pytest.approx(float(measured), abs=1e-9)
        assert float(error[rank]) == pytest.approx(float(singular[rank:].sum() / singular.sum()), abs=1e-9)


def test_cheapest_takes_back_the_dearest_of_the_last_block() -> None:
    path = [Point((0, 1, 2, 3, 4, 5), 0.0), Point((0, 3, 5), 0.1, gone=(4, 1, 2)), Point((3,), 0.2, gone=(5, 0))]
    assert cheapest(path, 6) == [0, 1, 2, 3, 4, 5]
    assert cheapest(path, 5) == [0, 1, 2, 3, 5]
    assert cheapest(path, 4) == [0, 2, 3, 5]
    assert cheapest(path, 3) == [0, 3, 5]
    assert cheapest(path, 2) == [0, 3]
    assert cheapest(path, 1) == [3]
