"""Times ONNX files on this machine: ONNX Runtime, CPU provider, one thread, one inference (or one step) at batch 1."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from edgetk.core.figures import Measured, Missing
from edgetk.core.signature import Signature
from edgetk.targets import machine, powercap

if TYPE_CHECKING:
    from edgetk.targets.meters._session import Runner

#: Fewer samples than this are no distribution: the figure is Missing.
MIN_RUNS = 20
_MAX_RUNS = 10_000
_WARMUP = 5
_BLOCK_S = 5e-3
_WINDOW_S = 0.05  # powercap counters move about once a millisecond: 2 % of this window


@dataclass(frozen=True)
class OnnxRuntime:
    """Median and p95 latency, real-time factor of a stream, energy where the machine has a readable counter.

    `counters` is the folder of Linux's powercap interface; `operators` a library of custom operators that every session
    registers (None: such operators run as the bodies that the file has for them).
    """

    name: str = "onnxruntime"
    counters: Path = field(default=powercap.FOLDER)
    operators: Path | None = None

    def available(self) -> str | None:
        """None if onnxruntime can be imported, else why not."""
        try:
            import onnxruntime  # noqa: F401
        except ImportError as error:
            return f"onnxruntime cannot be imported: {error}"
        return None

    def measure(self, path: Path, signature: Signature, budget_s: float = 2.0) -> Sequence[Measured | Missing]:
        """Run `path` for about `budget_s`, a tenth of it to warm up. Raises InputError if it does not run."""
        from edgetk.targets.meters import _session
        from edgetk.targets.meters._session import Runner

        runner = Runner(path, signature, _session.options(self.operators))
        warmup = _run(runner, budget_s / 10, at_least=_WARMUP)
        samples = _run(runner, budget_s * 0.9)
        native = {"operators": self.operators.name} if self.operators else {}
        latency = _latency(samples, len(warmup), signature, budget_s, native)
        figures: list[Measured | Missing] = [latency]
        if signature.period_s:
            figures.append(_realtime_factor(latency, signature.period_s))
        return [*figures, self._energy(runner, len(warmup) + len(samples), signature)]

    def _energy(self, runner: Runner, warmup: int, signature: Signature) -> Measured | Missing:
        """Energy of the processor package for one run, idle share included, in windows of 50 ms."""
        import numpy as np

        counter = powercap.find(self.counters)
        if isinstance(counter, str):
            return Missing("energy", counter, machine.cpu_model())
        samples = []
        for _ in range(MIN_RUNS):
            before = counter.joules()
            runs = len(_run(runner, _WINDOW_S, at_most=None))
            samples.append(counter.difference(before, counter.joules()) / runs)
        if min(samples) <= 0:
            return Missing("energy", "the powercap counter did not move during a window of 50 ms", machine.cpu_model())
        sensor = {"sensor": counter.name, "window_s": _WINDOW_S, "idle": "not subtracted"}
        return _measured(
            "energy", float(np.median(samples)), float(np.percentile(samples, 95)), len(samples), warmup, signature, sensor
        )


METER = OnnxRuntime()


def interleaved(
    paths: Mapping[str, Path], signatures: Mapping[str, Signature], budget_s: float = 2.0
) -> dict[str, Measured | Missing]:
    """Latency of several files in alternation, about `budget_s` for each, so that a noisy machine treats them alike.

    They take turns of about 5 ms; the first run of a turn, whose caches the others used, is discarded where it has more
    than two.
    """
    from edgetk.targets.meters._session import Runner

    runners = {name: Runner(path, signatures[name]) for name, path in paths.items()}
    warmup = {name: _run(runner, budget_s / 10, at_least=_WARMUP) for name, runner in runners.items()}
    samples: dict[str, list[float]] = {name: [] for name in paths}
    end = perf_counter() + 0.9 * budget_s * len(paths)
    while perf_counter() < end and any(len(s) < _MAX_RUNS for s in samples.values()):
        for name, runner in runners.items():
            turn = _run(runner, _BLOCK_S)
            samples[name] += turn[1:] if len(turn) > 2 else turn
    interleaving = {"interleaved_with": sorted(paths), "turn_s": _BLOCK_S}
    return {name: _latency(samples[name], len(warmup[name]), signatures[name], budget_s, interleaving) for name in paths}


@dataclass(frozen=True)
class OperatorTime:
    """One operator of the graph as the runtime runs it: `dtype` is that of its first input, `share` of the summed time."""

    name: str
    op_type: str
    dtype: str
    mean_s: float
    share: float
    n: int


def profile(path: Path, signature: Signature, runs: int = 50) -> tuple[OperatorTime, ...]:
    """Mean time per operator after the runtime's optimizations, slowest first: shows which ones really run in int8.

    Profiling slows small operators down: compare the shares, not the sum. Raises InputError if the file does not run.
    """
    from edgetk.targets.meters import _session

    with tempfile.TemporaryDirectory() as folder:
        settings = _session.options()
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "profile")
        runner = _session.Runner(path, signature, settings)
        for _ in range(_WARMUP + runs):
            runner.step()
        events = json.loads(Path(runner.session.end_profiling()).read_text(encoding="utf-8"))
    seen: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            seen.setdefault(event["name"].removesuffix("_kernel_time"), []).append(event)
    timed = {name: calls[-runs:] for name, calls in seen.items()}
    mean = {name: 1e-6 * sum(c["dur"] for c in calls) / len(calls) for name, calls in timed.items()}
    total = sum(mean.values()) or 1.0
    rows = [
        OperatorTime(name, calls[0]["args"]["op_name"], _input_dtype(calls[0]), mean[name], mean[name] / total, len(calls))
        for name, calls in timed.items()
    ]
    return tuple(sorted(rows, key=lambda row: -row.mean_s))


def _input_dtype(event: Mapping[str, Any]) -> str:
    inputs = event["args"].get("input_type_shape") or [{}]
    name = next(iter(inputs[0]), "")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _run(runner: Runner, budget_s: float, at_least: int = 1, at_most: int | None = _MAX_RUNS) -> list[float]:
    samples: list[float] = []
    end = perf_counter() + budget_s
    while len(samples) < at_least or (perf_counter() < end and (at_most is None or len(samples) < at_most)):
        samples.append(runner.step())
    return samples


def _latency(
    samples: Sequence[float], warmup: int, signature: Signature, budget_s: float, more: Mapping[str, Any] | None = None
) -> Measured | Missing:
    import numpy as np

    if len(samples) < MIN_RUNS:
        reason = f"only {len(samples)} runs in {budget_s:g} s, a median needs {MIN_RUNS}; give a larger budget"
        return Missing("latency", reason, machine.cpu_model())
    median, p95 = float(np.median(samples)), float(np.percentile(samples, 95))
    return _measured("latency", median, p95, len(samples), warmup, signature, more or {})


def _realtime_factor(latency: Measured | Missing, period_s: float) -> Measured | Missing:
    if isinstance(latency, Missing):
        return Missing("realtime_factor", latency.reason, latency.device)
    conditions = {**latency.conditions, "period_s": period_s}
    return Measured(
        "realtime_factor",
        latency.median / period_s,
        latency.p95 / period_s,
        latency.n,
        latency.warmup,
        latency.method,
        latency.device,
        conditions,
    )


def _measured(
    metric: str, median: float, p95: float, n: int, warmup: int, signature: Signature, more: Mapping[str, Any]
) -> Measured:
    import onnxruntime

    from edgetk.targets.meters import _session

    conditions = {
        "threads": 1,
        "batch": 1,
        "provider": _session.PROVIDER,
        "onnxruntime": onnxruntime.__version__,
        "graph_optimization": _session.OPTIMIZATION,
        "cpu": machine.cpu_model(),
        "load_average": machine.load_average(),
        "input": f"random normal, seed {_session.SEED}",
        "state": "fed back between steps" if signature.is_streaming else "none",
        **more,
    }
    return Measured(metric, median, p95, n, warmup, METER.name, machine.cpu_model(), conditions)
