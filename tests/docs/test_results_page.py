"""The page of results: every trained figure is the one in a model card, and what is still to be measured is marked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgetk.core.figures import Score
from edgetk.toolkit.source import WEIGHTS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
NAMES = ("lmuformer", "lmuformer-s", "lmuformer-xs", "ds-cnn")


def row(name: str, run: dict[str, Any], ships: bool) -> str:
    """One seed as the page prints it."""
    scores = [Score(run[split]["correct"], run[split]["n"]) for split in ("validation", "test", "test_all")]
    cells = [f"{100 * s.top1:.2f} ({100 * s.ci95[0]:.1f}–{100 * s.ci95[1]:.1f})" for s in scores]
    return f"| `{name}` | {run['seed']}{' (ships)' if ships else ''} | {run['best_epoch']} | {' | '.join(cells)} |"


@pytest.mark.parametrize("name", NAMES)
def test_every_seed_is_there(name: str) -> None:
    training = json.loads((WEIGHTS / f"{name}.json").read_text())["training"]
    expected = [row(name, run, run["seed"] == training["seed"]) for run in training["runs"]]
    assert [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` | ") and "(" in line.split("|")[4]] == expected
    median = training["median"]
    text = f"| `{name}` | median of {median['seeds']} | | | **{100 * median['test']:.2f}** | {100 * median['test_all']:.2f} |"
    assert text in PAGE


def test_no_table_row_is_empty_unless_it_is_marked() -> None:
    for line in PAGE.splitlines():
        if line.startswith("| ") and "…" in line:
            assert line.endswith("<!-- lead -->"), line
