"""The roofline: by hand, against published results, and as laws over every board."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from target_graphs import dense

from edgetk.core.figures import Figure, Missing, Predicted
from edgetk.core.target import Mode, Stack, Target
from edgetk.core.workload import Buffer, Op, Workload
from edgetk.targets import board
from edgetk.targets.count import count
from edgetk.targets.memory import fits
from edgetk.targets.predict import predict
from edgetk.targets.roofline import cycles, timed

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
COMPUTE = Op("Conv", "c", macs=20_000, elements=1000, weight_bytes=100, activation_bytes=100, dtype="int8", rows=50)
MOVE = Op("Transpose", "a", macs=0, elements=100, weight_bytes=0, activation_bytes=1200)
VIEW = Op("Reshape", "r", macs=0, elements=100, weight_bytes=0, activation_bytes=0)
WORK = Workload(
    (COMPUTE, MOVE, VIEW),
    weight_bytes=100,
    parameters=100,
    peak_activation_bytes=500,
    state_bytes=60,
    period_s=1e-3,
    buffers=(Buffer("x", 200, 0, 0), Buffer("y", 300, 0, 1)),
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
    streamed = ["realtime_factor", "duty_cycle", "average_power", "slowest_clock"]
    assert list(figures) == ["flash", "ram", "latency", "energy", *streamed]
    latency = 20_000 / (2 * 100e6) + 1e-6 + 1200 / 100e6 + 1e-6
    assert value(figures["latency"]) == pytest.approx(latency)
    assert value(figures["energy"]) == pytest.approx(0.1 * latency)
    assert isinstance(figures["energy"], Predicted)
    # 0.1 W for the 101 µs that the convolution takes, over its 20,000 multiply-accumulates
    assert figures["energy"].assumptions[1] == "a multiply-accumulate costs 505 pJ (gemm.int8)"
    assert value(figures["realtime_factor"]) == value(figures["duty_cycle"]) == pytest.approx(latency / 1e-3)
    # 300 and 200 bytes live together at step 0, the second from the next multiple of 16; two columns of 20 inputs, 2 bytes each
    assert (value(figures["flash"]), value(figures["ram"])) == (100, 304 + 200 + 60 + 80)
    assert str(figures["latency"]) == "114 µs predicted (roofline, unvalidated)"


def test_weights_are_loaded_into_the_ram_of_anything_but_a_microcontroller() -> None:
    assert fits(WORK, BOARD).ram_bytes == 644
    assert fits(WORK, replace(BOARD, kind="cpu")).ram_bytes == 564 + 100


def test_what_does_not_fit_has_no_latency() -> None:
    big = replace(WORK, weight_bytes=20_000, buffers=(Buffer("x", 5000, 0, 0),))
    fit = fits(big, BOARD)
    assert not fit.ok
    assert fit.reasons == ("needs 20 kB of flash, has 10 kB", "needs 5.14 kB of RAM, has 1 kB")
    figures = by_metric(big, BOARD)
    assert value(figures["flash"]) == 20_000
    for metric in ("latency", "energy", "realtime_factor"):
        assert reason(figures[metric]) == "does not fit: needs 20 kB of flash, has 10 kB; needs 5.14 kB of RAM, has 1 kB"


def test_a_board_that_does_not_say_what_it_holds_is_not_said_to_fit() -> None:
    silent = replace(BOARD, ram_bytes=None)
    assert fits(WORK, silent).ok is None
    assert fits(replace(WORK, weight_bytes=20_000), silent).reasons == ("needs 20 kB of flash, has 10 kB",)
    assert fits(replace(WORK, weight_bytes=20_000), silent).ok is False
    assert fits(replace(WORK, weight_bytes=10_001), silent).reasons == ("needs 10,001 B of flash, has 10,000 B",)


def test_an_operator_inside_a_scan_costs_its_overhead_and_its_weights_at_every_call() -> None:
    looped = replace(WORK, ops=(Op("Gather", "s/m", 0, 10, weight_bytes=50, activation_bytes=300, calls=4), MOVE))
    looped = replace(looped, ops=(replace(looped.ops[0], kind="Concat"),))
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


def test_an_operator_that_nobody_knows_has_a_stated_fallback() -> None:
    strange = Op("mine::Magic", "m", 0, 100, weight_bytes=0, activation_bytes=800)
    work = replace(WORK, ops=(*WORK.ops, strange), unknown=("mine::Magic m: no rule for the domain mine",))
    plain, odd = by_metric(WORK, BOARD)["latency"], by_metric(work, BOARD)["latency"]
    # a call, and each element like an exponential (40 cycles), which takes longer than its bytes
    assert value(odd) - value(plain) == pytest.approx(1e-6 + 100 * 40 / 100e6)
    assert isinstance(odd, Predicted)
    assert (
        "no cost of mine::Magic is known; fallback: a call, its bytes, and each element like an exponential" in odd.assumptions
    )
    text = "1 part(s) of the graph could not be counted, their work is missing, a lower bound: mine::Magic m: no rule for the"
    assert any(t.startswith(text) for t in odd.assumptions)


def test_shapes_that_were_assumed_are_said_and_nothing_is_said_to_fit() -> None:
    text = "h is taken to have the shape that x has"
    work = replace(WORK, assumed=(text,))
    figures = by_metric(work, BOARD)
    for metric in ("ram", "latency", "energy"):
        figure = figures[metric]
        assert isinstance(figure, Predicted)
        assert text in figure.assumptions
    assert fits(WORK, BOARD).ok is True
    assert fits(work, BOARD).ok is None


def test_a_model_of_unknown_memory_has_no_figure_but_its_flash() -> None:
    work = replace(WORK, peak_activation_bytes=0, buffers=(), unknown=("peak of live activations: no shape",))
    figures = by_metric(work, BOARD)
    text = "1 part(s) of the graph could not be counted: peak of live activations: no shape"
    assert [reason(figures[m]) for m in ("ram", "latency", "energy", "average_power")] == [text] * 4
    assert value(figures["flash"]) == 100


def test_a_model_of_unknown_memory_is_not_said_to_fit() -> None:
    fit = fits(replace(WORK, peak_activation_bytes=0, buffers=(), unknown=("peak of live activations: no shape",)), BOARD)
    assert not fit.ok
    assert fit.reasons == ("RAM is not known: peak of live activations: no shape",)


def test_nothing_is_predicted_from_numbers_nobody_gave() -> None:
    figures = by_metric(WORK, replace(BOARD, clock_hz=None, macs_per_cycle={}, measurable=True))
    text = "b does not give clock_hz, macs_per_cycle.float32; it is measured, not predicted: edgetk calibrate fits it"
    assert reason(figures["latency"]) == reason(figures["energy"]) == text


def test_energy_from_joules_per_mac() -> None:
    calibration = {"source": "a paper", "joules_per_mac": {"int8": 500e-12}}
    energy = by_metric(WORK, replace(BOARD, power_w=None, calibration=calibration))["energy"]
    assert value(energy) == pytest.approx(20_000 * 500e-12)
    assert isinstance(energy, Predicted)
    assert energy.assumptions[0] == "joules per MAC of a paper, applied to every MAC"
    absent = replace(WORK, ops=(replace(COMPUTE, dtype="float32"),))
    text = "b does not give power_w, nor calibration.joules_per_mac of float32"
    assert reason(by_metric(absent, replace(BOARD, power_w=None, calibration=calibration))["energy"]) == text
    assert "power_w, nor calibration.joules_per_mac of int8" in reason(by_metric(WORK, replace(BOARD, power_w=None))["energy"])


def test_a_rectifier_behind_a_product_and_a_chain_on_a_gpu_cost_nothing() -> None:
    relu = Op("Relu", "r", 0, 1000, 0, 2000, source="c")
    add = Op("Add", "p", 0, 100, 0, 1200, source="s")
    sub = Op("Sub", "s", 0, 100, 0, 1200)
    cpu, gpu = replace(BOARD, kind="cpu", ram_bytes=10_000), replace(BOARD, kind="gpu", ram_bytes=10_000)
    for target, fused in ((cpu, [False, True, False, False]), (gpu, [False, True, False, True])):
        rows = timed(replace(WORK, ops=(COMPUTE, relu, sub, add)), target)
        assert [row.fused for row in rows] == fused
        assert [row.seconds == 0 for row in rows] == fused


def test_weights_come_from_the_cache_that_holds_all_of_them() -> None:
    vector = Op("Gemm", "g", macs=25_000, elements=100, weight_bytes=100_000, activation_bytes=0)
    small = replace(WORK, ops=(vector,), weight_bytes=100_000)
    cached = replace(BOARD, kind="cpu", caches=((200_000.0, 1e9), (400_000.0, 5e8)), macs_per_cycle={"float32": 100.0})
    assert sum(row.memory_s for row in timed(small, cached)) == pytest.approx(100_000 / 1e9)
    assert sum(row.memory_s for row in timed(replace(small, weight_bytes=300_000), cached)) == pytest.approx(100_000 / 5e8)
    assert sum(row.memory_s for row in timed(replace(small, weight_bytes=900_000), cached)) == pytest.approx(100_000 / 100e6)
    flash = replace(cached, kind="mcu")
    assert sum(row.memory_s for row in timed(small, flash)) == pytest.approx(100_000 / 100e6)


def test_achievable_shares_and_cycles_by_kind() -> None:
    board = replace(BOARD, achievable={"gemv": 0.5, "depthwise": 0.25}, cycles={"product": 4.0, "element": 7.0})
    matrix = Op("Gemm", "g", 2000, 100, 50, 0, "int8", rows=4)
    assert cycles(matrix, board) == 2000 / 2 + 4 * 100
    assert cycles(replace(matrix, rows=1), board) == 2000 / (2 * 0.5) + 400
    assert cycles(replace(matrix, groups=8), board) == 2000 / (2 * 0.25) + 400
    assert cycles(Op("Add", "a", 0, 10, 0, 40), board) == 70
    assert cycles(Op("Exp", "e", 0, 10, 0, 40), board) == 400
    assert cycles(Op("Concat", "c", 0, 10, 0, 40), board) == 0


def test_onnx_runtime_convolves_in_integers_only_between_integers() -> None:
    board = replace(BOARD, stack=Stack("s", "onnxruntime"))
    assert cycles(COMPUTE, board) == 20_000 / 0.5
    assert cycles(replace(COMPUTE, requantized=True), board) == 20_000 / 2
    assert cycles(COMPUTE, BOARD) == 20_000 / 2


def test_average_power_and_the_slowest_clock_that_keeps_up() -> None:
    """At 100 MHz a step of 100,000 cycles takes 1 ms of its 4 ms; 50 MHz still does it, 20 MHz does not."""
    step = Op("Gemm", "g", 50_000, 1, 10, 0)
    work = Workload((step,), 10, 10, 10, 0, period_s=4e-3)
    modes = (Mode("slow", 20e6, 0.02, 0.01), Mode("middle", 50e6, 0.04, 0.01), Mode("fast", 100e6, 0.1, 0.01))
    board = replace(BOARD, overhead_s_per_op=0.0, idle_w=0.01, modes=modes)
    figures = by_metric(work, board)
    assert value(figures["duty_cycle"]) == pytest.approx(0.25)
    assert value(figures["average_power"]) == pytest.approx(0.25 * 0.1 + 0.75 * 0.01)
    slowest = figures["slowest_clock"]
    assert value(slowest) == 50e6
    assert isinstance(slowest, Predicted)
    assert slowest.assumptions == ("power mode middle: one step every 4 ms, duty cycle 50.0 %, 25 mW on average",)
    hurried = by_metric(replace(work, period_s=0.5e-3), board)
    assert reason(hurried["average_power"]) == "a step takes longer than its period of 500 µs"
    assert reason(hurried["slowest_clock"]) == "no power mode of b does a step in 500 µs"
    assert reason(by_metric(work, replace(board, modes=()))["slowest_clock"]) == "b has no power modes with clocks of their own"
    assert reason(by_metric(work, replace(board, idle_w=None))["average_power"]) == "b does not give power_w and idle_w"


def test_energy_of_operations_and_bytes_above_idle() -> None:
    prices = {"int8_mac": 2e-12, "float32_mac": 10e-12, "byte": 50e-12}
    board = replace(BOARD, joules_per=prices, idle_w=0.01)
    figures = by_metric(WORK, board)
    seconds = value(figures["latency"])
    assert value(figures["energy"]) == pytest.approx(0.01 * seconds + 20_000 * 2e-12 + (100 + 100 + 1200) * 50e-12)
    other = replace(WORK, ops=(replace(COMPUTE, dtype="int4"),))
    assert value(by_metric(other, board)["energy"]) > 20_000 * 10e-12
    assert reason(by_metric(WORK, replace(board, idle_w=None))["energy"]) == "b gives joules_per, but no idle_w to add"
    text = "b does not give joules_per.int8_mac"
    assert reason(by_metric(WORK, replace(board, joules_per={"byte": 1e-12}))["energy"]) == text


def test_a_figure_says_what_it_was_calibrated_on_and_how_far_off_that_was() -> None:
    errors = {"latency": {"n": 8, "median_error": 0.04, "where": "left out"}}
    latency = by_metric(WORK, replace(BOARD, calibration={"source": "two published rows", "errors": errors}))["latency"]
    assert str(latency) == "114 µs predicted (roofline, calibrated on two published rows, median error 4 %)"
    calibrated = replace(BOARD, calibration={"source": "two published rows", "errors": errors, "formats": ["float32"]})
    assert str(by_metric(WORK, calibrated)["latency"]) == "114 µs predicted (roofline, unvalidated)"  # the work is in int8


def test_an_average_power_is_unvalidated_where_energies_are_not() -> None:
    errors = {"energy": {"n": 8, "median_error": 0.04, "where": "left out"}}
    target = replace(BOARD, idle_w=0.001, calibration={"source": "two published rows", "errors": errors})
    figures = by_metric(replace(WORK, period_s=0.1), target)
    assert "median error 4 %" in str(figures["energy"])
    assert str(figures["average_power"]).endswith("predicted (board energy, unvalidated)")


#: those that this predictor is for
BOARDS = [name for name in board.names() if board.load(name).kind != "neuromorphic"]


@pytest.mark.parametrize("name", BOARDS)
def test_every_board_gives_every_figure_or_a_reason(name: str) -> None:
    target = board.load(name)
    figures = by_metric(count(dense()), target)
    assert list(figures) == ["flash", "ram", "latency", "energy"]
    assert all(f.device == str(target) for f in figures.values())
    assert isinstance(figures["latency"], Predicted) or target.measurable


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
