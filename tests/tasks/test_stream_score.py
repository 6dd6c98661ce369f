"""False accepts and rejects by hand; Poisson intervals against published values."""

from __future__ import annotations

import pytest

from edgetk.tasks.speech.stream_score import Count, count, poisson95
from edgetk.tasks.speech.streams import Occurrence

SAID = (
    Occurrence(1.0, "yes", "yes/a.wav", 10.0),
    Occurrence(3.0, "no", "no/a.wav", 10.0),
    Occurrence(5.0, "yes", "yes/b.wav", 10.0),
)


def test_a_word_is_right_from_its_clips_start_to_half_a_second_after_its_end() -> None:
    for time_s, right in ((1.0, 0), (1.01, 1), (2.5, 1), (2.51, 0)):
        found = count([(time_s, "yes")], SAID, ["yes"], 10.0)
        assert (found.right, found.rejects, found.accepts) == (right, 2 - right, 1 - right)


def test_every_kind_of_false_accept() -> None:
    hits = [(1.5, "yes"), (2.2, "yes"), (3.5, "yes"), (8.0, "yes")]
    assert count(hits, SAID, ["yes"], 10.0) == Count(said=2, right=1, in_words=1, in_background=1, repeated=1, seconds=10.0)


def test_of_two_close_clips_each_takes_one_detection() -> None:
    close = (Occurrence(1.0, "yes", "a", 9.0), Occurrence(2.2, "yes", "b", 9.0))
    found = count([(2.3, "yes"), (2.4, "yes")], close, ["yes"], 5.0)
    assert (found.right, found.accepts) == (2, 0)


def test_all_words_watched_counts_each_by_its_own() -> None:
    found = count([(1.5, "no"), (3.5, "no"), (5.5, "yes")], SAID, ["yes", "no"], 10.0)
    assert (found.said, found.right, found.in_words) == (3, 2, 1)


def test_counts_add_and_become_rates() -> None:
    total = Count(40, 39, 1, 0, 1, 1800.0) + Count(60, 59, 0, 1, 0, 1800.0)
    assert total == Count(100, 98, 1, 1, 1, 3600.0)
    data = total.to_json()
    assert (data["false_rejects"], data["false_reject_rate"]) == (2, 0.02)
    assert (data["false_accepts"], data["false_accepts_per_hour"], data["hours"]) == (3, 3.0, 1.0)
    assert data["false_reject_ci95"] == pytest.approx([0.0055, 0.0700], abs=2e-4)  # Wilson, 2 of 100
    assert data["false_accepts_ci95"] == pytest.approx([0.619, 8.767], abs=1e-3)
    assert Count(seconds=60.0).to_json()["false_reject_rate"] is None


@pytest.mark.parametrize(
    ("events", "low", "high"), [(0, 0.0, 3.6889), (1, 0.0253, 5.5716), (5, 1.6235, 11.6683), (100, 81.364, 121.627)]
)
def test_poisson_interval_is_garwoods(events: int, low: float, high: float) -> None:
    assert poisson95(events) == pytest.approx((low, high), abs=1e-3)
