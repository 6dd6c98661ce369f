"""A stream on a board that is always on: its duty cycle, its average power, and the slowest clock that keeps up.

    duty = latency / period,     average power = duty · running power + (1 − duty) · idle power

The clock comes from the board's power modes, each with its own clock and powers: racing to idle does not always win.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgetk.core.target import Mode, Target


@dataclass(frozen=True)
class Duty:
    """One power mode of a board at one stream: `duty` above 1 means that it cannot keep up."""

    mode: Mode
    duty: float
    average_w: float | None


def duty(latency_s: float, period_s: float, mode: Mode) -> Duty:
    """Share of the time that is computed in, and the power that this averages to; None where a power is not known."""
    share = latency_s / period_s
    known = mode.power_w is not None and mode.idle_w is not None and share <= 1
    return Duty(mode, share, share * mode.power_w + (1 - share) * mode.idle_w if known else None)  # type: ignore[operator]


def present(target: Target) -> Mode | None:
    """The board as it is, as a mode."""
    return None if target.clock_hz is None else Mode(target.power_mode, target.clock_hz, target.power_w, target.idle_w)


def in_mode(target: Target, mode: Mode) -> Target:
    """The board at the clock and the powers of `mode`."""
    return replace(target, power_mode=mode.name, clock_hz=mode.clock_hz, power_w=mode.power_w, idle_w=mode.idle_w)
