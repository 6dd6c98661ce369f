"""What the agent does with TensorRT and CUDA, on stand-ins whose memory can be looked at."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda, tensorrt

from edgetk.core.figures import Measured, Missing
from edgetk.core.signature import Signature, StateSpec, TensorSpec
from edgetk.targets.meters import _bench, _figures
from edgetk.targets.meters._bench import Item, Result, Settings
from edgetk.targets.meters.agent import measure, trt
from edgetk.targets.meters.agent.cuda import Cuda
from edgetk.targets.meters.tensorrt import METER

SIGNATURE = Signature(
    (TensorSpec("x", (1, 2)),),
    (TensorSpec("y", (1, 2)),),
    (StateSpec(TensorSpec("state_a", (1, 2)), init=(10.0, 20.0)),),
    period_s=0.010,
)


def task(**changes: Any) -> tuple[dict[str, Any], bytes]:
    item = Item("m.engine", b"ftrt", SIGNATURE, "tensorrt")
    quick = Settings(budget_s=0.01, warmup_s=0.0, windows=0)
    files, (made,) = _bench._prepare([item], quick)
    return {**made, **changes}, files[made["data"]]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setattr(trt, "Cuda", lambda: Cuda(fake))
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt(fake))
    trt._BUILT.clear()
    return fake


def expected(runs: int) -> np.ndarray:
    """x + state, whose state starts at (10, 20) and goes up by one each run."""
    sets = [values["x"] for values in _bench.input_sets(SIGNATURE)]
    return np.stack([sets[i % len(sets)][0] + np.array([10, 20]) + i for i in range(runs)]).astype(np.float32)


def test_a_stream_on_two_contexts_carries_its_state(cuda: FakeCuda) -> None:
    made, data = task()
    model = trt.Model(b"ftrt", made, data)
    got = np.frombuffer(model.outputs(), np.float32).reshape(-1, 2)
    np.testing.assert_allclose(got, expected(64), rtol=1e-6)
    np.testing.assert_array_equal(np.frombuffer(model.outputs(), np.float32).reshape(-1, 2), got)  # it starts again
    assert model.step() > 0
    assert model.facts["gpu"] == "Fake GPU"
    assert model.facts["built_here_in_s"] is None
    model.close()


def test_cuda_graphs_do_the_same(cuda: FakeCuda) -> None:
    made, data = task()
    model = trt.Model(b"ftrt", made, data)
    step = model._captured(model._transfer_and_run)
    model._reset()
    for i in range(6):
        step()
        np.testing.assert_allclose(np.frombuffer(_host(model, "y"), np.float32), expected(6)[i], rtol=1e-6)
    ways = model.variants(0.001, 0.0)
    assert list(ways) == ["without_transfers", "cuda_graph", "cuda_graph_without_transfers"]
    assert all(way["n"] >= 20 and 0 < way["median_s"] <= way["p95_s"] for way in ways.values())
    assert "cuGraphLaunch" in cuda.calls


def _host(model: trt.Model, name: str) -> bytes:
    import ctypes

    return ctypes.string_at(model._host[name], 8)


def test_what_cannot_be_captured_says_so(cuda: FakeCuda) -> None:
    made, data = task()
    model = trt.Model(b"ftrt", made, data)
    cuda.failing = ("cuGraphInstantiateWithFlags",)
    ways = model.variants(0.001, 0.0)
    text = "cannot be captured as a CUDA graph (CUDA: cuGraphInstantiateWithFlags answers with error 700)"
    assert ways["cuda_graph"] == {"reason": text}
    assert ways["without_transfers"]["n"] >= 20


def test_a_profile_by_layer(cuda: FakeCuda) -> None:
    made, data = task()
    rows = trt.profile(b"ftrt", made, data, runs=4, warmup=2)
    assert [(row["name"], row["share"], row["n"]) for row in rows] == [
        ("net.b/Add + net.c/Add", pytest.approx(0.75), 4),
        ("net.a/Add", pytest.approx(0.25), 4),
    ]
    assert rows[0]["mean_s"] == pytest.approx(0.75e-3)


@pytest.mark.parametrize(
    ("version", "network", "flags"), [("8.5.2", 1, ["fp16", "int8"]), ("10.3.0", 2, []), ("11.4.1", 0, [])]
)
def test_graphs_are_built_there_in_each_releases_way(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, version: str, network: int, flags: list[str]
) -> None:
    library = tensorrt(cuda, version)
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    made, data = task(tactic_sources=["CUBLAS", "EDGE_MASK_CONVOLUTIONS"])
    model = trt.Model(b"\x08 an onnx file", made, data)
    trt.Model(b"\x08 an onnx file", made, data)
    assert library.seen["builds"] == 1  # built once
    assert (library.seen["network"], library.seen["flags"], library.seen["sources"]) == (network, flags, 0b1001)
    assert library.seen["shapes"] == {"x": ((1, 2),) * 3, "state_a": ((1, 2),) * 3}
    assert model.facts["built_here_in_s"] >= 0
    assert model.facts["engine_bytes"] == len(b"ftrt built")


def test_what_tensorrt_refuses(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    made, data = task()

    def expect(text: str, content: bytes = b"\x08 x", changes: dict[str, Any] | None = None, **library: Any) -> None:
        monkeypatch.setitem(sys.modules, "tensorrt", tensorrt(cuda, **library))
        trt._BUILT.clear()
        with pytest.raises((ValueError, RuntimeError), match=text):
            trt.Model(content, {**made, **(changes or {})}, data).step()

    expect(r"TensorRT 10\.3\.0 does not take the graph: no rule for Einsum", parses=False)
    expect(r"TensorRT 10\.3\.0 found no way to build the graph on this GPU", accepts=False)
    expect(r"on Fake GPU cannot load this engine: build it on this board", b"ftrt", loads=False)
    expect(r"takes its precision from the graph: export it as fp16", changes={"precision": "fp16"})
    expect(r"TensorRT refused to run the engine on these shapes", b"ftrt", accepts=False)


def test_a_driver_that_is_old_or_refuses() -> None:
    with pytest.raises(OSError, match="this CUDA driver has no cuStreamCreate"):
        Cuda(FakeCuda(absent=("cuStreamCreate",)))
    with pytest.raises(OSError, match="CUDA: cuInit answers with error 700"):
        Cuda(FakeCuda(failing=("cuInit",)))


def test_a_measurement_with_all_its_ways(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fake_board import jetson

    made, data = task(profile=True)
    monkeypatch.setattr(measure, "_gpu", lambda: None)
    job = {"root": str(jetson(tmp_path)), "total_rails": []}
    seen, outputs = measure.measure(b"ftrt", data, job, made)
    assert seen["runtime"]["name"] == "tensorrt"
    assert seen["runtime"]["version"] == "10.3.0"
    assert seen["state"]["gpu_clocks_hz"] == [918e6] * 10
    assert seen["state"]["unknown"] == []
    assert len(outputs) == 64 * 2 * 4
    item = Item("m.engine", b"ftrt", SIGNATURE, "tensorrt")
    latency = _figures.figures(Result(item, Settings(windows=0), seen, outputs, "ssh://b"))[0]
    assert isinstance(latency, Measured)
    assert latency.method == "tensorrt through the agent"
    assert latency.conditions["gpu_clock_hz"] == {"min": 306e6, "max": 918e6, "current": 918e6, "running": [918e6, 918e6]}
    assert latency.conditions["cuda_graph"]["n"] >= 20
    assert latency.conditions["threads"] is None


def test_the_meter_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt.importlib.util, "find_spec", lambda name: None)
    assert METER.available() == "tensorrt is not installed for this Python"

    def none() -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(trt.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(trt, "Cuda", none)
    assert METER.available() == "no NVIDIA GPU answers: libcuda.so.1: cannot open shared object file"
    monkeypatch.setattr(trt, "Cuda", lambda: None)
    assert METER.available() is None


def test_the_meter_says_why_there_is_no_figure(tmp_path: Path) -> None:
    path = tmp_path / "m.engine"
    path.write_bytes(b"ftrt")
    figure = METER.measure(path, SIGNATURE, budget_s=0.01)[0]  # no GPU here, or no engine: one of the two is said
    assert isinstance(figure, Missing)
    assert figure.reason.startswith("tensorrt: ")
