"""The page on replacements says of boards what the predictor said, and that nobody measured it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PI = ("int8", "low rank", "pair", "pair, body", "tables", "tables, body")
JETSON = ("int8", "low rank", "pair, body", "tables, body")


def shown(times: float) -> str:
    return f"{times:.0f}" if times >= 9.95 else f"{times:.1f}" if times >= 0.95 else f"{times:.2f}"


def test_predicted_columns_are_those_of_the_results() -> None:
    found: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for row in json.loads((ROOT / "benchmarks/results/replacements_predicted.json").read_text())["rows"]:
        key = (f"{row['n']} x {row['m']} ({row['r']}, {row['s']})", str(row["tokens"]))
        found.setdefault(key, {})[row["board"].partition("-")[0]] = row["times_faster_than_float32"]
    page = (ROOT / "docs/replacing-matrices.md").read_text()
    _, part = page.split("## Time on a Raspberry Pi 5 and a Jetson: predicted, unvalidated")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if re.match(r"\| \d", line)]
    assert len(lines) == len(found)
    for first, tokens, *cells in lines:
        times = found[first, tokens]
        wanted = [times["raspberry"][name] for name in PI] + [times["jetson"][name] for name in JETSON]
        assert cells == [shown(x) for x in wanted]


def test_counted_instructions_are_those_of_the_results() -> None:
    rows = json.loads((ROOT / "benchmarks/results/kernel_instructions.json").read_text())["rows"]
    page = (ROOT / "docs/native-operators.md").read_text()
    for row in rows:
        if row["isa"] != "neon":
            continue
        shape = f"τ = {row['tau']}" if "tau" in row else f"r = {row['r']}, s = {row['s']}"
        wanted = (f"| `{row['kernel']}` |", shape, f"| {row['tokens']} |")
        (line,) = [x for x in page.splitlines() if all(part in x for part in wanted)]
        assert f"| {row['instructions_per_mac']:.2f} |" in line
