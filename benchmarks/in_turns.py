"""ONNX Runtime sessions that take turns on one core, and the conditions of their report: what the kernels' benchmarks share."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from edgetk.core.runtime_options import session_options
from edgetk.export import operators
from edgetk.targets import machine


def session(model: onnx.ModelProto, library: Path | None = None, isa: str = "") -> ort.InferenceSession:
    """One thread, all graph optimizations; with the operator `library`, held to an instruction set where `isa` names one."""
    options = session_options()
    os.environ[operators.ISA_ENVIRONMENT] = isa
    if library is not None:
        operators.register(options, library)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class Contender:
    """A session with bound inputs, those of `feeds` that it has, and the bound output y; `samples` in seconds."""

    def __init__(self, runs: ort.InferenceSession, feeds: Mapping[str, ort.OrtValue], y: ort.OrtValue) -> None:
        self.session, self.y = runs, y
        self.inputs = [(i.name, feeds[i.name]) for i in runs.get_inputs()]
        self.binding = runs.io_binding()
        for name, value in self.inputs:
            self.binding.bind_ortvalue_input(name, value)
        self.binding.bind_ortvalue_output("y", y)
        self.samples: list[float] = []

    def call(self) -> float:
        """Seconds of one whole `run`."""
        start = time.perf_counter()
        self.session.run_with_iobinding(self.binding)
        return time.perf_counter() - start

    def turn(self, seconds: float) -> None:
        """Calls for so long; the first one is left out where there are more than two."""
        times = [self.call()]
        while sum(times) < seconds:
            times.append(self.call())
        self.samples += times[1:] if len(times) > 2 else times


def take_turns(made: Mapping[str, Contender], seconds: float, warmup: int, turn_s: float) -> None:
    """Fill the samples of all for so many seconds, after `warmup` calls of each."""
    for contender in made.values():
        for _ in range(warmup):
            contender.call()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for contender in made.values():
            contender.turn(turn_s)


def values(arrays: Mapping[str, np.ndarray]) -> dict[str, ort.OrtValue]:
    """Arrays as the runtime takes them."""
    return {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}


def conditions(load_before: float | None, **more: Any) -> dict[str, Any]:
    """Processor, load, versions and the time, and whatever else a benchmark says about itself."""
    return {
        "cpu": machine.cpu_model(),
        "cores": machine.cores(),
        "bound_to": sorted(os.sched_getaffinity(0)),
        "threads": 1,
        "load_average_before": load_before,
        "load_average_after": machine.load_average(),
        **more,
        "onnxruntime": ort.__version__,
        "python": platform.python_version(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write(path: Path, report: Mapping[str, Any]) -> None:
    """The report as JSON, its folder made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


__all__ = ["Contender", "conditions", "session", "take_turns", "values", "write"]
