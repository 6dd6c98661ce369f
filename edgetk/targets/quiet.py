"""Tells whether a processor was left alone: a probe of fixed arithmetic, fast only where nothing else runs on the same core.

On rented and on desktop machines the other hardware thread of a core belongs to somebody else. While that one is busy, every
instruction takes longer, by 1.1 to 2 times depending on what it is, and no account of this process shows it. Times from both
states do not fit one another. The probe's own time does tell them apart: it has two well separated values.
"""

from __future__ import annotations

from time import perf_counter

import numpy as np

#: numbers whose exponential is taken, how often to warm up, and how often then: about 7 µs, from 8 KB in the nearest cache
_NUMBERS, _WARM, _TIMES = 1000, 2, 4
#: seconds that are watched at first, to know the probe's fastest time
_WATCH_S = 0.25
#: a probe within so much of the fastest one was left alone; a busy neighbour was seen to make it 1.6 times slower and more
LEFT_ALONE = 1.25


class Probe:
    """Remembers its fastest time, and compares with it."""

    def __init__(self, watch_s: float = _WATCH_S) -> None:
        self._numbers = np.linspace(-3.0, 3.0, _NUMBERS, dtype=np.float32)
        self._space = np.empty_like(self._numbers)
        self.fastest = float("inf")
        end = perf_counter() + watch_s
        while self.fastest == float("inf") or perf_counter() < end:
            self.seconds()

    def seconds(self) -> float:
        """How long the probe takes now, once its code and its numbers are in the caches again."""
        for times in (_WARM, _TIMES):
            begin = perf_counter()
            for _ in range(times):
                np.exp(self._numbers, out=self._space)
            taken = perf_counter() - begin
        self.fastest = min(self.fastest, taken)
        return taken

    def quiet(self) -> bool:
        """True while nothing else runs on this core."""
        return self.seconds() <= LEFT_ALONE * self.fastest
