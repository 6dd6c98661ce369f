"""Factorization to a budget: bits and MACs to the digit, shared dictionaries, the metric of the data, training after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from pass_models import Frozen, Words, applied, around, outputs
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.errors import PreconditionError, RecipeError
from edgetk.models.layers.dense_sparse import DenseSparseLinear, groups_of
from edgetk.models.layers.dense_sparse_sizes import svd_rank
from edgetk.models.layers.quantized import LowRank
from edgetk.passes import _budget
from edgetk.passes._fisher import row_information
from edgetk.passes.factorize import Factorize
from edgetk.passes.finetune import Finetune
from edgetk.passes.refactorize import Refactorize
from edgetk.quant.quantize import Quantize

CLIPS = Words().split("validation").features
BUDGET = {"ratio": 1.6}


class Block(nn.Module):
    """Whole inputs (B, 16, 8): two matrices that read one tensor, a tall one, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(128, 80), nn.Linear(128, 80, bias=False)
        self.down = nn.Linear(160, 32)
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        both = torch.cat([self.query(x), self.key(x)], dim=1)
        y: Tensor = self.head(torch.relu(self.down(torch.relu(both))))
        return y


def block(data: Any = None) -> Bundle:
    torch.manual_seed(0)
    bundle = around(Block(), 16, 8, data=data or Words())
    return replace(bundle, original=bundle.body)


def compressed(settings: Mapping[str, Any], bundle: Bundle | None = None) -> Bundle:
    return applied(Factorize(min_weights=1024, rounds=3, calibration=48, **{"budget": BUDGET, **settings}), bundle or block())


def test_matrices_with_one_input_share_a_dictionary() -> None:
    after = compressed({"method": "dense-sparse"})
    groups = groups_of(after.module)
    assert [(g.layers, g.side, g.short, g.lines) for g in groups] == [
        (("query", "key"), "outputs", 128, 160),
        (("down",), "inputs", 32, 160),
    ]
    assert [g.to_json() for g in groups] == after.lineage[-1].structure["groups"]  # type: ignore[index]
    apart = compressed({"method": "dense-sparse", "share": False})
    assert [g.layers for g in groups_of(apart.module)] == [("query",), ("key",), ("down",)]


