"""Calibration on published results: the networks as counted, the bars of leaving out, and board files that keep to the fit."""

from __future__ import annotations

import math

import pytest
from target_graphs import auto_encoder, ds_cnn

from edgetk.targets import board, published
from edgetk.targets import fit_published as fits
from edgetk.targets.count import count
from edgetk.targets.predict import predict


def test_the_networks_are_those_of_the_graphs() -> None:
    networks = published.networks()
    for name, graph in (("ds-cnn", ds_cnn()), ("auto-encoder", auto_encoder())):
        counted, told = count(graph), networks[name]
        assert told.macs == counted.macs
        products = [(op.macs, op.elements, op.rows, op.groups > 1) for op in counted.ops if op.macs]
        assert [(op.macs, op.elements, op.rows, op.groups > 1) for op in told.ops if op.macs] == products
    assert {name: work.macs for name, work in networks.items()} == {"ds-cnn": 2_656_768, "auto-encoder": 264_192}


def test_every_row_has_what_a_fit_needs() -> None:
    rows = published.rows()
    assert len(rows) == 139
    assert all(row.latency_s > 0 and row.clock_hz > 1e7 and row.network in fits.NETWORKS and row.source for row in rows)
    powers = [row.power_w for row in rows if row.power_w is not None]
    assert min(powers) > 0.004
    assert max(powers) < 0.2


def test_costs_by_hand() -> None:
    """Cycles that were made from 2 and 3 a multiply-accumulate give 2 and 3 back."""
    gemm = 2 * (2_368_000 + fits.DEPTHWISE * 288_000 + fits.OUTPUT * (9 * 8000 + 12)) + 3 * 768
    vector = 2 * fits.OUTPUT * (640 + 8 * 128 + 128 - 128 + 8) + 3 * 264_192
    found = fits.costs({"ds-cnn": gemm, "auto-encoder": vector})
    assert (found.gemm, found.gemv) == (pytest.approx(2), pytest.approx(3, rel=1e-3))
    assert (found.depthwise, found.output) == (pytest.approx(2 * fits.DEPTHWISE), pytest.approx(2 * fits.OUTPUT))


def test_the_bars_of_leaving_one_result_out() -> None:
    latency = [cell for cell in fits.leave_one_out() if cell.key.stack in fits.CALIBRATED]
    assert fits.summary(latency, 0.10).n == 56
    assert fits.summary(latency, 0.10).within >= 0.80
    energy = fits.summary(fits.energy_leave_one_out(), 0.25)
    assert (energy.n, energy.within) == (34, 1.0)


def test_a_left_out_cell_is_not_seen() -> None:
    """Changing the left out cell changes what is predicted for its partner alone, and by the same factor."""
    table = fits.cells()
    key = fits.calibrated(table)[0]
    others = {k: v for k, v in table.items() if k != key}
    before = fits.fitted_ratio(others, key)
    assert fits.fitted_ratio({**others, key: {"ds-cnn": 1.0}}, key) == before
    assert math.isfinite(before)


def test_a_stack_with_one_result_cannot_be_left_out() -> None:
    keys = fits.calibrated(fits.cells())
    assert not any(key.stack == "TFLM" for key in keys)
    assert sum(key.stack == "X-CUBE-AI" for key in keys) == 17


FITTED = {
    "stm32h7a3": ("STM32H7A3", "X-CUBE-AI", "9.0"),
    "stm32l4r5": ("STM32L4R5-P", "X-CUBE-AI", "10.2"),
    "stm32u575": ("STM32U575", "X-CUBE-AI", "10.2"),
    "stm32u385": ("STM32U385", "X-CUBE-AI", "10.2"),
    "stm32f746": ("STM32F746", "Bosch HALE", "1.0.175"),
    "nrf5340": ("nRF5340", "microTVM", ""),
    "ra8d1": ("RA8D1", "TFLM + CMSIS-NN", ""),
}


@pytest.mark.parametrize("name", FITTED)
def test_a_calibrated_board_gives_the_results_it_was_calibrated_on(name: str) -> None:
    """Two constants from two results: what is left comes from pooling, dispatch and the flash's bandwidth."""
    seen = {key: both for key, both in fits.cells().items() if (key.board, key.stack, key.version) == FITTED[name]}
    (both,) = [both for key, both in seen.items() if key.variant in ("", "CMSIS-NN")]
    target = board.load(name)
    for network, work in published.networks().items():
        latency = next(f for f in predict(work, target) if f.metric == "latency")
        assert latency.value * target.clock_hz == pytest.approx(both[network], rel=0.04)


@pytest.mark.parametrize(
    ("name", "mode", "duty", "watts"),
    [
        ("stm32h7a3", "280MHz", 0.133, 30.45e-3),
        ("stm32h7a3", "40MHz", 0.928, 16.17e-3),
        ("stm32l4r5", "120MHz", 0.561, 25.62e-3),
        ("stm32u575", "160MHz", 0.363, 11.47e-3),
        ("stm32u385", "96MHz", 0.606, 3.98e-3),
    ],
)
def test_the_published_stream_gives_the_published_power(name: str, mode: str, duty: float, watts: float) -> None:
    """The streaming wakeword of MLPerf Tiny v1.3: its duty cycle and the board's powers give its average power."""
    from edgetk.targets.always_on import duty as at

    target = board.load(f"{name}:{mode}")
    (found,) = [m for m in target.modes if m.name == mode]
    assert at(duty * 0.032, 0.032, found).average_w == pytest.approx(watts, rel=0.01)


def test_stacks_that_are_published_once_for_a_core_are_not_told_by_others() -> None:
    """Why boards calibrated on them say "unvalidated": other stacks tell 2 of their 6 results to 10 %."""
    table = fits.cells()
    errors = []
    for key, both in table.items():
        if "CMSIS-NN" in str(key) and key.board in ("nRF5340", "STM32L4R5", "RA8D1"):
            log = fits.fitted_ratio({k: v for k, v in table.items() if k != key}, key)
            off = both["ds-cnn"] * math.exp(log) / both["auto-encoder"]
            errors += [off - 1, 1 / off - 1]
            assert key not in fits.calibrated(table)
    assert sorted(round(abs(error), 2) for error in errors) == [0.02, 0.02, 0.19, 0.23, 0.35, 0.54]
