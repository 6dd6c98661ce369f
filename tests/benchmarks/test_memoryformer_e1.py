"""The experiment's own parts: rates, groups, claims, and that an interrupted run ends as the uninterrupted one."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from experiment_scripts import load

from edgetk.models.layers.memory_layer import MemoryLayer


@pytest.fixture(scope="module")
def e1() -> ModuleType:
    module = load("memoryformer_e1")
    module.LENGTH = 16
    small = replace(module.SHAPE, length=16, layers=1, dim=16, heads=2, bits=4)
    module.RUNS = {
        "dense": (replace(small, blocks="dense"), 1.0),
        "memory": (small, 3.0),
    }
    return module


@pytest.fixture
def text() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randint(97, 105, (2000,), generator=generator).byte() for name in ("train", "validation", "test")}


def arguments(**changes: Any) -> argparse.Namespace:
    given = {"seed": 0, "batch": 4, "lr": 1e-2, "device": "cpu", "windows": 20, **changes}
    return argparse.Namespace(**given)


def test_rates_by_hand(e1: ModuleType) -> None:
    assert [e1.share(step, 100) for step in (0, 4)] == pytest.approx([0.2, 1.0])
    assert e1.share(5, 100) == pytest.approx(1.0)
    assert e1.share(100, 100) == pytest.approx(0.1)
    assert 0.1 < e1.share(60, 100) < 0.6


def test_tables_have_their_rate_and_no_decay(e1: ModuleType) -> None:
    net = e1.MemoryFormer(e1.RUNS["memory"][0])
    groups = e1.groups(net, 1e-3, 3.0)
    rates = {len(g["params"]): (g["lr"], g["weight_decay"]) for g in groups}
    tables = sum(isinstance(m, MemoryLayer) for m in net.modules())
    assert rates[tables] == pytest.approx((3e-3, 0.0))
    assert sorted((g["lr"], g["weight_decay"]) for g in groups) == [(1e-3, 0.0), (1e-3, 0.1), (3e-3, 0.0)]
    assert sum(len(g["params"]) for g in groups) == len(list(net.parameters()))


def test_an_interrupted_run_ends_as_the_uninterrupted_one(e1: ModuleType, text: dict[str, torch.Tensor]) -> None:
    whole = e1.Run("memory", text, arguments(), 6)
    whole.train(6, lambda: None)
    first = e1.Run("memory", text, arguments(), 6)
    first.train(2, lambda: None)
    second = e1.Run("memory", text, arguments(), 6)
    second.restore(first.state())
    second.train(6, lambda: None)
    for name, value in whole.net.state_dict().items():
        assert torch.equal(second.net.state_dict()[name], value), name
    assert whole.bits("validation") == second.bits("validation")


def test_training_learns_and_the_row_says_what_came_out(e1: ModuleType, text: dict[str, torch.Tensor], tmp_path: Path) -> None:
    args = arguments(checkpoints=tmp_path)
    row = e1.one("memory", text, args, 60)
    assert row["validation_bits_per_byte"] < 3.6  # eight letters: 3 bits at best, 8 at the start
    assert row["steps"] == 60
    assert set(row["bucket_entropy"]) == {f"blocks.0.{name}" for name in ("qkv", "expand", "reduce")}
    assert all(0 <= value <= 1 for value in row["bucket_entropy"].values())
    again = e1.one("memory", text, args, 60)
    assert again["validation_bits_per_byte"] == row["validation_bits_per_byte"]  # from its checkpoint, no step more


def test_claims_are_answered_where_all_runs_are_there(e1: ModuleType) -> None:
    def row(bits: float, macs: int) -> dict[str, Any]:
        return {"validation_bits_per_byte": bits, "cost": {"macs": macs}}

    rows = {"dense": row(2.0, 600), "memory": row(2.03, 100), "memory-lr1": row(2.1, 100)}
    assert e1.verdict(rows) == {
        "memory is within 2 % of dense": True,
        "memory has a sixth of the MACs outside attention, or fewer": True,
        "three times the rate for tables beats one": True,
    }
    rows["memory-tau4"] = row(2.0, 150)
    assert e1.verdict(rows)["tau = 8 beats tau = 4"] is False


def test_costs_by_the_papers_formulas(e1: ModuleType) -> None:
    dense, memory = (e1.cost(e1.RUNS[name][0]) for name in ("dense", "memory"))
    assert dense == {"macs": 12 * 16 * 16**2, "attention_macs": 2 * 16**2 * 16, "entries": 12 * 16**2}
    assert memory["macs"] == 16 * 4 * (3 * 20 + 4 + 24 + 6 + 16)
    assert memory["entries"] == 3 * 4 * 16 * 16 + 4 * 16 * 24 + 4 * 64 * 16
