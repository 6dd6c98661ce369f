"""From samples to detections, as they arrive: front end, gate, network, detector; and how long each of them takes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgetk.core.errors import InputError, PostconditionError
from edgetk.tasks.speech import front_end as fe
from edgetk.tasks.speech.detect import Detection, Detector, Rule
from edgetk.tasks.speech.gate import SILENCE_DB, Gate, GateRule, levels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgetk.toolkit.stream import Streamed

    Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Heard:
    """A detected word: `time_s` is how much of the sound had been heard."""

    time_s: float
    word: str
    score: float

    def to_json(self) -> dict[str, Any]:
        return {"time_s": round(self.time_s, 3), "word": self.word, "score": round(self.score, 4)}


class Timings:
    """Durations in constant memory: a histogram whose bins are 2 % wide, from 1 µs to 100 s."""

    _BIN: Final = math.log(1.02)

    def __init__(self) -> None:
        self._counts = np.zeros(1 + int(math.log(1e8) / self._BIN), dtype=np.int64)
        self.total_s, self.n, self.longest_s = 0.0, 0, 0.0

    def add(self, seconds: float) -> None:
        place = int(math.log(max(seconds, 1e-6) / 1e-6) / self._BIN)
        self._counts[min(place, len(self._counts) - 1)] += 1
        self.total_s += seconds
        self.n += 1
        self.longest_s = max(self.longest_s, seconds)

    def percentile(self, q: float) -> float:
        """The duration that `q` percent do not exceed, to 2 %; 0 where nothing was timed."""
        if not self.n:
            return 0.0
        place = int(np.searchsorted(np.cumsum(self._counts), q / 100 * self.n))
        return min(1e-6 * math.exp((place + 1) * self._BIN), self.longest_s)

    def to_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "p50_s": self.percentile(50),
            "p99_s": self.percentile(99),
            "max_s": self.longest_s,
            "total_s": self.total_s,
        }


class Listener:
    """One stream of sound. `probabilities` and `level_db` are the newest; `open` is the gate (always True without one).

    front_end, network   durations of one frame's features and of one step of the network with the detector
    """

    def __init__(self, model: Streamed, rule: Rule, gate: GateRule | None = None) -> None:
        from edgetk.tasks.speech.log_mel import StreamingLogMel

        self.model, self.rule, self.gate_rule = model, rule, gate
        self._detector = Detector(rule, model.labels)
        self._gate = Gate(gate) if gate else None
        self._before: deque[NDArray[np.float32]] = deque(maxlen=gate.preroll if gate else 0)
        self._front_end = StreamingLogMel()
        self.front_end, self.network = Timings(), Timings()
        self.sound_s = 0.0
        self.reset()

    def reset(self) -> None:
        """Start a new sound; the timings go on."""
        self._front_end.reset()
        self._tail: Samples = np.empty(0, dtype=np.float32)
        self._before.clear()
        self._frames = 0
        self.level_db = SILENCE_DB
        if self._gate:
            self._gate.reset()
        self.open = self._gate is None
        self._begin(0)

    @property
    def probabilities(self) -> NDArray[np.float64] | None:
        """Of the newest step; None while too little was heard, or the gate is closed."""
        return self._detector.probabilities if self.open else None

    @property
    def realtime_factor(self) -> float:
        """Computing time per second of sound; below 1 it keeps up."""
        return (self.front_end.total_s + self.network.total_s) / self.sound_s if self.sound_s else 0.0

    @property
    def least_s(self) -> float:
        """Seconds of sound before which no word can be detected: a full mean that counts for `hold` steps."""
        return Detection(self.rule.window + self.rule.hold - 2, 0, 0.0).heard_s(self.model.lookahead)

    @property
    def duty(self) -> float:
        """Share of the frames for which the network ran."""
        return self.network.n / self.front_end.n if self.front_end.n else 0.0

    def push(self, samples: Samples) -> list[Heard]:
        """Samples (n,) in [-1, 1], any n -> the words that they complete. Raises InputError for NaN or infinity."""
        import torch

        if not np.isfinite(samples).all():
            raise InputError(
                f"stream: samples must be finite, got NaN or infinity after {self.sound_s:.1f} s; check the source"
            )
        start = perf_counter()
        with torch.inference_mode():
            frames = self._front_end.push(torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))).numpy()
        loud = self._levels(samples)
        took = perf_counter() - start
        self.sound_s += len(samples) / fe.SAMPLE_RATE
        found: list[Heard] = []
        for frame, level in zip(frames, loud, strict=True):
            self.front_end.add(took / len(frames))
            found += self._frame(frame, float(level))
        return found

    def _frame(self, frame: NDArray[np.float32], level: float) -> list[Heard]:
        self.level_db = level
        index = self._frames
        self._frames += 1
        if self._gate is None:
            return self._step([frame])
        was, self.open = self.open, self._gate.push(level)
        found = []
        if self.open and not was:
            self._begin(index - len(self._before))
            found = self._step([*self._before, frame])
        elif self.open:
            found = self._step([frame])
        self._before.append(frame)
        return found

    def _begin(self, origin: int) -> None:
        """A fresh stream of the network whose first frame is number `origin` of the sound."""
        self.model.steps.reset()
        self._detector.reset()
        self._origin, self._waiting = origin, self.model.lookahead

    def _step(self, frames: Sequence[NDArray[np.float32]]) -> list[Heard]:
        found = []
        for frame in frames:
            start = perf_counter()
            row = self.model.steps(frame)
            hit = None
            if self._waiting:
                self._waiting -= 1
            elif not np.isfinite(row).all():
                raise PostconditionError(
                    f"model {self.model.name}: scores must be finite, got NaN or infinity after {self.sound_s:.1f} s; "
                    "look for an overflow in its state"
                )
            else:
                hit = self._detector.push(row)
            self.network.add(perf_counter() - start)
            if hit is not None:
                found.append(heard(hit, self.model, self._origin))
        return found

    def _levels(self, samples: Samples) -> NDArray[np.float64]:
        self._tail = np.concatenate((self._tail, samples))
        found = levels(self._tail)
        self._tail = self._tail[len(found) * fe.HOP_SAMPLES :]
        return found

    def to_json(self) -> dict[str, Any]:
        """What was heard in all, and what it cost."""
        return {
            "sound_s": round(self.sound_s, 3),
            "frames": self.front_end.n,
            "network_steps": self.network.n,
            "duty": self.duty,
            "realtime_factor": self.realtime_factor,
            "lookahead_s": self.model.lookahead * self.model.period_s,
            "window_s": fe.WINDOW_SAMPLES / fe.SAMPLE_RATE,
            "front_end": self.front_end.to_json(),
            "network": self.network.to_json(),
        }


def heard(hit: Detection, model: Streamed, origin: int = 0) -> Heard:
    """A detection of a stream that began with frame `origin`, with the time in the sound."""
    time_s = hit.heard_s(model.lookahead) + origin * model.period_s
    return Heard(time_s, model.labels[hit.label], hit.score)


__all__ = ["Heard", "Listener", "Timings", "heard"]
