"""The energy gate: levels and its opening by hand, at once equal to step by step."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetk.core.errors import UsageError
from edgetk.tasks.speech.gate import SILENCE_DB, Gate, GateRule, levels, segments

QUICK = GateRule(margin_db=6.0, hang=2, preroll=3, rise_db=0.5, quietest_db=-70.0)


def test_levels_are_of_the_newest_ten_milliseconds() -> None:
    samples = np.zeros(400 + 2 * 160, dtype=np.float32)
    samples[400:560] = 0.1  # the newest part of the second frame alone
    assert levels(samples) == pytest.approx([SILENCE_DB, -20.0, SILENCE_DB], abs=1e-4)
    assert len(levels(samples[:399])) == 0


def test_floor_falls_at_once_rises_slowly_and_never_below_the_quietest() -> None:
    gate = Gate(QUICK)
    gate.push(-40.0)
    assert gate.floor_db == pytest.approx(-40.0)
    gate.push(-20.0)
    assert gate.floor_db == pytest.approx(-39.5)
    for _ in range(300):
        gate.push(-100.0)
    assert gate.floor_db == -70.0


def test_opens_on_a_step_of_the_averaged_power_and_stays_for_the_hang() -> None:
    gate = Gate(QUICK)
    quiet = [gate.push(-50.0) for _ in range(5)]
    # a tenth of -30 dB is 11 times the power of -50 dB: 10.4 dB more, above the margin
    loud = gate.push(-30.0)
    assert gate.push(-30.0)
    after = [gate.push(-100.0) for _ in range(60)]
    assert quiet == [False] * 5
    assert loud
    closed = after.index(False)
    # the average has to fall to floor + margin first, then come `hang` more steps
    power = 1e-3 - 0.9**2 * (1e-3 - 1e-5)
    steps = math.ceil(math.log(power / 10 ** ((gate.floor_db + 6) / 10)) / -math.log(0.9))
    assert closed <= steps + QUICK.hang + 1
    assert not any(after[closed:])


def test_a_steady_louder_background_closes_it_again() -> None:
    gate = Gate(QUICK)
    for _ in range(5):
        gate.push(-60.0)
    held = [gate.push(-40.0) for _ in range(60)]
    assert held[0]
    assert not held[-1]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([-60.0, -58.0, -30.0]), max_size=60), st.integers(0, 4), st.integers(0, 5))
def test_segments_are_the_open_stretches_with_their_preroll(level: list[float], hang: int, preroll: int) -> None:
    rule = GateRule(6.0, hang, preroll)
    gate = Gate(rule)
    opened = [gate.push(x) for x in level]
    found = segments(np.array(level), rule)
    inside = np.zeros(len(level), dtype=bool)
    for start, end in found:
        inside[start:end] = True
    assert all(inside[t] for t, is_open in enumerate(opened) if is_open)
    starts = [t for t, is_open in enumerate(opened) if is_open and (t == 0 or not opened[t - 1])]
    assert [start for start, _ in found] == [max(t - preroll, 0) for t in starts]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"margin_db": 0.0}, "the margin must be above 0 dB, got 0; 6 is one"),
        ({"hang": -1}, "hang and preroll must be at least 0 steps, got -1 and 40; raise them"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=f"^gate: {message}$"):
        GateRule(**settings)  # type: ignore[arg-type]
