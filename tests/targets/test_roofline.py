"""The roofline: by hand, against published results, and as laws over every board."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from target_graphs import auto_encoder, dense, ds_cnn

from edgetk.core.figures import Figure, Missing, Predicted
from edgetk.core.target import Stack, Target
from edgetk.core.workload import Op, Workload
from edgetk.targets import board
from edgetk.targets.count import count
from edgetk.targets.roofline import fits, predict

BOARD = Target(
    name="b",
    description="",
    kind="mcu",
    power_mode="run",
    stack=Stack("s", "r"),
    clock_hz=100e6,
    cores=1,
    macs_per_cycle={"float32": 0.5, "int8": 2.0},
    mem_bytes_per_s=100e6,
    ram_bytes=1000,
    flash_bytes=10_000,
    power_w=0.1,
    overhead_s_per_op=1e-6,
)
COMPUTE = Op("Conv", "c", macs=20_000, elements=10, weight_bytes=100, activation_bytes=100, dtype="int8")
MOVE = Op("Add", "a", macs=0, elements=100, weight_bytes=0, activation_bytes=1200)
VIEW = Op("Reshape", "r", macs=0, elements=100, weight_bytes=0, activation_bytes=0)
WORK = Workload(
    (COMPUTE, MOVE, VIEW), weight_bytes=100, parameters=100, peak_activation_bytes=500, state_bytes=60, period_s=1e-3
)


def by_metric(workload: Workload, target: Target) -> dict[str, Figure]:
    figures = predict(workload, target)
    assert all(isinstance(f, (Predicted, Missing)) for f in figures)
    return {f.metric: f for f in figures}


def value(figure: Figure) -> float:
    assert isinstance(figure, Predicted), figure
    return figure.value


def reason(figure: Figure) -> str:
    assert isinstance(figure, Missing), figure
    return figure.reason


def test_by_hand() -> None:
    figures = by_metric(WORK, BOARD)
    assert list(figures) == ["flash", "ram", "latency", "energy", "realtime_factor"]
    latency = 20_000 / (2 * 100e6) + 1e-6 + 1200 / 100e6 + 1e-6
    assert value(figures["latency"]) == pytest.approx(latency)
    assert value(figures["energy"]) == pytest.approx(0.1 * latency)
    assert value(figures["realtime_factor"]) == pytest.approx(latency / 1e-3)
    assert (value(figures["flash"]), value(figures["ram"])) == (100, 560)
    assert str(figures["latency"]) == "114 µs predicted (roofline, unvalidated)"


def test_weights_are_loaded_into_the_ram_of_anything_but_a_microcontroller() -> None:
    assert fits(WORK, BOARD).ram_bytes == 560
    assert fits(WORK, replace(BOARD, kind="cpu")).ram_bytes == 660


def test_what_does_not_fit_has_no_latency() -> None:
    big = replace(WORK, weight_bytes=20_000, peak_activation_bytes=5000)
    fit = fits(big, BOARD)
    assert not fit.ok
    assert fit.reasons == ("needs 20 kB of flash, has 10 kB", "needs 5.06 kB of RAM, has 1 kB")
    figures = by_metric(big, BOARD)
    assert value(figures["flash"]) == 20_000
    for metric in ("latency", "energy", "realtime_factor"):
        assert reason(figures[metric]) == "does not fit: needs 20 kB of flash, has 10 kB; needs 5.06 kB of RAM, has 1 kB"


def test_a_board_that_does_not_say_what_it_holds_is_not_said_to_fit() -> None:
    silent = replace(BOARD, ram_bytes=None)
    assert fits(WORK, silent).ok is None
    assert fits(replace(WORK, weight_bytes=20_000), silent).reasons == ("needs 20 kB of flash, has 10 kB",)
    assert fits(replace(WORK, weight_bytes=20_000), silent).ok is False


def test_an_operator_inside_a_scan_costs_its_overhead_and_its_weights_at_every_call() -> None:
    looped = replace(WORK, ops=(Op("Mul", "s/m", 0, 10, weight_bytes=50, activation_bytes=300, calls=4),))
    latency = (4 * 50 + 300) / 100e6 + 4 * 1e-6
    assert value(by_metric(looped, BOARD)["latency"]) == pytest.approx(latency)


def test_an_unknown_number_format_runs_as_float32_and_says_so() -> None:
    odd = replace(WORK, ops=(replace(COMPUTE, dtype="float16"),))
    latency = by_metric(odd, BOARD)["latency"]
    assert value(latency) == pytest.approx(20_000 / (0.5 * 100e6) + 1e-6)
    assert isinstance(latency, Predicted)
    assert "float16 runs at the rate of float32: b gives none of its own" in latency.assumptions
    plain = by_metric(WORK, BOARD)["latency"]
    assert isinstance(plain, Predicted)
    assert not any("rate of float32" in text for text in plain.assumptions)


def test_assumed_numbers_are_said() -> None:
    latency = by_metric(WORK, replace(BOARD, sources={"macs_per_cycle.int8": "assumed: a guess"}))["latency"]
    assert isinstance(latency, Predicted)
    assert "some numbers of the board are assumed: see its sources" in latency.assumptions


def test_nothing_is_predicted_over_an_uncounted_node() -> None:
    figures = by_metric(replace(WORK, unknown=("Scan s: no rule for this operator",)), BOARD)
    text = "1 part(s) of the graph could not be counted: Scan s: no rule for this operator"
    assert [reason(figures[m]) for m in ("ram", "latency", "energy", "realtime_factor")] == [text] * 4
    assert value(figures["flash"]) == 100


def test_a_model_of_unknown_memory_is_not_said_to_fit() -> None:
    fit = fits(replace(WORK, peak_activation_bytes=0, unknown=("peak of live activations: no shape",)), BOARD)
    assert not fit.ok
    assert fit.reasons == ("RAM is not known: peak of live activations: no shape",)


def test_nothing_is_predicted_from_numbers_nobody_gave() -> None:
    figures = by_metric(WORK, replace(BOARD, clock_hz=None, macs_per_cycle={}, measurable=True))
    text = "b does not give clock_hz, macs_per_cycle.float32; it is measured, not predicted"
    assert reason(figures["latency"]) == reason(figures["energy"]) == text


def test_energy_from_joules_per_mac() -> None:
    calibration = {"source": "a paper", "joules_per_mac": {"int8": 500e-12}}
    energy = by_metric(WORK, replace(BOARD, power_w=None, calibration=calibration))["energy"]
    assert value(energy) == pytest.approx(20_000 * 500e-12)
    assert isinstance(energy, Predicted)
    assert energy.assumptions == ("joules per MAC of a paper, applied to every MAC",)
    absent = replace(WORK, ops=(replace(COMPUTE, dtype="float32"),))
    text = "b does not give power_w, nor calibration.joules_per_mac of float32"
    assert reason(by_metric(absent, replace(BOARD, power_w=None, calibration=calibration))["energy"]) == text
    assert "power_w, nor calibration.joules_per_mac of int8" in reason(by_metric(WORK, replace(BOARD, power_w=None))["energy"])


def test_the_microcontroller_against_published_results() -> None:
    """Fitted on the keyword spotter; the auto-encoder of the same round, board and stack was not used."""
    target = board.load("stm32h7a3")
    (fitted,), (held_out,) = target.calibration["fitted_on"], target.calibration["checked_on"]
    spotter, detector = by_metric(count(ds_cnn()), target), by_metric(count(auto_encoder()), target)
    assert value(spotter["latency"]) == pytest.approx(fitted["latency_s"], rel=0.02)
    assert value(spotter["energy"]) == pytest.approx(fitted["energy_j"], rel=0.02)
    assert value(detector["latency"]) == pytest.approx(held_out["latency_s"], rel=0.10)
    assert value(detector["energy"]) == pytest.approx(held_out["energy_j"], rel=0.20)


#: those that this predictor is for
BOARDS = [name for name in board.names() if board.load(name).kind != "neuromorphic"]


@pytest.mark.parametrize("name", BOARDS)
def test_every_board_gives_every_figure_or_a_reason(name: str) -> None:
    target = board.load(name)
    figures = by_metric(count(dense()), target)
    assert list(figures) == ["flash", "ram", "latency", "energy"]
    assert all(f.device == str(target) for f in figures.values())
    assert isinstance(figures["latency"], Missing) == target.measurable


@pytest.mark.parametrize("name", [name for name in BOARDS if not board.load(name).measurable])
@settings(max_examples=25, deadline=None)
@given(
    macs=st.integers(0, 10**9),
    moved=st.integers(0, 10**5),
    dtype=st.sampled_from(["float32", "float16", "int8", "int4", "float64"]),
)
def test_more_macs_never_take_less_time(name: str, macs: int, moved: int, dtype: str) -> None:
    def latency(n: int) -> float:
        op = Op("MatMul", "m", n, 1, 100, moved, dtype)
        return value(by_metric(Workload((op,), 100, 100, moved, 0), board.load(name))["latency"])

    assert latency(2 * macs) >= latency(macs) >= 0