def test_notes_count_what_the_formula_says() -> None:
    after = compressed({"method": "dense-sparse"})
    notes, groups = after.lineage[-1].notes, groups_of(after.module)
    assert notes["bytes_before"] == 4 * (128 * 160 + 160 * 32)
    assert notes["bytes_after"] == -(-sum(g.bits() for g in groups) // 8)
    assert notes["macs_after"] == sum(g.short * g.rank + g.lines * g.nonzeros for g in groups)
    assert all(g.ratio() >= 1.6 for g in groups)
    assert notes["ratio"] >= 1.6
    assert notes["ratio_without_indices"] > notes["ratio"]
    for tried in notes["tried"].values():
        assert len(tried) > 1
    best = {layers: min(tried, key=tried.get) for layers, tried in notes["tried"].items()}
    assert {k: f"{v['rank']}, {v['nonzeros']}" for k, v in notes["sizes"].items()} == best


@pytest.mark.parametrize("method", ["svd", "fwsvd", "dense-sparse"])
def test_budgets_in_other_units_are_the_same_ratio(method: str) -> None:
    weights = 128 * 160 + 160 * 32
    same = [
        compressed({"method": method, "budget": {kind: value / 1.6}})
        for kind, value in (("bytes", 4 * weights), ("macs", weights))
    ]
    notes = [compressed({"method": method}).lineage[-1].notes, *(b.lineage[-1].notes for b in same)]
    assert notes[1]["bytes_after"] == notes[0]["bytes_after"] <= 4 * weights / 1.6
    assert notes[2]["macs_after"] <= weights / 1.6
    if method != "dense-sparse":
        assert (
            notes[0]["ranks"]
            == notes[2]["ranks"]
            == {
                "query": svd_rank(128, 80, 1.6),
                "key": svd_rank(128, 80, 1.6),
                "down": svd_rank(160, 32, 1.6),
            }
        )


def test_grouped_indices_are_one_of_each_group() -> None:
    after = compressed({"method": "dense-sparse", "grouped": True, "layers": ("down",)})
    (group,) = groups_of(after.module)
    assert group.grouped
    assert group.index_bits < 5
    indices = after.module.get_submodule("down").sparse.indices.long()  # type: ignore[union-attr]
    step = group.rank // group.nonzeros
    assert torch.equal(indices // step, torch.arange(group.nonzeros).expand(160, -1))


def test_what_layers_read_decides_what_is_kept() -> None:
    """Inputs that are never used cost nothing to lose."""

    class Quiet(Words):
        def split(self, name: str) -> Any:
            split = super().split(name)
            features = split.features.clone()
            features[:, 8:] = 0.0  # the last 64 of 128 inputs
            return replace(split, features=features)

    bundle, x = block(Quiet()), Quiet().calibration(48).flatten(1)
    for method in ("svd", "dense-sparse"):
        lost = []
        for activations in (True, False):
            settings = {"method": method, "activations": activations, "budget": {"ratio": 2.5}, "layers": ("query",)}
            layers = [b.module.get_submodule("query") for b in (bundle, compressed(settings, bundle))]
            with torch.no_grad():
                lost.append(float((layers[0](x) - layers[1](x)).norm()))
        assert lost[0] < 0.5 * lost[1]


def test_the_mean_of_what_is_lost_goes_into_the_bias() -> None:
    bundle = block()
    x = Words().calibration(48).flatten(1)
    after = compressed({"method": "dense-sparse", "budget": {"ratio": 3.0}, "layers": ("query",)}, bundle)
    with torch.no_grad():
        lost = after.module.get_submodule("query")(x) - bundle.module.get_submodule("query")(x)
    assert float(lost.std()) > 0.05
    assert float(lost.mean(0).abs().max()) < 1e-4


def test_information_is_the_squared_gradient_of_single_examples() -> None:
    bundle = block()
    got = row_information(bundle, ["down"], 4)["down"]
    draw, rows = bundle.data.batches("cpu")  # type: ignore[union-attr]
    by_hand = torch.zeros(160)
    layer: Any = bundle.module.get_submodule("down")
    for row in torch.linspace(0, rows - 1, 4).long():
        x, targets = draw(row[None])
        bundle.module.zero_grad()
        nn.functional.cross_entropy(bundle.module(x), targets).backward()
        by_hand += layer.weight.grad.square().sum(0) / 4
    torch.testing.assert_close(got.float(), by_hand)


def test_rows_without_information_are_given_up_first() -> None:
    weight, information = torch.randn(6, 8, dtype=torch.float64), torch.tensor([1.0] * 4 + [1e-12] * 4, dtype=torch.float64)
    u, v = _budget._weighted_pair(weight, information)
    torch.testing.assert_close(u @ v, weight, rtol=1e-4, atol=1e-4)
    rest = weight - u[:, :4] @ v[:4]
    assert float(rest[:, :4].norm()) < 1e-3 * float(weight[:, :4].norm())


def test_factors_are_trained_on_frozen_or_not() -> None:
    bundle = compressed({"method": "dense-sparse", "budget": {"ratio": 3.0}})
    indices = {n: m.sparse.indices.clone() for n, m in bundle.module.named_modules() if isinstance(m, DenseSparseLinear)}

    def moved(after: Bundle) -> bool:
        layers = after.module.named_modules()
        return any(not torch.equal(m.sparse.indices, indices[n]) for n, m in layers if isinstance(m, DenseSparseLinear))

    def correct(b: Bundle) -> int:
        return int((outputs(b, CLIPS).argmax(1) == Words().split("validation").labels).sum())

    frozen = applied(Finetune(epochs=6, batch=16, lr=3e-3, loss="ce", augment="none", device="cpu", average=0.0), bundle)
    assert not moved(frozen)
    results = {"frozen": correct(frozen)}
    for variant in ("a", "b"):
        made = Refactorize(variant, epochs=6, batch=16, lr=3e-3, device="cpu")
        after = applied(made, bundle)
        assert groups_of(after.module) == groups_of(bundle.module)
        assert after.lineage[-1].notes["support_moved"] > 0.01
        assert after.lineage[-1].notes["steps"] == 6 * (96 // 16)
        results[variant] = correct(after)
        assert moved(after)
    assert min(results.values()) >= 46  # of 48; an untrained one has a third


def test_both_steps_as_one_pass() -> None:
    bundle, first = block(), {"budget": {"ratio": 3.0}, "min_weights": 1024, "rounds": 3, "calibration": 48}
    after = applied(Refactorize(factorize=first, epochs=1, batch=16, lr=3e-3, device="cpu"), bundle)
    groups = groups_of(after.module)
    assert [g.layers for g in groups] == [("query", "key"), ("down",)]
    record = after.lineage[-1]
    assert record.notes["factorize"]["bytes_after"] == -(-sum(g.bits() for g in groups) // 8)
    fresh = Refactorize().rebuild(Block(), record.structure or {})
    fresh.load_state_dict(after.module.state_dict())
    torch.testing.assert_close(fresh.eval()(CLIPS), outputs(after, CLIPS))


def test_nothing_to_refactorize() -> None:
    bundle = block()
    result = Refactorize(epochs=1, batch=16, device="cpu")(bundle)
    assert not result.modified
    assert result.notes["why"].startswith("there are no dense-sparse layers")


def test_low_rank_layers_of_a_budget_are_pairs() -> None:
    after = compressed({"layers": ("query", "down")})
    kinds = {n: type(m) for n, m in after.module.named_children()}
    assert kinds == {"query": LowRank, "key": nn.Linear, "down": LowRank, "head": nn.Linear}


def test_refusals() -> None:
    bundle = block()
    with pytest.raises(
        PreconditionError, match=r"factorize: needs a linear layer of one of up in .*, got none; correct layers"
    ):
        Factorize(min_weights=64, budget=BUDGET, layers=("up",)).check(bundle)
    with pytest.raises(PreconditionError, match=r"got none; correct layers or lower min_weights"):
        Factorize(budget=BUDGET).check(bundle)
    with pytest.raises(PreconditionError, match="factorize: fwsvd needs training data, for its gradients, got none"):
        Factorize(method="fwsvd", min_weights=64, budget=BUDGET).check(block(Frozen()))
    with pytest.raises(
        PreconditionError, match=r"a budget must be below what the 4 layers have now, got 1e\+06 bytes \(ratio 0\.1"
    ):
        Factorize(min_weights=64, budget={"bytes": 1e6}).check(bundle)
    with pytest.raises(PreconditionError, match="query, key must have room for a coefficient a line at ratio 60, got none"):
        compressed({"method": "dense-sparse", "budget": {"ratio": 60.0}})
    quantized = applied(Quantize(min_weights=64, max_drop=1.0, max_change=1.0), bundle)
    with pytest.raises(
        PreconditionError, match="refactorize: must come before quantize, got integer weights; change the order"
    ):
        Refactorize().check(quantized)
    with pytest.raises(PreconditionError, match="refactorize: needs training data, got none"):
        Refactorize().check(block(Frozen()))
    after = compressed({"method": "dense-sparse"})
    with pytest.raises(PreconditionError, match=r"variant b needs the dense matrix of query, got none in the model as it was"):
        Refactorize("b").check(replace(after, original=after.body))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"method": "qr"}, "factorize: method must be one of svd, fwsvd, dense-sparse, got 'qr'; correct the recipe"),
        (
            {"budget": {"size": 2}},
            r"factorize: budget must be one of ratio, bytes, macs with a number above 0, got \{'size': 2\}",
        ),
        ({"budget": {"macs": 2, "bytes": 2}}, "factorize: budget must be one of ratio, bytes, macs"),
        ({"budget": {"macs": 0}}, "factorize: budget must be one of ratio, bytes, macs with a number above 0"),
        ({"budget": {"ratio": 1.0}}, "factorize: a ratio must be above 1, got 1.0; correct the recipe"),
        ({"device": "tpu"}, "factorize: device must be auto, cpu or cuda, got 'tpu'; correct the recipe"),
        ({"method": "fwsvd"}, "factorize: fwsvd needs a budget, got none; add one such as {ratio = 2.8}"),
        ({"budget": BUDGET, "ranks": {"a": 1}}, "factorize: ranks and a budget must not be given together, got both"),
    ],
)
def test_settings_of_budgets_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        Factorize(**settings)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"variant": "c"}, "refactorize: variant must be a or b, got 'c'; correct the recipe"),
        ({"factorize": {"rank": 3}}, "refactorize: factorize must have settings of that pass, got 'rank'; did you mean ranks"),
        ({"factorize": {"method": "svd"}}, "the method of factorize must be dense-sparse, got 'svd'; leave it out"),
        ({"freeze": 1.5}, r"refactorize: freeze must be in \[0, 1\] and decay at least 0, got 1.5 and 0.0002; correct"),
        ({"device": "tpu"}, "refactorize: device must be auto, cpu or cuda and seed at least 0, got 'tpu' and 0; correct"),
    ],
)
def test_settings_of_refactorize_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        Refactorize(**settings)
