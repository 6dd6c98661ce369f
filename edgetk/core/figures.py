"""Figures that carry their origin: `Figure = Measured | Predicted | Missing`, which share no value field.

Text and JSON must match on the type; nothing can print a prediction as a measurement by accident. The only function that
takes both is `validate`, which says how far a prediction was off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgetk.core import units

#: metric name -> unit (SI); "1" is a plain count, "share" lies in [0, 1].
METRICS = {
    "latency": "s",
    "energy": "J",
    "energy_above_idle": "J",
    "ram": "B",
    "rss": "B",
    "flash": "B",
    "size_on_disk": "B",
    "macs": "1",
    "parameters": "1",
    "realtime_factor": "share",
    "duty_cycle": "share",
    "average_power": "W",
    "slowest_clock": "Hz",
}


@dataclass(frozen=True)
class Measured:
    """What a meter saw: `median` and `p95` of `n` samples after `warmup` discarded ones, in the metric's SI unit.

    `method` names the meter, `device` what it ran on, `conditions` all that must hold to see it again (threads, clocks, …).
    """

    metric: str
    median: float
    p95: float
    n: int
    warmup: int
    method: str
    device: str
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        unit = METRICS[self.metric]
        return f"{units.text(self.median, unit)} measured (n={self.n}, p95 {units.text(self.p95, unit)})"

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "measured",
            "metric": self.metric,
            "unit": METRICS[self.metric],
            "median": self.median,
            "p95": self.p95,
            "n": self.n,
            "warmup": self.warmup,
            "method": self.method,
            "device": self.device,
            "conditions": dict(self.conditions),
        }


@dataclass(frozen=True)
class Validation:
    """How a predictor compared with measurements: `n` runs, the median relative error, and where it was seen."""

    n: int
    median_error: float
    where: str

    def to_json(self) -> dict[str, Any]:
        return {"n": self.n, "median_error": self.median_error, "where": self.where}


@dataclass(frozen=True)
class Predicted:
    """What `predictor` computes from operation counts and a board's data; unvalidated unless `validation` says otherwise.

    `calibrated_on` names the measurements its constants come from; "" where they come from data sheets or are assumed.
    """

    metric: str
    value: float
    predictor: str
    device: str
    assumptions: tuple[str, ...] = ()
    validation: Validation | None = None
    calibrated_on: str = ""

    def __str__(self) -> str:
        return f"{units.text(self.value, METRICS[self.metric])} predicted ({self.method})"

    @property
    def method(self) -> str:
        """The predictor, what it was calibrated on, and its validated error or "unvalidated"."""
        found = self.validation
        trust = "unvalidated" if found is None else f"median error {units.percent(found.median_error, 0)}"
        return ", ".join((self.predictor, *((f"calibrated on {self.calibrated_on}",) if self.calibrated_on else ()), trust))

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "predicted",
            "metric": self.metric,
            "unit": METRICS[self.metric],
            "predicted": self.value,
            "predictor": self.predictor,
            "device": self.device,
            "assumptions": list(self.assumptions),
            "validation": self.validation.to_json() if self.validation else None,
            "calibrated_on": self.calibrated_on,
        }


@dataclass(frozen=True)
class Missing:
    """A figure that could not be had, and why. Never zero, never NaN."""

    metric: str
    reason: str
    device: str = ""

    def __str__(self) -> str:
        return f"not available: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        unit = METRICS[self.metric]
        return {"kind": "missing", "metric": self.metric, "unit": unit, "reason": self.reason, "device": self.device}


Figure = Measured | Predicted | Missing


def validate(predicted: Sequence[Predicted], measured: Sequence[Measured], where: str) -> Validation:
    """Median relative error of predictions against measurements of the same artifacts, in order."""
    errors = sorted(abs(p.value - m.median) / m.median for p, m in zip(predicted, measured, strict=True))
    middle = len(errors) // 2
    median = errors[middle] if len(errors) % 2 else (errors[middle - 1] + errors[middle]) / 2
    return Validation(len(errors), median, where)


@dataclass(frozen=True)
class Score:
    """Correct answers out of `n` on a named split; `top1` and its interval follow."""

    correct: int
    n: int
    split: str = "test"
    note: str = ""

    @property
    def top1(self) -> float:
        return self.correct / self.n if self.n else math.nan

    @property
    def ci95(self) -> tuple[float, float]:
        """95 % Wilson score interval (Wilson 1927; Brown, Cai & DasGupta 2001, eq. 4)."""
        if not self.n:
            return (0.0, 1.0)
        z, p, n = 1.959963984540054, self.top1, self.n
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return (max(0.0, centre - half), min(1.0, centre + half))

    def __str__(self) -> str:
        low, high = self.ci95
        return f"{units.percent(self.top1)} (n={self.n}, 95 % interval {100 * low:.1f}–{100 * high:.1f})"

    def to_json(self) -> dict[str, Any]:
        return {"top1": self.top1, "n": self.n, "ci95": list(self.ci95), "split": self.split, "note": self.note}
