"""A quick look at ONNX files in this process: ONNX Runtime, CPU provider, one inference (or one step) at batch 1.

For figures with memory, energy and the state of the board there is the agent: `edgetk bench`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from edgetk.core.errors import UsageError
from edgetk.core.figures import Measured, Missing
from edgetk.core.signature import Signature
from edgetk.targets import machine, powercap
from edgetk.targets.meters._figures import MIN_RUNS, realtime_factor
from edgetk.targets.meters._layers import OperatorTime
from edgetk.targets.meters.agent import ort
from edgetk.targets.meters.agent.timing import MAX_RUNS, WARMUP_RUNS, pin, run_for

if TYPE_CHECKING:
    from edgetk.targets.meters._session import Runner

_BLOCK_S = 5e-3
_WINDOW_S = 0.05  # powercap counters move about once a millisecond: 2 % of this window


@dataclass(frozen=True)
class OnnxRuntime:
    """Median and p95 latency, real-time factor of a stream, energy where the machine has a readable counter.

    counters   the folder of Linux's powercap interface
    operators  a library of custom operators that every session registers (None: such operators run as the bodies that the
               file has for them)
    threads    of the session
    cores      processors that this process keeps to while it measures; empty: as they are
    """

    name: str = "onnxruntime"
    counters: Path = field(default=powercap.FOLDER)
    operators: Path | None = None
    threads: int = 1
    cores: tuple[int, ...] = ()

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

        with _kept_to(self.cores):
            return self._measure(Runner(path, signature, _session.options(self.operators, self.threads)), signature, budget_s)

    def _measure(self, runner: Runner, signature: Signature, budget_s: float) -> Sequence[Measured | Missing]:
        warmup = run_for(runner.step, budget_s / 10, at_least=WARMUP_RUNS)
        samples = run_for(runner.step, budget_s * 0.9)
        native: dict[str, Any] = {"operators": self.operators.name} if self.operators else {}
        native |= {"threads": self.threads, **({"cores": list(self.cores)} if self.cores else {})}
        latency = _latency(samples, len(warmup), signature, budget_s, native)
        figures: list[Measured | Missing] = [latency]
        if signature.period_s:
            figures.append(realtime_factor(latency, signature.period_s))
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
            runs = len(run_for(runner.step, _WINDOW_S, at_most=None))
            samples.append(counter.difference(before, counter.joules()) / runs)
        if min(samples) <= 0:
            return Missing("energy", "the powercap counter did not move during a window of 50 ms", machine.cpu_model())
        sensor = {"threads": self.threads, "sensor": counter.name, "window_s": _WINDOW_S, "idle": "not subtracted"}
        return _measured(
            "energy", float(np.median(samples)), float(np.percentile(samples, 95)), len(samples), warmup, signature, sensor
        )


METER = OnnxRuntime()


@contextmanager
def _kept_to(cores: Sequence[int]) -> Iterator[None]:
    """This process on some cores alone. Raises UsageError for cores there are not."""
    before = os.sched_getaffinity(0)
    try:
        pin(cores)
    except ValueError as error:
        raise UsageError(f"onnxruntime: {error}; correct them") from error
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def interleaved(
    paths: Mapping[str, Path], signatures: Mapping[str, Signature], budget_s: float = 2.0
) -> dict[str, Measured | Missing]:
    """Latency of several files in alternation, about `budget_s` for each, so that a noisy machine treats them alike.

    They take turns of about 5 ms; the first run of a turn, whose caches the others used, is discarded where it has more
    than two.
    """
    from edgetk.targets.meters._session import Runner

    runners = {name: Runner(path, signatures[name]) for name, path in paths.items()}
    warmup = {name: run_for(runner.step, budget_s / 10, at_least=WARMUP_RUNS) for name, runner in runners.items()}
    samples: dict[str, list[float]] = {name: [] for name in paths}
    end = perf_counter() + 0.9 * budget_s * len(paths)
    while perf_counter() < end and any(len(s) < MAX_RUNS for s in samples.values()):
        for name, runner in runners.items():
            turn = run_for(runner.step, _BLOCK_S)
            samples[name] += turn[1:] if len(turn) > 2 else turn
    interleaving = {"interleaved_with": sorted(paths), "turn_s": _BLOCK_S}
    return {name: _latency(samples[name], len(warmup[name]), signatures[name], budget_s, interleaving) for name in paths}


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
        for _ in range(WARMUP_RUNS + runs):
            runner.step()
        events = json.loads(Path(runner.session.end_profiling()).read_text(encoding="utf-8"))
    return tuple(OperatorTime(**row) for row in ort.operators(events, runs))


def _latency(
    samples: Sequence[float], warmup: int, signature: Signature, budget_s: float, more: Mapping[str, Any] | None = None
) -> Measured | Missing:
    import numpy as np

    if len(samples) < MIN_RUNS:
        reason = f"only {len(samples)} runs in {budget_s:g} s, a median needs {MIN_RUNS}; give a larger budget"
        return Missing("latency", reason, machine.cpu_model())
    median, p95 = float(np.median(samples)), float(np.percentile(samples, 95))
    return _measured("latency", median, p95, len(samples), warmup, signature, more or {})


def _measured(
    metric: str, median: float, p95: float, n: int, warmup: int, signature: Signature, more: Mapping[str, Any]
) -> Measured:
    import onnxruntime

    from edgetk.targets.meters import _session

    conditions = {
        "threads": 1,
        "batch": 1,
        "provider": ort.PROVIDER,
        "onnxruntime": onnxruntime.__version__,
        "graph_optimization": ort.OPTIMIZATION,
        "cpu": machine.cpu_model(),
        "load_average": machine.load_average(),
        "input": f"random normal, seed {_session.SEED}",
        "state": "fed back between steps" if signature.is_streaming else "none",
        **more,
    }
    return Measured(metric, median, p95, n, warmup, METER.name, machine.cpu_model(), conditions)
