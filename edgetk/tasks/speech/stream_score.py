"""What detections in a composed stream are worth: false rejects, false accepts per hour, the operating-point curve.

A detection of a word is right if its time lies within a clip of that word or at most `TOLERANCE_S` after its end, and no
earlier detection was right for the same clip. Every other detection is a false accept: of another word, of background, or a
second one of the same clip. A clip without a right detection is a false reject.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgetk.core.figures import Score
from edgetk.tasks.speech import front_end as fe
from edgetk.tasks.speech.streams import Occurrence

#: how long after the end of its clip a word may be detected, in seconds
TOLERANCE_S: Final = 0.5
#: thresholds of the curve
THRESHOLDS: Final = (
    *(0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.88, 0.9, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985),
    *(0.99, 0.993, 0.995, 0.997, 0.998, 0.999, 0.9995, 0.9998, 0.9999),
)  # fmt: skip
#: the streaming rule of MLPerf Tiny: most false positives and false negatives in 20 minutes with 50 keywords
MLPERF_MINUTES, MLPERF_SAID, MLPERF_MOST = 20.0, 50, 8


@dataclass(frozen=True)
class Count:
    """Detections against the truth. `accepts` are false ones: in clips of other words, in background, repeated."""

    said: int = 0
    right: int = 0
    in_words: int = 0
    in_background: int = 0
    repeated: int = 0
    seconds: float = 0.0

    @property
    def rejects(self) -> int:
        return self.said - self.right

    @property
    def accepts(self) -> int:
        return self.in_words + self.in_background + self.repeated

    def __add__(self, other: Count) -> Count:
        return Count(*(getattr(self, f) + getattr(other, f) for f in self.__dataclass_fields__))

    def to_json(self) -> dict[str, Any]:
        """Counts, the share of false rejects with its Wilson interval, false accepts per hour with their Poisson interval."""
        hours = self.seconds / 3600
        low, high = poisson95(self.accepts)
        missed = Score(self.rejects, self.said)
        return {
            "said": self.said,
            "false_rejects": self.rejects,
            "false_reject_rate": missed.top1 if self.said else None,
            "false_reject_ci95": list(missed.ci95) if self.said else None,
            "false_accepts": self.accepts,
            "in_other_words": self.in_words,
            "in_background": self.in_background,
            "repeated": self.repeated,
            "hours": hours,
            "false_accepts_per_hour": self.accepts / hours,
            "false_accepts_ci95": [low / hours, high / hours],
        }


def count(found: Sequence[tuple[float, str]], occurrences: Sequence[Occurrence], words: Sequence[str], seconds: float) -> Count:
    """Detections (time, word) of the watched `words` in a stream of `seconds` against what is said in it."""
    length = fe.CLIP_SAMPLES / fe.SAMPLE_RATE
    right: set[int] = set()
    in_words = in_background = repeated = 0
    for time_s, word in found:
        here = [i for i, o in enumerate(occurrences) if o.start_s < time_s <= o.start_s + length + TOLERANCE_S]
        own = [i for i in here if occurrences[i].word == word]
        if fresh := [i for i in own if i not in right]:
            right.add(fresh[0])
        elif own:
            repeated += 1
        elif here:
            in_words += 1
        else:
            in_background += 1
    said = sum(o.word in words for o in occurrences)
    return Count(said, len(right), in_words, in_background, repeated, seconds)


def poisson95(events: int) -> tuple[float, float]:
    """The 95 % interval of a mean of which `events` were counted (Garwood 1936): exact tails, found by bisection."""

    def at_most(k: int, mean: float) -> float:
        """P(N <= k) for a Poisson variable."""
        if k < 0:
            return 0.0
        log_terms = [n * math.log(mean) - mean - math.lgamma(n + 1) for n in range(k + 1)] if mean > 0 else [0.0]
        top = max(log_terms)
        return min(1.0, math.exp(top) * math.fsum(math.exp(t - top) for t in log_terms))

    def solve(k: int, tail: float) -> float:
        """The mean at which P(N <= k) falls to `tail`."""
        low, high = 0.0, k + 10.0 + 10.0 * math.sqrt(k + 1.0)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(k, middle) > tail else (low, middle)
        return (low + high) / 2

    return (solve(events - 1, 0.975) if events else 0.0), solve(events, 0.025)


__all__ = ["MLPERF_MINUTES", "MLPERF_MOST", "MLPERF_SAID", "THRESHOLDS", "TOLERANCE_S", "Count", "count", "poisson95"]
