"""Engines and the script that builds them: flags of every version, reasons, labels; a stand-in for TensorRT and for trtexec."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from test_tensorrt import jetson, toy

from edgetk.export import tensorrt_build, to_tensorrt
from edgetk.export.tensorrt_build import Library, build, find
from edgetk.export.tensorrt_script import Graph, flags, script
from edgetk.export.tensorrt_versions import Version
from edgetk.export.to_tensorrt import EXPORTER


class Cache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"+"


class FakeConfig:
    num_compute_capabilities = 2

    def __init__(self) -> None:
        self.flags, self.cleared, self.cache = [], [], Cache(b"")  # type: ignore[var-annotated]

    def set_flag(self, flag: str) -> None:
        self.flags.append(flag)

    def clear_flag(self, flag: str) -> None:
        self.cleared.append(flag)

    def create_timing_cache(self, content: bytes) -> Cache:
        return Cache(content)

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> None:
        assert not ignore_mismatch
        self.cache = cache

    def get_timing_cache(self) -> Cache:
        return self.cache

    def get_compute_capability(self, i: int) -> Any:
        return types.SimpleNamespace(name=("SM80", "SM86")[i])


class FakeTensorRT(types.ModuleType):
    """The part of the Python API that is the same from 8.5 to 11; `seen` is what it was told."""

    def __init__(self, version: str, refuses: str = "", fails: str = "", raises: str = "") -> None:
        super().__init__("tensorrt")
        seen: dict[str, Any] = {}
        self.seen, self.__version__ = seen, version

        class ILogger:
            ERROR, INTERNAL_ERROR, WARNING = "error", "internal", "warning"

            def __init__(self) -> None:
                pass

        class Builder:
            def __init__(self, log: Any) -> None:
                self.log = log

            def create_network(self, network_flags: int) -> str:
                seen["network"] = network_flags
                return "network"

            def create_builder_config(self) -> FakeConfig:
                seen["config"] = FakeConfig()
                return seen["config"]

            def build_serialized_network(self, network: str, config: FakeConfig) -> bytes | None:
                if raises:
                    raise RuntimeError(raises)
                self.log.log("warning", "never mind")
                if fails:
                    self.log.log("error", fails)
                    return None
                return b"an engine"

        class OnnxParser:
            def __init__(self, network: str, log: Any) -> None:
                pass

            def parse(self, content: bytes) -> bool:
                return not refuses

            def get_error(self, i: int) -> str:
                return refuses

        self.ILogger, self.Builder, self.OnnxParser = ILogger, Builder, OnnxParser
        self.NetworkDefinitionCreationFlag = types.SimpleNamespace(EXPLICIT_BATCH=0, STRONGLY_TYPED=1)
        self.BuilderFlag = types.SimpleNamespace(FP16="FP16", INT8="INT8", TF32="TF32", SPARSE_WEIGHTS="SPARSE")

    def library(self) -> Library:
        major, minor = (int(part) for part in self.__version__.split(".")[:2])
        return Library(self, "tensorrt", self.__version__, Version(major, minor))


@pytest.mark.parametrize(
    ("version", "precision", "network", "builder"),
    [
        ("8.5.2.2", "float32", 1, []),
        ("8.5.2.2", "float16", 1, ["FP16"]),
        ("8.6.1", "int8", 1, ["INT8"]),
        ("10.3.0", "float16", 2, []),
        ("10.3.0", "int8", 2, []),
        ("11.4.1", "int8", 0, []),
    ],
)
def test_precision_is_flags_before_10_and_the_graph_from_then_on(
    version: str, precision: str, network: int, builder: list[str]
) -> None:
    fake = FakeTensorRT(version)
    built = build(b"onnx", precision, fake.library(), cache=b"old")
    assert not isinstance(built, str)
    assert (built.content, built.cache, built.library) == (b"an engine", b"old+", f"tensorrt {version}")
    assert (fake.seen["network"], fake.seen["config"].flags, fake.seen["config"].cleared) == (network, builder, [])


def test_exact_sums_are_not_rounded_to_tf32() -> None:
    fake = FakeTensorRT("10.3.0")
    build(b"onnx", "int8", fake.library(), exact=True)
    assert fake.seen["config"].cleared == ["TF32"]


def test_weights_in_the_pattern_of_sparse_tensor_cores_are_looked_for() -> None:
    fake = FakeTensorRT("10.3.0")
    build(b"onnx", "int8", fake.library(), sparse=True)
    assert fake.seen["config"].flags == ["SPARSE"]
    wanted = ("--skipInference", "--stronglyTyped", "--sparsity=enable")
    assert flags(Graph("m.onnx", b"", "int8", sparse=True), Version(10, 3)) == wanted


def test_the_reason_is_that_of_parser_or_builder() -> None:
    assert build(b"", "int8", FakeTensorRT("8.5.2", refuses="In node 3: no DFT\nmore").library()) == (
        "tensorrt 8.5.2 refused the graph: In node 3: no DFT"
    )
    assert build(b"", "int8", FakeTensorRT("8.5.2", fails="no kernel").library()) == "tensorrt 8.5.2 built no engine: no kernel"
    assert build(b"", "int8", FakeTensorRT("8.5.2", raises="CUDA error 35").library()) == (
        "tensorrt 8.5.2 failed: RuntimeError: CUDA error 35"
    )


def test_a_label_says_what_the_engine_runs_on_and_that_it_is_not_portable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_build, "gpu", lambda: "Orin (compute capability 8.7, CUDA 12.6)")
    built = build(b"onnx", "int8", FakeTensorRT("10.3.0").library())
    assert not isinstance(built, str)
    assert json.loads(built.label("model.onnx", b"onnx", "int8")) == {
        "portable": False,
        "built_for": "Orin (compute capability 8.7, CUDA 12.6)",
        "library": "tensorrt 10.3.0",
        "precision": "int8",
        "sha256": sha256(b"an engine").hexdigest(),
        "size_bytes": 9,
        "onnx": "model.onnx",
        "onnx_sha256": sha256(b"onnx").hexdigest(),
    }
    rtx = Library(FakeTensorRT("1.7.1"), "tensorrt_rtx", "1.7.1", Version(11, 0))
    ahead = build(b"onnx", "int8", rtx)
    assert not isinstance(ahead, str)
    assert ahead.runs_on == "GPUs that TensorRT-RTX supports (SM80, SM86) with tensorrt_rtx 1.7.1"
    assert ahead.cache == b""


def test_what_can_be_imported_is_found_or_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tensorrt_build.LIBRARIES:
        monkeypatch.setitem(sys.modules, name, None)
    reason = find()
    assert isinstance(reason, str)
    assert reason.startswith("no TensorRT can be imported here (tensorrt: import of tensorrt halted; ")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", FakeTensorRT("1.7.1.116"))
    ahead = find()
    assert isinstance(ahead, Library)
    assert (str(ahead), ahead.version) == ("tensorrt_rtx 1.7.1.116", (11, 0))
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT("10.3.0"))
    assert str(find()) == "tensorrt 10.3.0"


def test_the_exporter_delivers_engines_with_labels_and_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTensorRT("10.3.0")
    monkeypatch.setattr(tensorrt_build, "find", fake.library)
    monkeypatch.setattr(tensorrt_build, "gpu", lambda: "H100")
    bundle, forms = toy()
    stream = [low for low in forms if low.form == "stream"]
    files = {e.name: e for e in EXPORTER(stream, bundle, jetson())}
    assert sorted(files) == [
        "tensorrt/build_engine.sh",
        "tensorrt/model.stream.engine",
        "tensorrt/model.stream.engine.json",
        "tensorrt/model.stream.float16.engine",
        "tensorrt/model.stream.float16.engine.json",
        "tensorrt/model.stream.float16.onnx",
        "tensorrt/model.stream.onnx",
        "tensorrt/timing.cache",
    ]
    engine = files["tensorrt/model.stream.engine"]
    assert (engine.format, engine.built_for, engine.content) == ("tensorrt", "H100 with tensorrt 10.3.0", b"an engine")
    assert engine.notes == (
        "an engine for H100 with tensorrt 10.3.0: not portable, and not for the board unless that is its GPU and version",
    )
    assert files["tensorrt/timing.cache"].content == b"++"
    monkeypatch.setattr(tensorrt_build, "find", FakeTensorRT("10.3.0", fails="no kernel").library)
    script_only = EXPORTER(stream, bundle, jetson())[-1]
    assert script_only.notes[0] == "no engine of model.stream.onnx: tensorrt 10.3.0 built no engine: no kernel"


@pytest.mark.parametrize(
    ("version", "precision", "exact", "wanted"),
    [
        ((8, 5), "float16", False, ("--buildOnly", "--fp16")),
        ((8, 6), "int8", True, ("--skipInference", "--int8", "--noTF32")),
        ((10, 3), "int8", False, ("--skipInference", "--stronglyTyped")),
        ((11, 4), "float16", False, ("--skipInference",)),
    ],
)
def test_the_dialect_of_trtexec(version: tuple[int, int], precision: str, exact: bool, wanted: tuple[str, ...]) -> None:
    assert flags(Graph("m.onnx", b"", precision, exact), Version(*version)) == wanted


TRTEXEC = """#!/usr/bin/env bash
for word in "$@"; do
  case $word in
    --help) echo "&&&& RUNNING TensorRT.trtexec [TensorRT {banner}] # trtexec --help"; exit 0 ;;
    --saveEngine=*) echo plan > "${{word#--saveEngine=}}" ;;
  esac
