"""Fitted kernel costs: terms by hand, fusion, a fit that finds the costs a world was made from, and the suite itself."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count as counter
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetk.core.errors import InputError
from edgetk.core.figures import Missing, Predicted
from edgetk.core.target import Stack, Target
from edgetk.core.workload import Op, Workload
from edgetk.targets import board, calibrations, fit_device, kernel_costs, machine, suite
from edgetk.targets.count import count
from edgetk.targets.fusion import inside
from edgetk.targets.predict import predict
from edgetk.targets.quiet import Probe

ORT = Target(
    "host", "", "cpu", "run", Stack("s", "onnxruntime"), 1e9, 1, {}, None, None, None, caches=((1000.0, 0.0), (50_000.0, 0.0))
)  # fmt: skip
CONV = Op("Conv", "c", 9000, 500, 72, 4 * (500 + 300), rows=125)


def work(*ops: Op, weights: int = 100, tensors: int = 2) -> Workload:
    return Workload(ops, weights, weights // 4, 100, 0, tensors=tensors)


def found(ops: Workload, target: Target = ORT) -> dict[str, tuple[str, dict[str, float]]]:
    return {op.name: (name, dict(terms)) for op, name, terms in kernel_costs.amounts(ops, target)}


def test_terms_by_hand() -> None:
    layer = Op("Gemm", "g", 5000, 50, 400, 4 * 150)
    bias = Op("Add", "b", 0, 300, 4 * 30, 4 * 600)
    rows = found(work(layer, bias, weights=20_000, tensors=7))
    # 600 bytes fill 0.6 of the first cache: (0.6 - 0.3) / 1.2 of them come from the second; 22,400 in all are 0.448 of that
    moved = {"call": 1, "element": 50, "byte_0": 600, "byte_1": 150, "far_1": 600, "far_memory": 74}
    read = {"mac": 5000, "weight_0": 400, "weight_1": 400, "weight_memory": 100 / 3}
    assert rows["g"] == ("gemv.float32", pytest.approx(moved | read))
    laid = {"span": 10, "laid": 300}
    spread = {"byte_0": 2400, "byte_1": 2400, "far_1": 2400, "far_memory": 296}
    assert rows["b"] == ("Add", pytest.approx({"call": 1, "element": 300} | spread | laid))
    assert rows["run"] == ("run", {"call": 1, "tensor": 7, "operator": 2})
    big = found(work(layer, weights=60_000))["g"][1]
    assert {k: v for k, v in big.items() if k.startswith(("weight", "far"))} == pytest.approx(
        {"weight_0": 400, "weight_1": 400, "weight_memory": 300, "far_1": 600, "far_memory": 456}
    )
    lone = found(work(replace(CONV, groups=10), weights=200))["c"]
    assert lone[0] == "depthwise.float32"
    assert not any(key.startswith("weight") for key in lone[1])


def test_kernels_by_kind_and_format() -> None:
    kernel = kernel_costs.kernel
    assert kernel(CONV, ORT) == "pointwise.float32"
    assert kernel(replace(CONV, taps=9), ORT) == "convolution.float32"
    assert kernel(replace(CONV, groups=10), ORT) == "depthwise.float32"
    assert kernel(replace(CONV, dtype="int8", taps=9), ORT) == "convolution.dequantized"
    assert kernel(replace(CONV, dtype="int8", taps=9, requantized=True), ORT) == "convolution.requantized"
    assert kernel(replace(CONV, kind="MatMul", dtype="int8"), ORT) == "gemm.int8"
    assert kernel(replace(CONV, kind="MatMul", weight_bytes=0), ORT) == "attention.float32"
    assert kernel(Op("Transpose", "t", 0, 10, 0, 80, strided=True), ORT) == "Transpose.strided"
    assert kernel(Op("Add", "a", 0, 10, 0, 80, "int64"), ORT) == "Add.int64"
    assert kernel(Op("Concat", "c", 0, 10, 0, 80, "int64"), ORT) == "Concat"  # bytes are bytes
    assert kernel(Op("Squeeze", "s", 0, 10, 0, 0), ORT) == "Reshape"


def test_what_nobody_timed_has_a_stand_in() -> None:
    costs = {name: {"call": 1.0} for name in ("Add", "Concat", "Exp", "Transpose", "gemm.float32")}
    stand_in = kernel_costs.stand_in
    assert stand_in("gemm.int4", Op("MatMul", "m", 10, 5, 10, 40, "int4"), costs) == "gemm.float32"
    assert stand_in("convolution.int4", replace(CONV, dtype="int4", taps=9), costs) == "convolution.float32"
    assert stand_in("pointwise.int4", replace(CONV, dtype="int4"), costs) == "convolution.float32"
    assert stand_in("gemm.requantized", replace(CONV, kind="MatMul", dtype="int8"), costs) == "gemm.float32"
    assert stand_in("gemm.requantized", replace(CONV, kind="MatMul", dtype="int8"), {"gemm.int8": {}}) == "gemm.int8"
    assert stand_in("Or", Op("Or", "o", 0, 5, 0, 40), costs) == "Add"
    assert stand_in("Tile", Op("Tile", "t", 0, 5, 0, 40), costs) == "Concat"
    assert stand_in("Transpose.strided", Op("Transpose", "t", 0, 5, 0, 40, strided=True), costs) == "Transpose"
    assert stand_in("Add.int64", Op("Add", "a", 0, 5, 0, 40, "int64"), costs) == "Add"
    assert stand_in("mine::Magic", Op("mine::Magic", "m", 0, 5, 0, 40), costs) == "Exp"
    rows = list(kernel_costs.seconds(work(Op("mine::Magic", "m", 0, 5, 0, 40)), replace(ORT, kernels=costs)))
    assert [(op.name, seconds, unknown) for op, seconds, _, unknown in rows] == [("m", 1.0, True), ("run", 0.0, False)]


def test_convolutions_hand_one_another_blocks_of_channels() -> None:
    """The first brings in 300 elements, the second takes out 500; between them, a rectifier aside, nothing is reordered."""
    second = replace(CONV, name="d", activation_bytes=4 * 1000, source="r")
    relu = Op("Relu", "r", 0, 500, 0, 4000, source="c")
    assert kernel_costs.reordered(work(CONV, relu, second)) == {"c": 300, "d": 500}
    assert kernel_costs.reordered(work(CONV, replace(relu, kind="Tanh"), second)) == {"c": 800, "d": 1000}


def test_a_cache_begins_to_miss_before_it_is_full_and_hits_a_little_beyond() -> None:
    levels = kernel_costs.levels
    assert levels(ORT.caches, 300) == {"0": 1}
    assert levels(ORT.caches, 900) == {"0": 1, "1": pytest.approx(0.5)}
    assert levels(ORT.caches, 1500) == {"0": 1, "1": 1}
    assert levels(ORT.caches, 1e9) == {"0": 1, "1": 1, "memory": 1}
    assert levels((), 10) == {"memory": 1}


CACHES = ((32_768.0, 0.0), (524_288.0, 0.0), (33_554_432.0, 0.0))


@pytest.mark.parametrize(
    ("stride", "count", "shares"),
    [
        (0, 0, {}),
        (3600, 40, {}),  # any set: 40 of 512 lines
        (3600, 512, {"1": (1 - 0.3) / 1.2}),
        (4096, 2, {}),  # all on one set of 8 lines
        (4096, 8, {"1": (1 - 0.3) / 1.2}),
        (4096, 48, {"1": 1.0, "2": (48 / 128 - 0.3) / 1.2}),  # 16 of the second cache's 1024 sets
        (2048, 8, {"1": (0.5 - 0.3) / 1.2}),
        (4096, 1000, {"1": 1.0, "2": 1.0}),
    ],
)
def test_steps_of_a_power_of_two_meet_few_sets_of_a_cache(stride: int, count: int, shares: dict[str, float]) -> None:
    assert kernel_costs.conflicts(CACHES, stride, count) == pytest.approx(shares)
    assert kernel_costs.conflicts((), stride, count) == {}


def test_walks_down_columns_and_planes_that_share_sets() -> None:
    target = replace(ORT, caches=CACHES)
    walk = Op("Transpose", "t", 0, 48_000, 0, 8 * 48_000, strided=True, column=(2048, 48))
    terms = found(work(walk), target)["t"][1]
    assert terms["column_1"] == 48_000
    assert terms["page"] == 24_000  # each second step is on another page
    assert "column_2" not in terms
    apart = found(work(replace(walk, column=(2000, 48))), target)["t"][1]
    assert not {"column_1", "page"} & set(apart)
    planes = Op("Conv", "c", 9000, 8 * 1024, 72, 4 * 16 * 1024, rows=1024, groups=8)
    terms = found(work(planes), target)["c"][1]
    assert terms["reorder_1"] == pytest.approx(terms["reorder"] * (1 - 0.3) / 1.2)


def test_what_moves_bytes_costs_bytes_and_columns_come_in_panels() -> None:
    move = found(work(Op("Slice", "s", 0, 50, 8, 400)))["s"][1]
    assert "element" not in move
    assert found(work(Op("MatMul", "m", 3 * 5 * 20, 3 * 20, 400, 300, rows=3)))["m"][1]["mac"] == pytest.approx(300 * 32 / 20)
    assert found(work(Op("MatMul", "m", 3 * 5 * 16, 3 * 16, 320, 300, rows=3)))["m"][1]["mac"] == 240


def test_a_quantization_is_run_unless_a_product_ends_with_it() -> None:
    alone = Op("QuantizeLinear", "q", 0, 100, 8, 0, source="m")
    product = Op("MatMul", "m", 1000, 100, 10, 100, "int8", rows=10)
    assert found(work(product, alone))["q"][1]["byte_0"] == 500
    ends = replace(product, requantized=True)
    assert "q" not in found(work(ends, alone))
    assert kernel_costs.kernel(ends, ORT) == "gemm.requantized"
    assert "q" not in found(work(product, alone), replace(ORT, stack=Stack("s", "tflm")))


def test_pieces_and_rows_of_a_far_table() -> None:
    """A row of 6 numbers for each of 10 tokens comes from where all weights of the model are: half of the bytes."""
    rows = found(work(Op("Gather", "g", 0, 60, 4 * 6 * 500, 4 * 130, pieces=10), weights=12_000))
    assert rows["g"][1]["piece"] == 10
    assert {k: v for k, v in rows["g"][1].items() if k.startswith("weight")} == {"weight_0": 260, "weight_1": 260}
    assert rows["g"][1]["byte_0"] == 260
    norm = Op("LayerNormalization", "n", 0, 80, 64, 640, pieces=10)
    assert found(work(norm))["n"][1]["piece"] == 10
    assert "piece" not in found(work(CONV))["c"][1]


def test_a_scan_costs_each_of_its_turns() -> None:
    body = Op("Mul", "s/m", 0, 40, 0, 400, calls=20)
    rows = found(work(Op("Scan", "s", 0, 0, 0, 0), body))
    assert rows["s"][1]["turn"] == 20
    assert rows["s/m"][1]["call"] == 20


def test_onnx_runtime_makes_one_kernel_of_a_gelu_and_of_a_normalized_sum() -> None:
    gelu = (
        Op("Div", "d", 0, 10, 4, 80),
        Op("Erf", "e", 0, 10, 0, 80, source="d"),
        Op("Add", "p", 0, 10, 4, 80, source="e"),
        Op("Mul", "m", 0, 10, 0, 120, source="p"),
        Op("Mul", "h", 0, 10, 4, 80, source="m"),
    )
    assert inside(work(*gelu), ORT) == {"d", "p", "m", "h"}
    assert inside(work(*gelu), replace(ORT, stack=Stack("s", "tflm"))) == frozenset()
    total = Op("Add", "s", 0, 10, 0, 120)
    norm = Op("LayerNormalization", "n", 0, 10, 80, 80, source="s")
    assert inside(work(total, norm), ORT) == {"s"}
    assert found(work(total, norm))["n"][0] == "SkipLayerNormalization"
    assert inside(work(replace(total, weight_bytes=40), norm), ORT) == frozenset()
    scores = Op("MatMul", "q", 1000, 100, 0, 800)
    scale = Op("Mul", "k", 0, 100, 4, 800, source="q")
    assert inside(work(scores, scale), ORT) == {"k"}
    relu = Op("Relu", "r", 0, 100, 0, 800, source="q")
    assert inside(work(scores, relu), ORT) == frozenset()
    assert inside(work(replace(scores, kind="Gemm"), relu), ORT) == {"r"}


def test_the_fit_finds_the_costs_that_times_were_made_from() -> None:
    true = {
        "gemm.float32": {"mac": 2e-11, "call": 1e-6, "byte_0": 3e-11, "byte_1": 3e-11, "byte_memory": 9e-11},
        "Add": {"call": 5e-7, "element": 1e-10, "byte_memory": 9e-11},
        "run": {"call": 4e-6, "tensor": 1e-6},
        "Exp": {},
    }
    random = np.random.default_rng(0)
    cases = {}
    for i in range(40):
        rows, depth, wide = (int(random.integers(2, 60)) for _ in range(3))
        ops = [
            Op("MatMul", f"m{j}", rows * depth * wide, rows * wide, 4 * depth * wide, 4 * rows * (depth + wide), rows=rows)
            for j in range(int(random.integers(0, 4)))
        ]
        ops += [Op("Add", f"a{j}", 0, rows * wide, 4, 8 * rows * wide) for j in range(int(random.integers(0, 4)))]
        cases[str(i)] = work(*ops, tensors=int(random.integers(2, 9)))
    seconds = {name: fit_device.predicted(w, ORT, true) for name, w in cases.items()}
    timings = [fit_device.Timing(name, (s, 2 * s)) for name, s in seconds.items()]
    assert timings[0].spread == pytest.approx(0.5)
    costs = fit_device.fit(cases, timings, ORT)
    for name, w in cases.items():
        assert fit_device.predicted(w, ORT, {**costs, "Exp": {}}) == pytest.approx(seconds[name], rel=1e-3)
    assert costs["run"] == {"call": pytest.approx(4e-6, rel=0.01), "tensor": pytest.approx(1e-6, rel=0.01)}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(4, 8))
def test_nonnegative_least_squares_meets_its_conditions(seed: int, columns: int, rows: int) -> None:
    """x ≥ 0; the gradient is 0 where x > 0 and not downhill where x = 0 (Karush, Kuhn and Tucker)."""
    random = np.random.default_rng(seed)
    matrix, wanted = random.standard_normal((rows, columns)), random.standard_normal(rows)
    x = fit_device.nonnegative(matrix, wanted)
    gradient = matrix.T @ (matrix @ x - wanted)
    assert (x >= 0).all()
    assert (gradient >= -1e-6).all()
    assert (np.abs(gradient[x > 0]) < 1e-6).all()


class Neighbour:
    """A probe whose answers are given in advance, again and again."""

    def __init__(self, *answers: bool) -> None:
        self.answers = cycle(answers)

    def quiet(self) -> bool:
        return next(self.answers)


def test_cases_are_timed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(fit_device, "BATCH_S", 0.0)
    steps = {name: lambda n=name: calls.append(n) for name in "ab"}
    timings = fit_device.interleave(steps, rounds=3, turn_s=0.0, probe=Neighbour(True))
    assert [(t.name, len(t.fastest), t.quiet) for t in timings] == [("a", 3, (True,) * 3), ("b", 3, (True,) * 3)]
    turn = 1 + fit_device.RUNS  # the first run of a turn is not timed
    assert calls == list("a" * turn + "b" * turn) * 3


def test_runs_beside_a_neighbour_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs take 9, 8, 7, … seconds; the probe before and the one after a run must both be quiet."""
    monkeypatch.setattr(fit_device, "BATCH_S", 0.0)
    ticks = counter()
    taken = cycle((0, 9, 0, 8, 0, 7, 0, 6, 0, 5))
    spent = [0.0]

    def clock() -> float:
        spent[0] += next(taken)
        return spent[0]

    monkeypatch.setattr(fit_device, "thread_time", clock)
    monkeypatch.setattr(fit_device, "perf_counter", lambda: float(next(ticks)))

    def timed(*answers: bool) -> fit_device.Timing:
        return fit_device.interleave({"a": lambda: None}, 1, 0.0, Neighbour(*answers))[0]

    alone = timed(True)
    assert (alone.fastest, alone.quiet) == ((6.0,), (True,))  # the fastest of RUNS runs: 9, 8, 7, 6
    assert timed(False).quiet == (False,)
    assert timed(True, False).quiet == (False,)  # quiet by turns, never before and after the same run


