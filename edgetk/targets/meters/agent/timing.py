"""Runs a step again and again: warm-up, samples in blocks with a look at the board between them, windows of energy.

Standard library only, Python 3.8.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgetk.targets import power

if TYPE_CHECKING:
    from collections.abc import Callable

    Step = Callable[[], float]

WARMUP_RUNS = 5
#: samples of one measurement at most: more say nothing new and have to travel
MAX_RUNS = 10_000
_BLOCKS = 10


def run_for(step: Step, budget_s: float, at_least: int = 1, at_most: int | None = MAX_RUNS) -> list[float]:
    """Seconds of each run, for about `budget_s`."""
    samples: list[float] = []
    end = time.perf_counter() + budget_s
    while len(samples) < at_least or (time.perf_counter() < end and (at_most is None or len(samples) < at_most)):
        samples.append(step())
    return samples


def latency(step: Step, budget_s: float, warmup_s: float, look: Callable[[], None]) -> dict[str, Any]:
    """Samples after a warm-up, in ten blocks; `look` is called between blocks and reads the clocks."""
    warmup = run_for(step, warmup_s, at_least=WARMUP_RUNS)
    samples: list[float] = []
    for _ in range(_BLOCKS):
        samples += run_for(step, budget_s / _BLOCKS, at_most=MAX_RUNS // _BLOCKS)
        look()
    return {"warmup": len(warmup), "samples_s": [round(s, 9) for s in samples]}


def energy(step: Step, sensor: power.Sensor | str, window_s: float, windows: int, idle_s: float) -> dict[str, Any]:
    """Idle power, then energy of `windows` windows, each with its number of runs; or the reason why there is none.

    The times of the windows are also given as wall-clock time, for meters that keep a log of their own.
    """
    idle_wall = _wall(lambda: time.sleep(idle_s))
    rows = []
    if isinstance(sensor, str):
        rows = [_wall(lambda: len(run_for(step, window_s, at_most=None))) for _ in range(windows)]
        return {"reason": sensor, "idle": idle_wall, "windows": rows}
    with power.Recorder(sensor) as idle_record:
        start = time.monotonic()
        time.sleep(idle_s)
        idle_end = time.monotonic()
    with power.Recorder(sensor) as record:
        for _ in range(windows):
            begin = time.monotonic()
            row = _wall(lambda: len(run_for(step, window_s, at_most=None)))
            rows.append({**row, "begin": begin, "end": time.monotonic()})
    found: dict[str, Any] = {"sensor": sensor.name, "sample_s": power.SAMPLE_S, "idle": idle_wall, "windows": rows}
    idle = _resolve(idle_record.trace(), start, idle_end)
    found["idle_w"] = idle if isinstance(idle, str) else idle.joules / (idle_end - start)
    trace = record.trace()
    for row in rows:
        seen = _resolve(trace, row.pop("begin"), row.pop("end"))
        if isinstance(seen, str):
            return {**found, "reason": seen}
        row.update(joules=seen.joules, watts=seen.watts, updates=seen.updates)
    return found


def _resolve(trace: power.Trace | str, start: float, end: float) -> power.Energy | str:
    return trace if isinstance(trace, str) else trace.energy(start, end)


def _wall(work: Callable[[], Any]) -> dict[str, Any]:
    """What `work` gives as `runs`, with the wall-clock times of its begin and end."""
    begin = time.time()
    runs = work()
    return {"wall_begin": begin, "wall_end": time.time(), "runs": runs}


def rss_bytes(peak: bool = False) -> int | None:
    """Resident memory of this process, now or at its highest; None where the system does not tell."""
    key = "VmHWM:" if peak else "VmRSS:"
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next((1024 * int(line.split()[1]) for line in file if line.startswith(key)), None)
    except OSError:
        return None


def pin(cores: Sequence[int]) -> list[int]:
    """Keep this process to some cores, where any are named; the cores it may use. Raises ValueError for cores there are not."""
    import os

    if cores:
        try:
            os.sched_setaffinity(0, cores)
        except OSError as error:
            have = sorted(os.sched_getaffinity(0))
            raise ValueError(f"cores must be among {have}, got {list(cores)} ({error.strerror})") from error
    return sorted(os.sched_getaffinity(0))
