"""What a verdict says about accuracy."""

from __future__ import annotations

import pytest

from edgetk.core.figures import Score
from edgetk.toolkit import judge
from edgetk.toolkit.recipe import Goals


@pytest.mark.parametrize(
    ("lost", "text"),
    [(0.0, "0.00"), (-0.0, "0.00"), (0.00001, "0.00"), (-0.00001, "0.00"), (0.0041, "-0.41"), (-0.0041, "+0.41")],
)
def test_a_change_has_a_sign_unless_it_is_zero(lost: float, text: str) -> None:
    verdict = judge.judge(lost, Score(95, 100, "validation"), Goals(), {"clip": None})
    assert verdict.reason == f"within the guard (accuracy on validation changed by {text} points)"