def test_the_time_of_a_case_is_the_median_of_quiet_rounds() -> None:
    assert fit_device.Timing("a", (5.0, 1.0, 3.0, 4.0), (True, False, True, True)).seconds == 4.0
    assert fit_device.Timing("a", (5.0, 1.0, 3.0, 4.0), (True, False, True, True)).spread == pytest.approx(1 / 3)
    assert fit_device.Timing("a", (5.0, 2.0, 3.0), (False,) * 3).seconds == 2.0


def test_the_probe_compares_with_the_fastest_it_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe(watch_s=0.0)
    assert 0 < probe.fastest < float("inf")
    probe.fastest = 1e-9
    assert not probe.quiet()
    probe.fastest = float("inf")
    assert probe.quiet()  # the first time is the fastest
    assert probe.fastest < 1.0


def test_a_byte_from_memory_costs_the_same_in_every_kernel() -> None:
    """Only additions come from memory in these cases; exponentials get their cost, too."""
    big = int(ORT.caches[-1][0])
    near = {f"{kind} {n}": work(Op(kind, "o", 0, n, 0, 8 * n)) for kind in ("Add", "Exp") for n in (10, 1000, 3000)}
    far = {f"Add {n}": work(Op("Add", "o", 0, n, 0, 8 * n)) for n in (big, 2 * big, 3 * big)}
    true = {
        "Add": {"call": 5e-7, "byte_0": 1e-11, "byte_memory": 5e-11},
        "Exp": {"call": 5e-7, "byte_0": 4e-11},
        "run": {"call": 1e-6},
    }
    timings = [fit_device.Timing(name, (fit_device.predicted(w, ORT, true),)) for name, w in (near | far).items()]
    costs = fit_device.fit(near | far, timings, ORT)
    beyond = [sum(costs[kind].get(key, 0.0) for key in fit_device.SHARED) for kind in ("Add", "Exp")]
    assert beyond[0] == beyond[1] > 0
    assert not fit_device.SHARED & costs["run"].keys()


