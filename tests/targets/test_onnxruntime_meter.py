"""The meter on tiny graphs: what it reports, what it refuses, and that a stream is run as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from target_graphs import Quantized, dense, model, stream

from edgetk.core import registry
from edgetk.core.errors import InputError
from edgetk.core.figures import Measured, Missing
from edgetk.core.signature import Signature, StateSpec, TensorSpec
from edgetk.targets import powercap
from edgetk.targets.meters import _session
from edgetk.targets.meters.onnxruntime import METER, OnnxRuntime, interleaved, profile

CLIP = Signature((TensorSpec("x", ("B", 5)),), (TensorSpec("y", ("B", 3)),))
STREAM = Signature(
    (TensorSpec("x", (1, 4)),), (TensorSpec("y", (1, 2)),), (StateSpec(TensorSpec("state_a", (1, 4))),), period_s=0.010
)


def save(folder: Path, graph: onnx.ModelProto, name: str = "m.onnx") -> Path:
    path = folder / name
    path.write_bytes(graph.SerializeToString())
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return save(tmp_path, dense(batch="B"))


def test_it_is_found_by_its_name() -> None:
    assert registry.load("meter", "onnxruntime") is METER
    assert METER.available() is None


def test_a_clip(clip: Path, tmp_path: Path) -> None:
    latency, energy = OnnxRuntime(counters=tmp_path).measure(clip, CLIP, budget_s=0.1)
    assert isinstance(latency, Measured)
    assert latency.metric == "latency"
    assert 0 < latency.median <= latency.p95
    assert latency.n >= 20
    assert latency.warmup >= 5
    assert latency.conditions["threads"] == 1
    assert set(latency.conditions) >= {"provider", "onnxruntime", "cpu", "load_average", "graph_optimization", "state"}
    assert isinstance(energy, Missing)
    assert energy.reason == f"no energy counter: {tmp_path} has no intel-rapl zone"


def test_a_stream_has_a_real_time_factor(tmp_path: Path) -> None:
    latency, factor, _ = OnnxRuntime(counters=tmp_path).measure(save(tmp_path, stream()), STREAM, budget_s=0.1)
    assert isinstance(latency, Measured)
    assert isinstance(factor, Measured)
    assert factor.metric == "realtime_factor"
    assert factor.median == pytest.approx(latency.median / 0.010)
    assert latency.conditions["state"] == "fed back between steps"


def test_state_is_fed_back_and_starts_at_its_initial_value(tmp_path: Path) -> None:
    state = StateSpec(TensorSpec("state_a", (1, 4)), init=(1.0, 2.0, 3.0, 4.0))
    runner = _session.Runner(save(tmp_path, stream()), Signature(STREAM.inputs, STREAM.outputs, (state,)))
    x = runner._feeds["x"]
    first = x + 0.5 * np.array([[1, 2, 3, 4]], np.float32)  # the run that proves it runs
    np.testing.assert_allclose(runner._feeds["state_a"], first, rtol=1e-6)
    runner.step()
    np.testing.assert_allclose(runner._feeds["state_a"], x + 0.5 * first, rtol=1e-6)


def test_a_short_budget_gives_no_figure(tmp_path: Path) -> None:
    latency, factor, _ = OnnxRuntime(counters=tmp_path).measure(save(tmp_path, stream()), STREAM, budget_s=0.0)
    assert isinstance(latency, Missing)
    assert latency.reason == "only 1 runs in 0 s, a median needs 20; give a larger budget"
    assert isinstance(factor, Missing)


def test_interleaved(clip: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0).standard_normal
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["h"]), onnx.helper.make_node("MatMul", ["h", "v"], ["y"])]
    constants = {"w": rng((5, 2000), dtype=np.float32), "v": rng((2000, 3), dtype=np.float32)}
    heavy = save(tmp_path, model(nodes, {"x": ["B", 5]}, {"y": None}, constants), "heavy.onnx")
    figures = interleaved({"light": clip, "heavy": heavy}, {"light": CLIP, "heavy": CLIP}, budget_s=0.2)
    assert list(figures) == ["light", "heavy"]
    light, heavy_figure = figures["light"], figures["heavy"]
    assert isinstance(light, Measured)
    assert isinstance(heavy_figure, Measured)
    assert light.median < heavy_figure.median
    assert light.conditions["interleaved_with"] == ["heavy", "light"]
    none = interleaved({"a": clip}, {"a": CLIP}, budget_s=0.0)["a"]
    assert isinstance(none, Missing)


def test_profile_tells_what_runs_in_int8(tmp_path: Path) -> None:
    q = Quantized()
    x = q.pair(q.add("MatMul", [q.pair("x"), q.weight("w", np.ones((64, 64)))], "h"))
    q.add("Softmax", [x], "y")
    path = save(tmp_path, model(q.nodes, {"x": [1, 64]}, {"y": [1, 64]}, q.constants))
    rows = profile(path, Signature((TensorSpec("x", (1, 64)),), (TensorSpec("y", (1, 64)),)), runs=20)
    by_type = {row.op_type: row for row in rows}
    assert by_type["QLinearMatMul"].dtype in ("int8", "uint8")
    assert by_type["Softmax"].dtype == "float32"
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert all(row.n == 20 and row.mean_s >= 0 for row in rows)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"not onnx")
    with pytest.raises(
        InputError, match=r"onnxruntime: m\.onnx must be an ONNX file that it can load, got .*; export it again"
    ):
        METER.measure(path, CLIP)
    with pytest.raises(InputError, match=r"no\.onnx must be a readable file, got No such file or directory; check the path"):
        METER.measure(tmp_path / "no.onnx", CLIP)


def test_another_signature(clip: Path) -> None:
    with pytest.raises(InputError, match=r"m\.onnx must have the inputs state_a, x, got x; give the signature it was"):
        METER.measure(clip, STREAM)
    with pytest.raises(InputError, match="must have the outputs z, got y"):
        METER.measure(clip, Signature(CLIP.inputs, (TensorSpec("z", ("B", 3)),)))
    with pytest.raises(InputError, match="must run on inputs of its signature's shapes, got"):
        METER.measure(clip, Signature((TensorSpec("x", ("B", 7)),), CLIP.outputs))


def zone(folder: Path, name: str, energy: str, whole: str = "1000000") -> Path:
    path = folder / name
    path.mkdir()
    (path / "energy_uj").write_text(energy, encoding="ascii")
    (path / "max_energy_range_uj").write_text(whole, encoding="ascii")
    return path


def test_powercap_adds_packages_and_passes_the_range(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "900000")
    second = zone(tmp_path, "intel-rapl:1", "0")
    zone(tmp_path, "intel-rapl:0:0", "5")
    counter = powercap.find(tmp_path)
    assert isinstance(counter, powercap.Counter)
    before = counter.joules()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("100000", encoding="ascii")
    (second / "energy_uj").write_text("250000", encoding="ascii")
    assert counter.difference(before, counter.joules()) == pytest.approx(0.2 + 0.25)


def test_powercap_that_cannot_be_read(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "secret")
    assert str(powercap.find(tmp_path)).startswith(f"the energy counters under {tmp_path} cannot be read (ValueError)")


def test_energy_where_there_is_a_counter(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "intel-rapl:0", "0")
    ticks: Iterator[int] = iter(range(1, 10_000))
    monkeypatch.setattr(powercap, "_microjoules", lambda file: 0.5 * next(ticks))
    *_, energy = OnnxRuntime(counters=tmp_path).measure(clip, CLIP, budget_s=0.05)
    assert isinstance(energy, Measured)
    assert energy.n == 20
    assert 0 < energy.median < 0.5
    assert energy.conditions["sensor"] == "powercap package energy (intel-rapl:0)"
    assert energy.conditions["idle"] == "not subtracted"


def test_a_counter_that_stands_still(clip: Path, tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "7")
    *_, energy = OnnxRuntime(counters=tmp_path).measure(clip, CLIP, budget_s=0.05)
    assert isinstance(energy, Missing)
    assert energy.reason == "the powercap counter did not move during a window of 50 ms"
