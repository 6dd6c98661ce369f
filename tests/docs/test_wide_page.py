"""The page on wide encoders says of every mixer what its class says, and counts parameters right."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

import pytest
import torch

from edgetk.models.layers import mixers
from edgetk.models.wide import VARIANTS, WideEncoder

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "wide.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def row(start: str) -> list[str]:
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("name", mixers.names())
def test_every_mixer_has_its_row(name: str) -> None:
    kind = mixers.find(name)
    _, _, source, complexity, streams = row(f"`{name}` |")
    assert (complexity, streams) == (kind.complexity, kind.streams)
    module = __import__(kind.__module__, fromlist=["x"])
    assert set(re.findall(r"arXiv:[\d.]+\d", source)) <= set(re.findall(r"arXiv:[\d.]+\d", str(module.__doc__)))


@pytest.mark.parametrize("name", ["2x8", "4x4", "1x48", "2x24", "3x16", "6x8"])
def test_parameters(name: str) -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in WideEncoder(VARIANTS[name]).parameters())
    assert row(f"`wide-{name}`")[-1] == f"{count:,}"


def test_accuracies_are_those_of_the_result() -> None:
    found = json.loads((RESULTS / "wide_w1_w3.json").read_text())["summary"]
    for shape in ("4x4", "2x8", "1x16"):
        seeds = found["accuracy_percent"][f"w1 softmax {shape}"]
        assert row(f"{shape} |")[1:5] == [f"{x:.2f}" for x in (*seeds, sum(seeds) / 3)]
    w1 = found["wide_minus_deep_points"]["w1"]
    assert f"**{w1['mean']:+.2f} points**".replace("-", "−") in PAGE


def test_memory_is_that_of_the_result() -> None:
    found = json.loads((RESULTS / "head_streaming.json").read_text())["bytes"]
    for heads in (4, 8, 16):
        cells = row(f"{heads} |")[1:]
        once, turns = found[f"{heads} heads, all at once"], found[f"{heads} heads, in turns"]
        expected = [part[key][1] for key in ("onnxruntime", "onnxruntime arena", "torch") for part in (once, turns)]
        expected.append(once["torch fused"][1])
        assert [float(cell.split()[0]) for cell in cells] == pytest.approx([x / 1e6 for x in expected], rel=0.02)


def test_heads_are_those_of_the_result() -> None:
    found = json.loads((RESULTS / "wide_w5.json").read_text())
    for mode in found["modes"].values():
        line = next(x for x in PAGE.splitlines() if x.startswith(f"| {len(mode['heads'])} | {mode['validation_loss']:.4f}"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        median = int(statistics.median(mode["random_test_right"]))
        assert cells[2:5] == [f"{mode['test_right']:,}", f"{median:,}", f"{mode['parameters']:,}"]
