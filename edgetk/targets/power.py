"""Power meters behind one contract: a sensor is read into a trace, and a trace gives the energy of a window, or why not.

Runs on the board too: standard library only, Python 3.8.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: New values of a sensor that a window needs: fewer, and where the window begins and ends is a guess.
MIN_UPDATES = 10
#: Seconds between two looks at a sensor.
SAMPLE_S = 0.01


class Sensor:
    """What can be read again and again, of which the first channel is the total.

    name      sensor and rail, for the report
    unit      "J": a counter of energy that never falls; "W": power at the moment of reading
    channels  names of what one reading holds; the others are parts of the total, for information
    idle      what the figure means where nobody subtracts: everything the rail feeds
    """

    name = ""
    unit = "W"
    channels: tuple[str, ...] = ("total",)

    def read(self) -> tuple[float, ...]:
        """One reading, all channels. Raises OSError or ValueError where the sensor does not answer."""
        raise NotImplementedError


@dataclass(frozen=True)
class Energy:
    """Energy of one window: joules of the total, mean watts of each channel, and how many new values it rests on."""

    joules: float
    watts: dict[str, float]
    updates: int


@dataclass
class Trace:
    """Readings over time. `times` in seconds of one clock; `values` has one tuple of channels for each.

    every_row: each row is a reading of its own (a log); otherwise only a changed value counts as one, because a sensor
    that is asked more often than it measures repeats itself.
    """

    name: str
    unit: str
    channels: tuple[str, ...]
    times: list[float]
    values: list[tuple[float, ...]]
    every_row: bool = False

    def energy(self, start: float, end: float) -> Energy | str:
        """Energy between two moments: power by the trapezoid rule, a counter by its difference, ends interpolated.

        Returns the reason, as text, where the trace does not cover the window or has too few new values in it.
        """
        if len(self.times) < 2:
            return f"{self.name}: {len(self.times)} readings, at least 2 are needed"
        if self.times[0] > start or self.times[-1] < end:
            return (
                f"{self.name}: its readings cover {_span(self.times[0] - start)} to {_span(self.times[-1] - start)} after the "
                f"window's begin, the window lasts {end - start:.3g} s"
            )
        updates = self.updates(start, end)
        if updates < MIN_UPDATES:
            needed = "" if not updates else f"; a window of {MIN_UPDATES * (end - start) / updates:.2g} s would do"
            return (
                f"{self.name}: {updates} new values in a window of {end - start:.3g} s, {MIN_UPDATES} are needed to resolve "
                f"it{needed}"
            )
        watts = {name: self._watts(i, start, end) for i, name in enumerate(self.channels)}
        return Energy(watts[self.channels[0]] * (end - start), watts, updates)

    def updates(self, start: float, end: float) -> int:
        """New values of the first channel between two moments."""
        low, high = bisect_left(self.times, start), bisect_right(self.times, end)
        if self.every_row:
            return high - low
        return sum(1 for i in range(max(low, 1), high) if self.values[i][0] != self.values[i - 1][0])

    def _watts(self, channel: int, start: float, end: float) -> float:
        if self.unit == "J":
            return (self._at(channel, end) - self._at(channel, start)) / (end - start)
        low, high = bisect_right(self.times, start), bisect_left(self.times, end)
        times = [start, *self.times[low:high], end]
        values = [self._at(channel, start), *(v[channel] for v in self.values[low:high]), self._at(channel, end)]
        pieces = ((times[i] - times[i - 1]) * (values[i] + values[i - 1]) / 2 for i in range(1, len(times)))
        return sum(pieces) / (end - start)

    def _at(self, channel: int, when: float) -> float:
        """The value at a moment, on the straight line between the two readings around it."""
        i = min(max(bisect_right(self.times, when), 1), len(self.times) - 1)
        before, after = self.times[i - 1], self.times[i]
        a, b = self.values[i - 1][channel], self.values[i][channel]
        return a if after == before else a + (b - a) * (when - before) / (after - before)


def _span(seconds: float) -> str:
    return f"{seconds:.3g} s"


class Recorder:
    """Reads a sensor in a thread of its own while it is entered; `trace()` is what it saw."""

    def __init__(self, sensor: Sensor, period_s: float = SAMPLE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._sensor = sensor
        self._period = period_s
        self._clock = clock
        self._times: list[float] = []
        self._values: list[tuple[float, ...]] = []
        self._problem: str | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._record, name="power", daemon=True)

    def __enter__(self) -> Recorder:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()
        self._look()

    def trace(self) -> Trace | str:
        """All readings, or why there are none."""
        if self._problem is not None:
            return self._problem
        return Trace(self._sensor.name, self._sensor.unit, self._sensor.channels, self._times, self._values)

    def _record(self) -> None:
        while not self._end.wait(self._period) and self._problem is None:
            self._look()

    def _look(self) -> None:
        try:
            values = self._sensor.read()
        except (OSError, ValueError) as error:
            self._problem = f"{self._sensor.name}: stopped answering ({type(error).__name__}: {error})"
            return
        self._times.append(self._clock())
        self._values.append(values)


def find(root: str = "/", total_rails: Sequence[str] = (), gpu: bool = False) -> Sensor | str:
    """The sensor of this machine whose total is nearest to what runs: a GPU's own, a Jetson's rails, the processor's packages.

    gpu          what runs uses an NVIDIA GPU
    total_rails  names of a Jetson's rails whose sum is the total, where the built-in map does not know them
    Returns all reasons, as one text, where there is none.
    """
    from edgetk.targets import power_ina3221, power_nvml, powercap

    reasons = []
    attempts: list[Callable[[], Sensor | str]] = [
        lambda: power_ina3221.find(root, total_rails),
        lambda: powercap.sensor(root),
    ]
    if gpu:
        attempts.insert(1, power_nvml.find)
    for attempt in attempts:
        found = attempt()
        if not isinstance(found, str):
            return found
        reasons.append(found)
    return "; ".join(reasons)
