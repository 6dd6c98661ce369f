"""The AxFormer experiment: searches, their controls and int8 on a small encoder, and the table's arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from experiment_scripts import load
from torch import Tensor

from edgetk.core.contracts import Split
from edgetk.models import axformer
from edgetk.passes._hierarchical import Found, Outcome, Rules

SIZES: dict[str, Any] = {"dim": 16, "layers": 2, "heads": 2, "ffn": 512, "vocabulary": 60, "positions": 12, "length": 10}


class Texts:
    """Token numbers of two classes: whether the first one is odd."""

    labels = ("even", "odd")

    def split(self, name: str) -> Split:
        x = torch.randint(1, 60, (40, 10), generator=torch.Generator().manual_seed(len(name)))
        return Split(name, x.float(), x[:, 0] % 2, "made up")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    load("dsformer_d1_d2")  # which it imports
    return load("axformer_a1_a4")


@pytest.fixture
def model(script: ModuleType) -> Any:
    torch.manual_seed(0)
    bundle = axformer.build("base", **SIZES)
    for weights in bundle.module.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    return script.Model(bundle, Texts(), "cpu")


def test_steps_are_what_was_accepted_one_after_the_other(script: ModuleType) -> None:
    names = [("the model as it is", True), ("hard layers.0.attention", True), ("layers.1.ffn", False), ("layers.1.ffn.0", True)]
    trace = tuple({"what": what, "accepted": accepted} for what, accepted in names)
    found = Found(frozenset({"layers.1.ffn.0"}), {"layers.0.attention": 30}, Outcome(1, 1, 1), Outcome(1, 1, 1), trace)
    assert list(script.steps_of(found)) == [
        ("hard layers.0.attention", set(), {"layers.0.attention": 30}),
        ("layers.1.ffn.0", {"layers.1.ffn.0"}, {"layers.0.attention": 30}),
    ]


def test_random_draws_have_as_many_of_each_kind(script: ModuleType, model: Any) -> None:
    wanted = {"attention": 1, "ffn": 1, "head": 1, "group": 1}
    draws = [script.drawn(model.blocks, wanted, np.random.default_rng(seed)) for seed in range(20)]
    for removed in draws:
        assert script.kinds(model.blocks, removed) == wanted
        assert len(removed) == 4  # and no part of a block that is gone
    assert len({frozenset(d) for d in draws}) > 1


@pytest.mark.parametrize("rules", [Rules(keep=4), Rules("size", "saved", max_loss=0.5), Rules("size", "worth", max_loss=0.5)])
def test_a_search_reports_what_is_left(script: ModuleType, model: Any, rules: Rules, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "SEARCHES", {"accuracy": rules})
    before = sum(p.numel() for p in model.net.layers.parameters())
    made = script.searched(model, "accuracy")
    assert made["removed"] or made["hard"]
    net = model.deleted(made["removed"], made["hard"])
    left = sum(p.numel() for p in net.layers.parameters())
    assert (made["parameters"], made["ratio"]) == (left, round(before / left, 4))
    assert made["largest_gap_of_masked_and_deleted"] < 1e-5
    dev = Texts().split("test")
    with torch.no_grad():
        logits: Tensor = net(dev.features)
    assert made["dev_loss"] == pytest.approx(float(F.cross_entropy(logits, dev.labels)), rel=1e-5)
    assert made["dev_accuracy"] == pytest.approx(float((logits.argmax(1) == dev.labels).float().mean()))
    assert made["steps"][-1]["dev_loss"] == pytest.approx(made["dev_loss"])
    if rules.goal == "accuracy":
        losses = [model.scored()["loss"], *(step["loss"] for step in made["steps"])]
        assert losses == sorted(set(losses), reverse=True)


def test_draws_beaten_are_counted(script: ModuleType, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: Iterator[float] = iter([0.5 + 0.02 * i for i in range(20)] + [0.6, 0.6])
    monkeypatch.setattr(model, "scored", lambda *_: {"dev_accuracy": (a := next(shares)), "dev_loss": 1 - a})
    monkeypatch.setattr(model, "importance", lambda criterion: {b.name: 1.0 for b in model.blocks})
    found = {"kinds": {"attention": 0, "ffn": 1, "head": 0, "group": 0}, "removed": ["layers.0.ffn"]}
    made = script.controls(model, "accuracy", {**found, "dev_accuracy": 0.595, "dev_loss": 0.405}, 0)
    assert (made["beats"], made["beats_by_loss"]) == (5, 5)  # 0.50, 0.52 ... 0.58
    assert made["95th_percentile"] == pytest.approx(0.5 + 0.02 * 18.05)
    assert made["magnitude"]["removed"] == ["layers.0.ffn"]


def test_bytes_in_int8_by_hand(script: ModuleType, model: Any) -> None:
    made = script.composed(model, None)
    matrices = 2 * (4 * 16 * 16 + 2 * 16 * 512)
    lines = 2 * (4 * 16 + 512 + 16)
    vectors = 2 * (4 * 16 + 512 + 16 + 4 * 16)  # biases, and both norms
    assert made["encoder_bytes"] == matrices + 4 * lines + 4 * vectors
    assert made["loss"] == pytest.approx(model.scored()["loss"], rel=0.05)
    assert made["loss"] != model.scored()["loss"]


def test_the_table_by_hand(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for seed, base, small in ((0, 0.80, 0.82), (1, 0.90, 0.89)):
        for piece, share, ratio in (("base", base, 1.0), ("accuracy", small, 1.5)):
            row = {"task": "mrpc", "seed": seed, "piece": piece, "loss": 1 - share, "dev_loss": 2 * (1 - share), "ratio": ratio}
            rows.append({**row, "dev_accuracy": share, "evaluations": 10})
    script.table({"rows": rows})
    lines = capsys.readouterr().out.splitlines()
    assert "| accuracy | 2 | 1.50 | 85.50 ± 3.50 | +0.50 ± 1.50 | 0.2900 | 10 |" in lines
    assert "A3 accuracy: loss fell by 0.0050 on the search's samples and by 0.0100 on dev (n=2 seeds)" in lines
