"""The day-long stream: rounds of the same sound are compared with the second one and with the one before, by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from experiment_scripts import FOLDER, load


class Steps:
    """Adds a tenth of its count of resets and a slow leak to each frame."""

    def __init__(self, leak: float) -> None:
        self.leak, self.total = leak, 0.0

    def reset(self) -> None:
        self.total = 0.0

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        self.total += self.leak
        return np.array([frame[0], frame[0] + self.total], np.float32)

    def state(self) -> dict[str, np.ndarray]:
        return {"total": np.array([3 * self.total, 4 * self.total])}


def rounds(leak: float) -> list[dict[str, object]]:
    script = load("streaming_long", FOLDER.parent)
    model = SimpleNamespace(steps=Steps(leak), labels=("a", "b"), period_s=0.01)
    found: list[dict[str, object]] = script.run(model, np.arange(4, dtype=np.float32)[:, None], 5 * 4 * 0.01 / 3600)
    return found


def test_a_stream_that_repeats_itself_does_not_drift() -> None:
    found = rounds(0.0)
    assert len(found) == 5
    assert [row["drift"] for row in found] == [None, 0, 0, 0, 0]
    assert [row["change"] for row in found] == [None, 0, 0, 0, 0]
    assert [row["rows_changed"] for row in found] == [None, 0, 0, 0, 0]
    assert [row["largest"] for row in found] == [3.0] * 5


def test_a_leak_of_a_state_is_seen_in_every_round() -> None:
    found = rounds(0.25)  # 1 more after each round of four frames
    assert [row["drift"] for row in found] == [None, 0, 1, 2, 3]
    assert [row["change"] for row in found] == [None, 1, 1, 1, 1]
    assert [row["rows_changed"] for row in found] == [None, 4, 4, 4, 4]
    assert [row["norms"] for row in found][-1] == {"total": 25.0}
    assert found[-1]["hours"] == 5 * 4 * 0.01 / 3600
