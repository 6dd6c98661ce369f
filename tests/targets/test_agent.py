"""The agent itself: what it is made of, that an old Python runs it, and what it does when things break."""

from __future__ import annotations

import ast
import glob
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fake_board import jetson, put
from target_graphs import dense

import edgetk
from edgetk.core.errors import EdgetkError, InputError, UsageError
from edgetk.core.figures import Measured, Missing
from edgetk.core.signature import Signature, TensorSpec
from edgetk.targets.meters import _bench, _figures, _pack, _transport
from edgetk.targets.meters._bench import Item, Result, Settings
from edgetk.targets.meters._layers import OperatorTime, fold, layer
from edgetk.targets.meters._transport import Local
from edgetk.targets.meters.agent import measure, timing
from edgetk.targets.meters.agent.state import Board
from edgetk.targets.meters.onnxruntime import OnnxRuntime

CLIP = Signature((TensorSpec("x", ("B", 5)),), (TensorSpec("y", ("B", 3)),))
QUICK = Settings(budget_s=0.02, warmup_s=0.0, windows=0)
#: what the board's own runtimes bring
RUNTIMES = {"onnxruntime", "numpy", "tensorrt"}


def sources() -> list[Path]:
    package = Path(edgetk.__file__).parent
    return [path for pattern in _pack.SOURCES for path in sorted(package.glob(pattern))]


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_its_sources_are_python_3_8_and_need_nothing_else(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    ours = {name for name in names if name.split(".")[0] == "edgetk"}
    assert all(
        name.startswith(("edgetk.targets.power", "edgetk.targets.meters.agent")) or name == "edgetk.targets" for name in ours
    )
    assert {name.split(".")[0] for name in names - ours} <= set(sys.stdlib_module_names) | RUNTIMES


def test_it_is_one_file_with_the_same_bytes() -> None:
    content = _pack.agent()
    _pack.agent.cache_clear()
    assert _pack.agent() == content
    assert len(content) < 100_000


@cache
def _old_python() -> str | None:
    """A Python 3.8 that answers: on the path, or one of pyenv's."""
    candidates = [shutil.which("python3.8"), *glob.glob(os.path.expanduser("~/.pyenv/versions/3.8.*/bin/python3.8"))]
    for found in candidates:
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            return found
    return None


@pytest.mark.skipif(_old_python() is None, reason="no Python 3.8 here")
def test_python_3_8_runs_it(tmp_path: Path) -> None:
    files, (task,) = _bench._prepare([Item("m.onnx", dense(batch="B").SerializeToString(), CLIP)], QUICK)
    folder = job(tmp_path, files, [task])
    program = "import sys; sys.path.insert(0, 'agent.pyz'); from edgetk.targets import power; print(power.find(sys.argv[1]))"
    asked = [str(_old_python()), "-c", program, str(tmp_path)]
    said = subprocess.run(asked, cwd=folder, capture_output=True, text=True, check=True).stdout
    assert said.startswith("no INA3221 power monitor under ")
    done = subprocess.run(
        [str(_old_python()), "agent.pyz", str(folder)], cwd=folder, stdin=subprocess.PIPE, capture_output=True
    )
    # its standard input ended at once, so it may have stopped before its end: both are as they should be
    assert done.returncode in (0, 74), done.stderr
    again = subprocess.run(
        [str(_old_python()), "agent.pyz", str(folder), task["id"]], cwd=folder, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    result = json.loads((folder / f"{task['id']}.json").read_text())
    assert "error" not in result or "No module named" in result["error"]


def job(tmp_path: Path, files: dict[str, bytes], tasks: list[dict[str, Any]]) -> Path:
    """A folder as the agent finds it."""
    folder = tmp_path / "work" / "job"
    folder.mkdir(parents=True)
    files["job.json"] = json.dumps({"root": "/", "total_rails": [], "tasks": tasks}).encode()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(folder / "agent.pyz"), str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)


def test_it_ends_with_its_standard_input(tmp_path: Path) -> None:
    item = Item("m.onnx", dense(batch="B").SerializeToString(), CLIP)
    files, tasks = _bench._prepare([item], Settings(budget_s=60.0, windows=0))
    process = start(job(tmp_path, files, tasks))
    assert process.stderr is not None
    assert process.stdin is not None
    assert process.stderr.readline().startswith(b"clock ")
    assert process.stderr.readline() == b"task 1 of 1: m.onnx\n"
    process.stdin.close()
    assert process.wait(timeout=20) == 74
    process.stderr.close()


def test_a_file_that_arrived_damaged_is_not_run(tmp_path: Path) -> None:
    files, tasks = _bench._prepare([Item("m.onnx", dense(batch="B").SerializeToString(), CLIP)], QUICK)
    files[tasks[0]["data"]] = b"half"
    folder = job(tmp_path, files, tasks)
    with start(folder) as process:
        assert process.stderr is not None
        lines = process.stderr.read().decode().splitlines()
    assert lines[-1] == "end"
    error = json.loads((folder / f"{tasks[0]['id']}.json").read_text())["error"]
    assert error.startswith(f"{tasks[0]['data']} arrived damaged: sha256 ")


def test_a_crash_costs_one_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that kills its process, as a stand-in that is found before the real one."""
    (tmp_path / "onnxruntime.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (result,) = _bench.run(Local(), [Item("m.onnx", dense(batch="B").SerializeToString(), CLIP)], QUICK)
    assert result.data == {"error": f"the process ended with signal {signal.Signals.SIGSEGV.name}: it said nothing"}


def test_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_transport.tempfile, "tempdir", str(tmp_path))
    told: list[str] = []
    (result,) = _bench.run(Local(), [Item("m.onnx", dense(batch="B").SerializeToString(), CLIP)], QUICK, told.append)
    assert told == ["measuring 1 of 1: m.onnx"]
    assert result.where == "this machine"
    assert len(result.data["latency"]["samples_s"]) >= 10
    assert list(tmp_path.iterdir()) == []
    assert _bench.agreement(result)["max_abs"] == 0


def measured_on(board: Path) -> Result:
    """A file measured in this process, the board's state read from a tree."""
    item = Item("m.onnx", dense(batch="B").SerializeToString(), CLIP)
    files, (task,) = _bench._prepare([item], QUICK)
    job = {"root": str(board), "total_rails": []}
    data, outputs = measure.measure(item.content, files[task["data"]], job, task)
    return Result(item, QUICK, data, outputs, "ssh://b")


def test_a_state_that_is_not_known_is_not_measured(tmp_path: Path) -> None:
    put(jetson(tmp_path), "var/lib/nvpmodel/status", "pmode:0009")
    latency, rss = _figures.figures(measured_on(tmp_path))
    assert isinstance(latency, Missing)
    assert latency.reason == "the board's state is not known: power mode cannot be read there"
    assert isinstance(rss, Measured)  # memory does not depend on it


def test_a_state_that_moves_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = itertools.cycle((600e6, 1500e6))
    monkeypatch.setattr(Board, "clock_hz", lambda self, cores=(): next(clocks))
    latency = _figures.figures(measured_on(jetson(tmp_path)))[0]
    assert isinstance(latency, Missing)
    assert latency.reason == (
        "the board's state was not stable: clock moved between 600 and 1500 MHz while it ran (governor performance); "
        "fix its clocks and keep it cool and idle"
    )


class Broken(Local):
    """A transport whose agent fails, or whose outputs are others."""

    status = 0

    def run(self, say: Callable[[str], None]) -> int:
        if self.status:
            say("no such option")
            return self.status
        return super().run(say)

    def get(self, name: str) -> bytes:
        return b"other" if name.endswith(".out") else super().get(name)


def test_what_does_not_arrive_as_it_was() -> None:
    item = Item("m.onnx", dense(batch="B").SerializeToString(), CLIP)
    with pytest.raises(InputError, match=r"the outputs of m\.onnx must arrive whole, got others; run it again"):
        _bench.run(Broken(), [item], QUICK)
    failing = Broken()
    failing.status = 3
    with pytest.raises(EdgetkError, match=r"the agent must finish, got status 3 \(no such option\); what it finished is kept"):
        _bench.run(failing, [item], QUICK)
    with pytest.raises(InputError, match=r"m\.onnx must run here to compare its outputs, got .*; export it again"):
        _bench.agreement(_bench.Result(Item("m.onnx", b"no", CLIP), QUICK, {}, b"", "x"))


def test_threads_and_cores_of_the_quick_look(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(dense(batch="B").SerializeToString())
    before = os.sched_getaffinity(0)
    core = min(before)
    latency = OnnxRuntime(counters=tmp_path, threads=2, cores=(core,)).measure(path, CLIP, budget_s=0.05)[0]
    assert isinstance(latency, Measured)
    assert (latency.conditions["threads"], latency.conditions["cores"]) == (2, [core])
    assert os.sched_getaffinity(0) == before
    with pytest.raises(
        UsageError, match=r"onnxruntime: cores must be among \[.*\], got \[4096\] \(Invalid argument\); correct"
    ):
        OnnxRuntime(cores=(4096,)).measure(path, CLIP)
    assert os.sched_getaffinity(0) == before


def test_samples_come_in_blocks_with_a_look_between() -> None:
    looks: list[int] = []
    steps = iter(range(10**9))
    found = timing.latency(lambda: next(steps) * 1e-9, 1e-4, 0.0, lambda: looks.append(1))
    assert found["warmup"] == timing.WARMUP_RUNS
    assert len(looks) == 10
    assert found["samples_s"][0] == pytest.approx(5e-9)


def test_energy_without_a_sensor_still_tells_its_windows() -> None:
    found = timing.energy(lambda: 1e-6, "no sensor", 1e-3, 3, 0.0)
    assert found["reason"] == "no sensor"
    assert [row["runs"] > 0 and row["wall_end"] > row["wall_begin"] for row in found["windows"]] == [True] * 3


def test_nodes_are_folded_to_modules() -> None:
    assert layer("embed.convs.0.taps/Gemm") == "embed.convs.0.taps"
    assert layer("/block/lmu/MatMul_3") == "block/lmu"
    assert layer("a/Conv + b/Relu") == "a"
    assert layer("Slice_4") == ""
    rows = [
        OperatorTime("fused a/Gemm", "FusedGemm", "float32", 3e-6, 0.5, 9),
        OperatorTime("a/Relu_nchwc", "Relu", "float32", 1e-6, 0.2, 9),
        OperatorTime("Slice", "Slice", "float32", 2e-6, 0.3, 9),
    ]
    seen = fold(rows)
    assert [(row.name, row.share) for row in seen] == [("a", pytest.approx(0.7)), ("(graph)", 0.3)]
    assert seen[0].operators == {"FusedGemm": 1, "Relu": 1}


def test_the_zip_holds_the_sources() -> None:
    import io

    names = zipfile.ZipFile(io.BytesIO(_pack.agent())).namelist()
    assert "__main__.py" in names
    assert {f"edgetk/targets/{path.name}" for path in sources() if path.parent.name == "targets"} <= set(names)
