"""When a stream of class scores says that a word was heard: smoothing, threshold, hold and refractory period.

This is the definition for every runner, in Python, C++ and C. Row t are the scores (logits) of the network for one frame:

    1. Before every step, all states whose names begin with `state_head_` are set to their start (zeros). They are sums
       over everything since a stream began; without them a step gives the logits of its own frame alone.
    2. The first `lookahead` rows of a stream belong to no frame: they are dropped (LMUFormer: 5), and t counts from
       the first one kept.
    3. mean_t = (z_{t-window+1} + … + z_t) / window, added in this order in float64. Nothing is decided before
       `window` rows are there. The ring of rows is summed anew each step, so that nothing drifts in a day.
    4. p_t = 1 / (1 + exp(-mean_t)): the networks are trained with one binary cross-entropy per class, so "none of the
       words" is a row of small p, and no class for silence is needed.
    5. k = argmax of p_t over all labels, the first one of equals. It counts if k is one of the watched words and
       p_t[k] >= threshold; `hold` steps in a row must count for the same k.
    6. Then k is detected, at step t, unless fewer than `refractory` steps passed since the last detection of any word.
       A detection, and a suppressed one, leave the count of step 5 as it is: a word that stays up fires again after
       the refractory period.

Averaging logits and then taking the sigmoid is what the networks are trained for on clips. Smoothing and refractory follow
the posterior handling of Chen, Parada & Heigold, ICASSP 2014, with logits in place of posteriors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from edgetk.core.errors import UsageError, closest
from edgetk.tasks.speech import front_end as fe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.float64]

#: states that begin so are cleared before every step (step 1)
CLEARED: Final = "state_head_"


@dataclass(frozen=True)
class Rule:
    """Settings of a detector; the unit of time is one step (10 ms)."""

    #: rows whose logits are averaged
    window: int = 60
    #: probability from which on a word counts, in (0, 1)
    threshold: float = 0.95
    #: steps in a row that must count for the same word
    hold: int = 5
    #: fewest steps between two detections
    refractory: int = 150
    #: the words to watch; empty for all labels
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("window", 1), ("hold", 1), ("refractory", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"detector: {name} must be at least {least} steps, got {getattr(self, name)}; raise it")
        if not 0.0 < self.threshold < 1.0:
            raise UsageError(f"detector: threshold must be a probability between 0 and 1, got {self.threshold:g}; 0.95 is one")

    def watched(self, labels: Sequence[str]) -> tuple[bool, ...]:
        """Which of `labels` are watched. Raises UsageError for a word that is no label."""
        for word in self.words:
            if word not in labels:
                raise UsageError(
                    f"detector: a watched word must be a label of the model, got {word!r}; {closest(word, labels)}"
                )
        return tuple(not self.words or label in self.words for label in labels)


@dataclass(frozen=True)
class Detection:
    """Word number `label` was heard at `step`, counted from the first row that belongs to a frame, with probability `score`."""

    step: int
    label: int
    score: float

    def heard_s(self, lookahead: int) -> float:
        """Seconds of sound that had to be heard for this decision: to the end of the newest frame that its row depends on."""
        return ((self.step + lookahead) * fe.HOP_SAMPLES + fe.WINDOW_SAMPLES) / fe.SAMPLE_RATE


class Detector:
    """Steps 3 to 6, row by row. `probabilities` are those of the newest step; None before the window is full."""

    def __init__(self, rule: Rule, labels: Sequence[str]) -> None:
        self.rule = rule
        self._watched = rule.watched(labels)
        self._ring = np.zeros((rule.window, len(labels)))
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        self.probabilities: Rows | None = None
        self._rows = 0
        self._trigger = Trigger(self.rule, self._watched)

    def push(self, logits: NDArray[np.floating]) -> Detection | None:
        """One row (K,) -> what it completes."""
        window, step = self.rule.window, self._rows
        self._ring[step % window] = logits
        self._rows += 1
        if self._rows < window:
            return None
        total = np.zeros(self._ring.shape[1])
        for age in range(window - 1, -1, -1):
            total += self._ring[(step - age) % window]
        self.probabilities = sigmoid(total / window)
        label = int(self.probabilities.argmax())
        return self._trigger.push(step, label, float(self.probabilities[label]))


class Trigger:
    """Steps 5 and 6: from the best label and its probability after each step to detections."""

    def __init__(self, rule: Rule, watched: Sequence[bool]) -> None:
        self._rule, self._watched = rule, watched
        self._last, self._held, self._seen = -math.inf, 0, (-2, -1)

    def push(self, step: int, label: int, score: float) -> Detection | None:
        """`step` may skip those that do not count; its number must grow."""
        if not self._watched[label] or score < self._rule.threshold:
            return None
        self._held = self._held + 1 if self._seen == (step - 1, label) else 1
        self._seen = (step, label)
        if self._held < self._rule.hold or step - self._last < self._rule.refractory:
            return None
        self._last = step
        return Detection(step, label, score)


def smoothed(logits: NDArray[np.floating], window: int) -> Rows:
    """Steps 3 and 4 for a whole stream at once: rows (T, K) -> probabilities (max(T - window + 1, 0), K).

    Row i belongs to step i + window - 1. The same bits as `Detector` gives.
    """
    count = max(len(logits) - window + 1, 0)
    total = np.zeros((count, logits.shape[1]))
    for age in range(window if count else 0):
        total += logits[age : age + count]
    return sigmoid(total / window)


def detections(probabilities: Rows, rule: Rule, labels: Sequence[str]) -> list[Detection]:
    """Steps 5 and 6 for what `smoothed` gave with the window of `rule`."""
    best = probabilities.argmax(1)
    score = probabilities[np.arange(len(best)), best]
    trigger = Trigger(rule, rule.watched(labels))
    found = []
    for row in np.flatnonzero(score >= rule.threshold):
        hit = trigger.push(int(row) + rule.window - 1, int(best[row]), float(score[row]))
        if hit is not None:
            found.append(hit)
    return found


def sigmoid(x: Rows) -> Rows:
    """1 / (1 + exp(-x)); logits beyond 700 either way are cut, where float64 has no more to tell."""
    p: Rows = 1.0 / (1.0 + np.exp(-np.clip(x, -700.0, 700.0)))
    return p


__all__ = ["CLEARED", "Detection", "Detector", "Rule", "Trigger", "detections", "sigmoid", "smoothed"]