def test_the_share_of_the_last_cache_that_is_left_is_found() -> None:
    """Additions of a world where other cores hold half of the last cache."""
    sizes = (20, 100, 1000, 2000, 3000, 4000, 5000, 7000, 10_000, 15_000)
    cases = {str(n): work(Op("Add", "o", 0, n, 0, 8 * n)) for n in sizes}
    true = {"Add": {"call": 5e-7, "byte_0": 1e-11, "byte_1": 1e-11, "byte_memory": 5e-11}, "run": {"call": 1e-6}}
    for share in fit_device.SHARES:
        seconds = {name: fit_device.predicted(w, calibrations.with_share(ORT, share), true) for name, w in cases.items()}
        timings = [fit_device.Timing(name, (s,)) for name, s in seconds.items()]
        assert fit_device.last_cache_share(cases, timings, ORT) == share
    assert fit_device.last_cache_share(cases, timings, replace(ORT, caches=())) == 1.0


def test_the_suite_is_counted_whole_and_always_the_same() -> None:
    cases, again = suite.cases(), suite.cases()
    assert len({case.name for case in cases}) == len(cases) > 250
    assert all(a.model.SerializeToString() == b.model.SerializeToString() for a, b in zip(cases, again, strict=True))
    counted = {case.name: count(case.model, case.signature) for case in cases}
    assert not any(w.unknown for w in counted.values())
    kernels = {name for w in counted.values() for _, name, _ in kernel_costs.amounts(w, ORT)}
    wanted = {f"{kind}.{dtype}" for kind in ("gemm", "gemv") for dtype in ("float32", "int8")}
    wanted |= {f"{kind}.{dtype}" for kind in ("convolution", "depthwise") for dtype in ("float32", "dequantized")}
    wanted |= {"attention.float32", "Transpose", "Transpose.strided", "SkipLayerNormalization", "Erf", "Scan", "Reshape", "Exp"}
    assert kernels >= wanted


