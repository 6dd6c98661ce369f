"""A voice-activity gate by energy alone: the network rests while nothing is louder than the background.

    level_t   power of the newest 10 ms, averaged over about 100 ms (first-order, 0.1 new), in dB of full scale
    floor_t   min(level_t, floor_{t-1} + rise), never below `quietest`: falls at once, follows a louder background slowly
    open_t    level_t >= floor_t + margin in one of the last `hang` + 1 steps

While the gate is closed only the front end runs. When it opens, the network begins a fresh stream with the `preroll` frames
before, so that the beginning of a word is not lost. The gate knows nothing of speech: a door opens it, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from edgetk.core.errors import UsageError
from edgetk.tasks.speech import front_end as fe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

#: level of digital silence, in dB of full scale
SILENCE_DB: Final = -100.0
#: share of the newest 10 ms in the averaged power
_NEW: Final = 0.1


@dataclass(frozen=True)
class GateRule:
    """Settings of the gate; steps are of 10 ms."""

    #: how far above the floor a level must be to open it, in dB
    margin_db: float = 6.0
    #: steps that it stays open after the last loud one: longer than any pause in a word, and than the detector's window
    hang: int = 100
    #: frames before the opening that the network hears, too
    preroll: int = 40
    #: how fast the floor rises, in dB a step: 3 dB a second
    rise_db: float = 0.03
    #: the lowest floor, in dB of full scale
    quietest_db: float = -70.0

    def __post_init__(self) -> None:
        if not self.margin_db > 0:
            raise UsageError(f"gate: the margin must be above 0 dB, got {self.margin_db:g}; 6 is one")
        if self.hang < 0 or self.preroll < 0:
            raise UsageError(f"gate: hang and preroll must be at least 0 steps, got {self.hang} and {self.preroll}; raise them")


class Gate:
    """Level by level: is it open?"""

    def __init__(self, rule: GateRule) -> None:
        self.rule = rule
        self.reset()

    def reset(self) -> None:
        """Start a new stream: closed, the floor at the first level."""
        self.floor_db, self._power = math.inf, -1.0
        self._quiet = self.rule.hang + 1

    def push(self, level_db: float) -> bool:
        """The level of the newest 10 ms -> whether the gate is open for them."""
        rule, power = self.rule, 10 ** (level_db / 10)
        self._power = power if self._power < 0 else self._power + _NEW * (power - self._power)
        level_db = 10 * math.log10(self._power)
        self.floor_db = max(min(level_db, self.floor_db + rule.rise_db), rule.quietest_db)
        self._quiet = 0 if level_db >= self.floor_db + rule.margin_db else self._quiet + 1
        return self._quiet <= rule.hang


def levels(samples: Samples) -> NDArray[np.float64]:
    """Samples (S,) in [-1, 1] -> the level after each frame, of its newest 10 ms: (1 + (S - 400) // 160,), dB of full scale."""
    count = max(0, 1 + (len(samples) - fe.WINDOW_SAMPLES) // fe.HOP_SAMPLES)
    skipped = fe.WINDOW_SAMPLES - fe.HOP_SAMPLES
    newest = samples[skipped : skipped + count * fe.HOP_SAMPLES].astype(np.float64).reshape(count, fe.HOP_SAMPLES)
    power = np.mean(newest**2, axis=1)
    level_db: NDArray[np.float64] = 10 * np.log10(np.maximum(power, 10 ** (SILENCE_DB / 10)))
    return level_db


def segments(level_db: NDArray[np.float64], rule: GateRule) -> list[tuple[int, int]]:
    """Frames [start, end) that the network hears of a whole sound, preroll included; two may overlap by a preroll."""
    gate, found, opened = Gate(rule), [], -1
    for t, level in enumerate(level_db.tolist()):
        if gate.push(level):
            opened = t if opened < 0 else opened
        elif opened >= 0:
            found.append((max(opened - rule.preroll, 0), t))
            opened = -1
    if opened >= 0:
        found.append((max(opened - rule.preroll, 0), len(level_db)))
    return found


__all__ = ["SILENCE_DB", "Gate", "GateRule", "levels", "segments"]
