"""Detection of words in a stream of scores: each step of the definition by hand, and all at once equal to row by row."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetk.core.errors import UsageError
from edgetk.tasks.speech.detect import Detection, Detector, Rule, detections, sigmoid, smoothed

LABELS = ("yes", "no", "stop")


def run(rows: list[list[float]], rule: Rule) -> list[Detection]:
    detector = Detector(rule, LABELS)
    return [hit for row in rows if (hit := detector.push(np.array(row, dtype=np.float32))) is not None]


def test_mean_of_the_window_then_sigmoid_by_hand() -> None:
    rows = [[0.0, 0.0, -9.0], [2.0, 0.0, -9.0], [4.0, 0.0, -9.0]]
    (hit,) = run(rows, Rule(2, 0.9, 1))  # means of "yes": -, 1, 3
    assert (hit.step, hit.label) == (2, 0)
    assert hit.score == pytest.approx(1 / (1 + math.exp(-3)))


def test_nothing_is_decided_before_the_window_is_full() -> None:
    detector = Detector(Rule(3, 0.5, 1), LABELS)
    high = np.array([9.0, 0.0, 0.0])
    assert detector.push(high) is None
    assert detector.push(high) is None
    assert detector.probabilities is None
    assert detector.push(high) == Detection(2, 0, float(sigmoid(np.array(9.0))))
    detector.reset()
    assert detector.push(high) is None
    assert detector.probabilities is None


def test_threshold_is_reached_at_equality_and_first_of_equals_wins() -> None:
    rule = Rule(1, 0.5, 1, 0)
    assert run([[0.0, 0.0, -1.0]], rule) == [Detection(0, 0, 0.5)]
    assert run([[-0.001, -0.001, -1.0]], rule) == []


def test_hold_wants_steps_in_a_row_of_one_word() -> None:
    rule = Rule(1, 0.9, 3, 0)
    yes, no, low = [5.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 0.0]
    assert [h.step for h in run([yes, yes, low, yes, yes, no, yes, yes, yes], rule)] == [8]
    assert [h.step for h in run([yes, yes, no, no, no], rule)] == [4]


def test_refractory_counts_from_the_last_detection_of_any_word() -> None:
    rule = Rule(1, 0.9, 1, 3)
    yes, no = [5.0, 0.0, 0.0], [0.0, 5.0, 0.0]
    assert [(h.step, h.label) for h in run([yes, no, no, no, no, yes, yes], rule)] == [(0, 0), (3, 1), (6, 0)]


def test_only_watched_words_fire_and_others_still_win_the_argmax() -> None:
    rule = Rule(1, 0.9, 1, 0, ("no",))
    assert run([[5.0, 4.0, 0.0]], rule) == []
    assert [h.label for h in run([[3.0, 4.0, 0.0]], rule)] == [1]


def test_time_is_the_end_of_the_newest_frame() -> None:
    assert Detection(0, 0, 1.0).heard_s(lookahead=0) == pytest.approx(0.025)
    assert Detection(94, 0, 1.0).heard_s(lookahead=5) == pytest.approx(0.025 + 0.99)


def test_extreme_logits_stay_finite() -> None:
    assert sigmoid(np.array([-1e9, 1e9])).tolist() == [pytest.approx(0.0, abs=1e-300), 1.0]


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 999),
    steps=st.integers(0, 40),
    window=st.integers(1, 12),
    hold=st.integers(1, 4),
    refractory=st.integers(0, 9),
    words=st.sampled_from([(), ("no",), ("yes", "stop")]),
)
def test_whole_streams_give_the_bits_of_the_row_by_row_detector(
    seed: int, steps: int, window: int, hold: int, refractory: int, words: tuple[str, ...]
) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, (steps, 3)).astype(np.float32)
    rule = Rule(window, 0.7, hold, refractory, words)
    detector = Detector(rule, LABELS)
    hits, rows = [], []
    for row in logits:
        if (hit := detector.push(row)) is not None:
            hits.append(hit)
        if detector.probabilities is not None:
            rows.append(detector.probabilities)
    whole = smoothed(logits, window)
    assert np.array_equal(whole, np.array(rows).reshape(-1, 3))
    assert detections(whole, rule, LABELS) == hits
    assert all(b.step - a.step >= max(refractory, 1) for a, b in itertools.pairwise(hits))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 0}, "window must be at least 1 steps, got 0; raise it"),
        ({"hold": 0}, "hold must be at least 1 steps, got 0; raise it"),
        ({"refractory": -1}, "refractory must be at least 0 steps, got -1; raise it"),
        ({"threshold": 1.0}, "threshold must be a probability between 0 and 1, got 1; 0.95 is one"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=f"^detector: {message}$"):
        Rule(**settings)  # type: ignore[arg-type]


def test_a_word_that_is_no_label_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"^detector: a watched word must be a label of the model, got 'stopp'; did you mean stop\?$"
    ):
        Detector(Rule(words=("stopp",)), LABELS)