@pytest.mark.parametrize(
    "name",
    [
        "matrix 12x64x128 int8",
        "lone convolution 16x24x24 k3 groups 16",
        "scan 20x32 of 5",
        "scan 80x400 of 2",
        "network step 1 int8",
        "tensors 2",
    ],
)
def test_cases_of_the_suite_run(name: str) -> None:
    from edgetk.toolkit.calibrate import runners

    (case,) = [case for case in suite.cases() if case.name == name]
    with runners({name: (case.model, case.signature)}) as steps:
        assert steps[name]() > 0


CALIBRATION = """{"schema_version": 3, "source": "a suite", "device": "x", "cache_bytes": [1000],
 "kernels": {"run": {"call": 1e-3}, "Exp": {}, "Add": {"call": 2e-3}},
 "errors": {"latency": {"n": 9, "median_error": 0.05, "where": "there"}}}"""


def test_a_board_file_names_its_kernel_costs(tmp_path: Path) -> None:
    from test_board import GOOD

    (tmp_path / "costs.json").write_text(CALIBRATION, encoding="utf-8")
    (tmp_path / "mine.toml").write_text('kernels = "costs.json"\n' + GOOD, encoding="utf-8")
    target = board.load(str(tmp_path / "mine.toml"))
    assert target.caches == ((1000.0, 0.0),)
    half = json.loads(CALIBRATION) | {"cache_bytes": [10, 1000], "last_cache_share": 0.5}
    assert calibrations.applied(target, half).caches == ((10.0, 0.0), (500.0, 0.0))
    latency = next(f for f in predict(work(Op("Add", "a", 0, 5, 0, 40)), target) if f.metric == "latency")
    assert isinstance(latency, Predicted)
    assert str(latency) == "3 ms predicted (kernel costs, calibrated on a suite, median error 5 %)"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, r"calibration .*costs\.json: must be a readable file, got No such file"),
        ("{", r"calibration .*costs\.json: must be JSON, got .*; run edgetk calibrate host again"),
        ("{}", r"calibration .*costs\.json: must be what this edgetk.s calibrate host writes, got another JSON file"),
    ],
)
def test_a_wrong_calibration_gets_one_sentence(tmp_path: Path, content: str | None, text: str) -> None:
    if content is not None:
        (tmp_path / "costs.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=text):
        calibrations.read(tmp_path / "costs.json")


def test_built_in_calibrations_are_whole_and_are_found_by_the_processors_name(monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(Path(calibrations.__file__).parent.glob("*.json"))
    assert files
    for file in files:
        data = calibrations.read(file)
        assert {"run", "Exp", "Add", "Concat", "gemm.float32", "gemm.int8", "gemv.float32"} <= set(data["kernels"])
        assert data["errors"]["latency"]["n"] >= 20
        monkeypatch.setattr(machine, "cpu_model", lambda name=data["device"]: name)
        for caches in ((), tuple(data["cache_bytes"])):
            monkeypatch.setattr(machine, "cache_bytes", lambda sizes=caches: sizes)
            host = board.load("host")
            assert host.kernels == data["kernels"]
            assert host.calibration["source"] == data["source"]
        monkeypatch.setattr(machine, "cache_bytes", lambda: (1, 2, 3))
        assert board.load("host").kernels == {}
    monkeypatch.setattr(machine, "cpu_model", lambda: "another processor")
    plain = board.load("host")
    assert plain.kernels == {}
    latency = next(f for f in predict(work(CONV), plain) if f.metric == "latency")
    assert isinstance(latency, Missing)
    assert latency.reason.endswith("it is measured, not predicted: edgetk calibrate fits it")


def test_cache_sizes_come_from_the_operating_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, (kind, size) in enumerate((("Data", "48K"), ("Instruction", "32K"), ("Unified", "2048K"))):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        (folder / "type").write_text(kind + "\n", encoding="ascii")
        (folder / "size").write_text(size + "\n", encoding="ascii")
    (tmp_path / "index9").mkdir()
    assert machine.cache_bytes(tmp_path) == (48 * 1024, 2048 * 1024)
    assert machine.cache_bytes(tmp_path / "none") == ()
