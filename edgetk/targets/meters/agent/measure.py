"""One task on the board: state, memory, latency, operators, energy, outputs, state again.

Standard library only, Python 3.8.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any

from edgetk.targets import power, power_nvml
from edgetk.targets.meters.agent import timing
from edgetk.targets.meters.agent.state import Board, moved, unknown

_MODULES = {"onnxruntime": "ort", "tensorrt": "trt"}
_PROFILE_RUNS, _PROFILE_WARMUP = 50, 5


def measure(content: bytes, data: bytes, job: Mapping[str, Any], task: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The result of a task as plain data, and the outputs of one run on each set of inputs. Raises what the runtime raises."""
    gpu = task["runtime"] == "tensorrt"
    board = Board(job["root"])
    cores = timing.pin(task["cores"])
    memory_before = timing.rss_bytes()
    runtime = importlib.import_module("edgetk.targets.meters.agent." + _MODULES[task["runtime"]])
    model = runtime.Model(content, task, data)
    outputs = model.outputs()
    device = _gpu() if gpu else None
    clocks: list[float] = []
    gpu_clocks: list[float] = []

    def look() -> None:
        if (clock := board.clock_hz(cores)) is not None:
            clocks.append(clock)
        if gpu:
            seen = (device.state()["clock_hz"] if device is not None else None) or board.gpu_clock_hz()
            if seen is not None:
                gpu_clocks.append(seen)

    before = _snapshot(board, device)
    result: dict[str, Any] = {
        "latency": timing.latency(model.step, task["budget_s"], task["warmup_s"], look),
        "rss_before_bytes": memory_before,
        "rss_bytes": timing.rss_bytes(peak=True),
    }
    if gpu:
        result["variants"] = model.variants(task["budget_s"], task["warmup_s"])
    after = _snapshot(board, device)
    result["state"] = {"before": before, "after": after, "clocks_hz": clocks, "gpu_clocks_hz": gpu_clocks}
    result["state"]["unknown"] = unknown(after, gpu)
    result["state"]["moved"] = moved(before, after, clocks, gpu_clocks)
    if task["windows"]:
        sensor = power.find(job["root"], job["total_rails"], gpu)
        result["energy"] = timing.energy(model.step, sensor, task["window_s"], task["windows"], task["idle_s"])
        last = _snapshot(board, device)
        result["energy"]["moved"] = moved(after, last, [])
    model.close()
    if task["profile"]:
        result["operators"] = runtime.profile(content, task, data, _PROFILE_RUNS, _PROFILE_WARMUP)
    result["runtime"] = {"name": task["runtime"], "version": model.version, **model.facts}
    result["python"] = sys.version.split()[0]
    result["cores"] = cores
    return result, outputs


def _gpu() -> power_nvml.Gpu | None:
    try:
        return power_nvml.Gpu()
    except OSError:
        return None


def _snapshot(board: Board, gpu: power_nvml.Gpu | None) -> dict[str, Any]:
    return {**board.snapshot(), "nvml": gpu.state() if gpu is not None else None}