done
echo "$@" >> calls
"""


def prepared(folder: Path, banner: str = "v100300", version: tuple[int, int] = (10, 3)) -> Path:
    graphs = [Graph("model.onnx", b"one", "int8"), Graph("model.stream.float16.onnx", b"two", "float16")]
    for graph in graphs:
        (folder / graph.name).write_bytes(graph.content)
    (folder / "build_engine.sh").write_text(script(graphs, Version(*version)))
    trtexec = folder / "trtexec"
    trtexec.write_text(TRTEXEC.format(banner=banner))
    trtexec.chmod(0o755)
    return trtexec


def started(folder: Path, trtexec: Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(folder / "build_engine.sh")]
    return subprocess.run(command, env={"PATH": "/usr/bin:/bin", "TRTEXEC": str(trtexec)}, capture_output=True, text=True)


def test_the_script_builds_and_labels_every_engine(tmp_path: Path) -> None:
    done = started(tmp_path, prepared(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "calls").read_text().splitlines() == [
        "--onnx=model.onnx --saveEngine=model.engine --timingCacheFile=timing.cache --skipInference --stronglyTyped",
        "--onnx=model.stream.float16.onnx --saveEngine=model.stream.float16.engine --timingCacheFile=timing.cache "
        "--skipInference --stronglyTyped",
    ]
    label = json.loads((tmp_path / "model.engine.json").read_text())
    assert label.pop("built_for")
    assert label == {
        "portable": False,
        "library": "tensorrt 10.3",
        "precision": "int8",
        "sha256": sha256(b"plan\n").hexdigest(),
        "onnx": "model.onnx",
        "onnx_sha256": sha256(b"one").hexdigest(),
    }


@pytest.mark.parametrize(
    ("banner", "version", "status", "told"),
    [
        ("v8502", (8, 5), 0, ""),
        ("v101300", (10, 3), 0, "written for TensorRT 10.3, this is 10.13"),
        ("v8502", (10, 3), 1, "these graphs are for TensorRT 10, got 8.5; export them for that version"),
        ("none", (10, 3), 1, "must print its version, got none; set TRTEXEC"),
    ],
)
def test_the_script_looks_at_the_version(tmp_path: Path, banner: str, version: tuple[int, int], status: int, told: str) -> None:
    done = started(tmp_path, prepared(tmp_path, banner, version))
    assert (done.returncode, told in done.stderr) == (status, True)
    assert bool(done.stderr) == bool(told)


def test_the_script_refuses_other_files_and_a_missing_trtexec(tmp_path: Path) -> None:
    trtexec = prepared(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"changed")
    done = started(tmp_path, trtexec)
    assert (done.returncode, done.stderr) == (
        1, "build_engine: model.onnx is not the file this script was made for; copy it again\n",
    )  # fmt: skip
    done = started(tmp_path, tmp_path / "nowhere")
    assert (done.returncode, "build_engine: needs trtexec, got none at" in done.stderr) == (4, True)


def test_the_label_of_a_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(tensorrt_build.ctypes, "CDLL", refuse)
    assert tensorrt_build.gpu() is None
    assert to_tensorrt.FOLDER == "tensorrt/"
