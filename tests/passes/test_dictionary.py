"""Projection, sparse coding and alternation by hand and by brute force; straight-through gradients; bits to the digit."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save
from torch import Tensor, nn

from edgetk.core.errors import PreconditionError, UsageError
from edgetk.models.layers.dense_sparse import DenseSparseLinear, SparseFactor, fill, groups_of, install, pack, plan, unpack
from edgetk.models.layers.dense_sparse_sizes import Group, most_nonzeros, svd_rank
from edgetk.passes import _dictionary as d
from edgetk.passes import _straight_through as stf


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- projection (spec 6.1)


def test_projection_is_the_nearest_sparse_matrix() -> None:
    shadow = drawn(8, 1)
    best = float((shadow - d.project(shadow, 3)).norm())
    for rows in itertools.combinations(range(8), 3):  # every support, with its best numbers
        z = torch.zeros_like(shadow)
        z[list(rows)] = shadow[list(rows)]
        assert best <= float((shadow - z).norm()) + 1e-12
    supports = torch.rand(10_000, 8, generator=torch.Generator().manual_seed(1)).argsort(1)[:, :3]
    others = torch.zeros(10_000, 8, dtype=torch.float64).scatter(1, supports, drawn(10_000, 3, seed=2))
    assert best <= float((shadow.T - others).norm(dim=1).min())


def test_of_equal_numbers_the_lowest_row_is_kept() -> None:
    assert d.support(torch.tensor([[2.0], [-1.0], [1.0], [-2.0], [1.0]]), 3)[:, 0].tolist() == [True, True, False, True, False]
    assert d.support(torch.zeros(4, 1), 2)[:, 0].tolist() == [True, True, False, False]
    grouped = d.support(torch.tensor([[1.0], [-1.0], [0.0], [3.0]]), 2, grouped=True)
    assert grouped[:, 0].tolist() == [True, False, False, True]


@settings(max_examples=40, deadline=None)
@given(rank=st.integers(1, 12), nonzeros=st.integers(1, 12), columns=st.integers(1, 5), seed=st.integers(0, 99))
def test_every_column_has_as_many(rank: int, nonzeros: int, columns: int, seed: int) -> None:
    nonzeros = min(nonzeros, rank)
    shadow = drawn(rank, columns, seed=seed).round()  # many equal ones
    assert d.support(shadow, nonzeros).sum(0).tolist() == [nonzeros] * columns
    if rank % nonzeros == 0:
        kept = d.support(shadow, nonzeros, grouped=True)
        assert kept.reshape(nonzeros, -1, columns).sum(1).tolist() == [[1] * columns] * nonzeros


# --- nesting and monotony (spec 6.2)


def test_the_identity_as_dictionary_gives_the_matrix_itself() -> None:
    matrix = drawn(6, 9)
    kept = torch.ones(6, 9, dtype=torch.bool)
    s = d.refit(matrix, torch.eye(6, dtype=torch.float64), kept, 6)
    torch.testing.assert_close(s, matrix, rtol=1e-5, atol=1e-5)


def test_all_coefficients_on_singular_vectors_are_the_low_rank_pair() -> None:
    matrix = drawn(8, 12)
    u, values, _ = torch.linalg.svd(matrix)
    s = d.refit(matrix, u[:, :3].contiguous(), torch.ones(3, 12, dtype=torch.bool), 3)
    error = d.relative_error(matrix, d.Factors(u[:, :3], s))
    assert error == pytest.approx(float((values[3:].square().sum() / values.square().sum()).sqrt()), rel=1e-5)


def test_more_coefficients_never_hurt() -> None:
    matrix = drawn(10, 30)
    start = d.start(matrix, 8, torch.Generator().manual_seed(0))
    correlations = start.dictionary.T @ matrix
    errors = []
    for s in range(1, 9):
        kept = d.support(correlations, s)  # nested supports
        errors.append(d.relative_error(matrix, d.Factors(start.dictionary, d.refit(matrix, start.dictionary, kept, s))))
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("grouped", [False, True])
def test_neither_exact_fit_makes_it_worse(grouped: bool) -> None:
    matrix = drawn(12, 40)
    now = d.start(matrix, 8, torch.Generator().manual_seed(0))
    for _ in range(4):
        pursued = d.pursue(matrix, now, 4, grouped)
        before = d.relative_error(matrix, d.Factors(now.dictionary, pursued))
        s = d.refit(matrix, now.dictionary, d.support(pursued, 4, grouped), 4)
        fitted = d.relative_error(matrix, d.Factors(now.dictionary, s))
        moved = d.normalised(d.Factors(d.best_dictionary(matrix, s), s))
        after = d.relative_error(matrix, moved)
        assert before + 1e-6 >= fitted >= after - 1e-6
        torch.testing.assert_close(moved.dictionary.norm(dim=0), torch.ones(8, dtype=torch.float64))
        now = moved


def test_sparse_coefficients_are_found_again() -> None:
    true = d.normalised(d.Factors(drawn(32, 6, seed=4), d.project(drawn(6, 50, seed=3), 2)))
    matrix, nothing = true.product(), d.Factors(true.dictionary, torch.zeros(6, 50, dtype=torch.float64))
    found = d.refit(matrix, true.dictionary, d.support(d.pursue(matrix, nothing, 2), 2), 2)
    torch.testing.assert_close(found, true.coefficients, rtol=1e-4, atol=1e-4)


def test_the_metric_of_the_long_axis_moves_the_dictionary() -> None:
    """With all weight on the first two columns, one atom with one coefficient each must fit those."""
    matrix, s = drawn(4, 6), torch.ones(1, 6, dtype=torch.float64)
    metric = torch.diag(torch.tensor([1.0, 1.0, 0, 0, 0, 0], dtype=torch.float64))
    torch.testing.assert_close(d.best_dictionary(matrix, s, metric)[:, 0], matrix[:, :2].mean(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(d.best_dictionary(matrix, s)[:, 0], matrix.mean(1), rtol=1e-5, atol=1e-5)


# --- straight-through gradients (spec 6.3)


def coefficients(freeze_at: int = 99, decay: float = 0.0, grouped: bool = False) -> stf.ShadowCoefficients:
    matrix = drawn(5, 7)
    made = stf.ShadowCoefficients(d.learn(matrix, 4, 2, 2, grouped), 2, grouped, freeze_at, decay).double()
    with torch.no_grad():
        made.shadow += 0.1 * drawn(4, 7, seed=5) / stf.SPEED
    return made.train()


def test_gradients_of_shadow_coefficients() -> None:
    made, g = coefficients(), drawn(5, 7, seed=6)
    made.advance()
    (made.columns(0, 7) * g).sum().backward()
    kept = made.factors().coefficients
    torch.testing.assert_close(made.dictionary.grad, g @ kept.T, rtol=0, atol=1e-6)
    torch.testing.assert_close(made.shadow.grad / stf.SPEED, made.dictionary.detach().T @ g, rtol=0, atol=1e-6)
    assert bool((made.shadow.grad[kept == 0] != 0).all())


def test_dropped_numbers_decay() -> None:
    made = coefficients(decay=0.5)
    made.advance()
    (made.columns(0, 7) * 0.0).sum().backward()
    shadow = made.shadow.detach() * stf.SPEED
    wanted = torch.where(made.kept, torch.zeros_like(shadow), 0.5 * shadow)
    torch.testing.assert_close(made.shadow.grad / stf.SPEED, wanted)


def test_gradients_of_a_shadow_matrix() -> None:
    matrix, g = drawn(5, 7), drawn(5, 7, seed=6)
    made = stf.ShadowMatrix(matrix, d.learn(matrix, 4, 2, 2), 2, False, 99).double().train()
    made.advance()
    out = made.columns(0, 7)
    torch.testing.assert_close(out, made.factors().product())
    (out * g).sum().backward()
    torch.testing.assert_close(made.shadow.grad, g)


def test_a_shadow_matrix_is_followed() -> None:
    matrix = drawn(8, 20)
    made = stf.ShadowMatrix(matrix, d.start(matrix, 6, torch.Generator().manual_seed(0)), 2, False, 999).double().train()
    errors = []
    for _ in range(12):
        made.advance()
        errors.append(d.relative_error(matrix, made.factors()))
    assert errors[-1] < errors[3] < errors[0] < 1.0
    made.refresh(4)
    assert d.relative_error(matrix, made.factors()) < errors[-1]
    assert made.factors().coefficients.ne(0).sum(0).max() <= 2


def test_factors_are_followed_in_full_precision_whatever_the_autocast() -> None:
    matrix = drawn(8, 20).float()
    made = [stf.ShadowMatrix(matrix, d.start(matrix, 6, torch.Generator().manual_seed(0)), 2, False, 9) for _ in range(2)]
    made[0].advance()
    with torch.autocast("cpu", torch.bfloat16):
        made[1].advance()
    assert torch.equal(made[0].factors().product(), made[1].factors().product())


@pytest.mark.parametrize("grouped", [False, True])
def test_stabilisers(grouped: bool) -> None:
    made = coefficients(freeze_at=1, grouped=grouped)
    with torch.no_grad():
        made.dictionary *= torch.tensor([2.0, 0.5, 3.0, 1.0])
    made.advance()
    torch.testing.assert_close(made.dictionary.norm(dim=0), torch.ones(4, dtype=torch.float64))
    assert made.factors().coefficients.ne(0).sum(0).tolist() == [2] * 7
    made.advance()
    kept = made.kept.clone()
    with torch.no_grad():
        made.shadow.copy_(drawn(4, 7, seed=9))
    made.advance()
    assert torch.equal(made.kept, kept)
    assert torch.equal(made.factors().coefficients != 0, kept)


class Three(nn.Module):
    """Two matrices that read one input, and one that is tall."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.tall = nn.Linear(6, 8), nn.Linear(6, 10, bias=False), nn.Linear(18, 6)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.tall(torch.cat([self.one(x), self.two(x)], -1))
        return y


GROUPS = (Group(("one", "two"), "outputs", 6, 18, 4, 2), Group(("tall",), "inputs", 6, 18, 4, 2))


def factored(grouped: bool = False) -> tuple[Three, Three]:
    dense, body = Three(), Three()
    groups = tuple(Group(g.layers, g.side, g.short, g.lines, g.rank, g.nonzeros, grouped) for g in GROUPS)
    install(body, groups)
    for group in groups:
        found = d.learn(stf.matrix_of(dense, group), group.rank, group.nonzeros, 4, grouped)
        fill(body, group, found.dictionary, *d.lines(found.coefficients, group.nonzeros, grouped))
        for name in group.layers:
            old, new = dense.get_submodule(name), body.get_submodule(name)
            if old.bias is not None:
                new.bias.data.copy_(old.bias)  # type: ignore[union-attr,operator,arg-type]
    return dense, body


@pytest.mark.parametrize("variant", ["a", "b"])
@pytest.mark.parametrize("grouped", [False, True])
def test_training_begins_and_ends_with_the_same_factors(variant: str, grouped: bool) -> None:
    import copy

    dense, body = factored(grouped)
    groups, x = groups_of(body), torch.randn(5, 6)
    before, shells = body(x), copy.deepcopy(body)
    stf.begin(body, groups, variant, dense, 99, 2e-4)
    torch.testing.assert_close(body.eval()(x), before, rtol=1e-4, atol=1e-5)
    body.train()(x).sum().backward()
    assert {n for n, p in body.named_parameters() if p.grad is None} == set()
    stf.end(body, groups, shells)
    assert groups_of(body) == groups
    assert {type(m) for m in (body.one, body.two, body.tall)} == {DenseSparseLinear}
    if variant == "a":
        torch.testing.assert_close(body(x), before, rtol=1e-4, atol=1e-5)


def test_a_dictionary_of_two_is_stored_and_trained_once() -> None:
    import copy

    _, body = factored()
    assert [n for n, _ in body.named_parameters() if n.startswith("two")] == ["two.sparse.values"]
    assert body.two.owner is body.one
    other = copy.deepcopy(body)
    assert other.two.owner is other.one
    other.one.dense.weight.data.zero_()
    assert bool((other.two(torch.randn(3, 6)) == 0).all())
    assert not bool((body.two(torch.randn(3, 6)) == 0).all())


# --- bits (spec 6.4)


def test_published_examples_of_ratios() -> None:
    first, second = (Group(("up",), "outputs", 384, 1536, r, s) for r, s in ((256, 58), (320, 44)))
    assert first.bits() == 32 * 384 * 256 + 1536 * 58 * 40
    assert round(first.ratio(), 4) == 2.8132
    assert (second.index_bits, round(second.ratio(), 4)) == (9, 2.8158)
    assert first.ratio(indices=False) == pytest.approx(32 * 384 * 1536 / (32 * 384 * 256 + 1536 * 58 * 32))
    assert first.macs == 384 * 256 + 1536 * 58
    assert Group(("up",), "outputs", 384, 1536, 128, 16, True).index_bits == 3
    assert [svd_rank(384, 1536, c) for c in (2.8, 3.57, 2.0)] == [109, 86, 153]
    assert [svd_rank(384, 384, c) for c in (2.8, 3.57, 2.0)] == [68, 53, 96]
    assert most_nonzeros(384, 1536, 256, 2.8) == 58
    assert most_nonzeros(384, 1536, 384, 99.0) == 0
    assert first.bits(dense=8, sparse=8) == 8 * 384 * 256 + 1536 * 58 * 16


@pytest.mark.parametrize(("rank", "nonzeros", "grouped"), [(256, 58, False), (320, 44, False), (96, 9, False), (128, 16, True)])
def test_a_file_has_the_bits_of_the_formula(rank: int, nonzeros: int, grouped: bool) -> None:
    group = Group(("up",), "outputs", 384, 1536, rank, nonzeros, grouped)
    layer = DenseSparseLinear(384, 1536, group, bias=False)
    content = save({k: v.clone() for k, v in layer.state_dict().items()})
    header = 8 + int.from_bytes(content[:8], "little")
    assert group.bits() % 8 == 0
    assert len(content) == header + group.bits() // 8
    assert {
        k: len(content[slice(*(header + o for o in v["data_offsets"]))]) for k, v in json.loads(content[8:header]).items()
    } == {
        "dense.weight": 4 * 384 * rank,
        "sparse.values": 4 * 1536 * nonzeros,
        "sparse.indices": 1536 * nonzeros * group.index_bits // 8,
    }


@settings(max_examples=40, deadline=None)
@given(bits=st.integers(0, 12), count=st.integers(1, 40), seed=st.integers(0, 99))
def test_packed_numbers_come_back(bits: int, count: int, seed: int) -> None:
    numbers = torch.randint(0, 2**bits, (count,), generator=torch.Generator().manual_seed(seed))
    packed = pack(numbers, bits)
    assert len(packed) == -(-count * bits // 8)
    assert torch.equal(unpack(packed, bits, count), numbers)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("side", ["outputs", "inputs"])
def test_both_orientations_compute_the_product(side: Any, grouped: bool) -> None:
    factor = SparseFactor(12, 8, 4, side, grouped)
    dense = d.project(drawn(8, 12), 4, grouped)
    values, rows = d.lines(dense, 4, grouped)
    with torch.no_grad():
        factor.values.copy_(values)
        factor.indices.copy_(rows)
    z = drawn(3, 8 if side == "outputs" else 12).float()
    by_hand = torch.zeros(3, 12 if side == "outputs" else 8)
    for t, line, k in itertools.product(range(3), range(12), range(4)):
        column = int(rows[line, k])
        if side == "outputs":
            by_hand[t, line] += z[t, column] * float(values[line, k])
        else:
            by_hand[t, column] += z[t, line] * float(values[line, k])
    torch.testing.assert_close(factor(z), by_hand)
    again = SparseFactor(12, 8, 4, side, grouped)
    again.load_state_dict(factor.state_dict())
    assert torch.equal(again.indices, factor.indices)
    torch.testing.assert_close(again(z), by_hand)


def test_plans() -> None:
    body = Three()
    assert plan(body, ["one", "two"], 1.2, rank=4) == Group(("one", "two"), "outputs", 6, 18, 4, 3)
    assert plan(body, ["tall"], 1.2, rank=4).side == "inputs"
    assert Group.from_json(json.loads(json.dumps(GROUPS[0].to_json()))) == GROUPS[0]
    with pytest.raises(
        PreconditionError, match=r"one \(6 x 8\) must have room for a coefficient a line at ratio 9 with 6 atoms"
    ):
        plan(body, ["one"], 9.0, rank=6)
    with pytest.raises(UsageError, match="side must be outputs or inputs, got 'left'; correct it"):
        Group(("one",), "left", 6, 8, 4, 2)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"non-zeros of a line must be in \[1, rank\], got 5 of 4"):
        Group(("one",), "outputs", 6, 8, 4, 5)
    with pytest.raises(UsageError, match="groups need a rank that is a multiple of the non-zeros, got 4 and 3"):
        Group(("one",), "outputs", 6, 8, 4, 3, True)


# --- order on real matrices (spec 6.6)


def test_minilm_is_better_kept_than_by_svd() -> None:
    folder = Path(os.environ.get("EDGETK_MINILM", ""))
    if "EDGETK_MINILM" not in os.environ or not folder.is_dir():
        pytest.skip("EDGETK_MINILM is not set to the folder of all-MiniLM-L6-v2")
    tensors = load_file(folder / "model.safetensors")
    prefix = "encoder.layer.2."
    up = tensors[prefix + "intermediate.dense.weight"].T.contiguous()
    shared = torch.cat([tensors[f"{prefix}attention.self.{n}.weight"] for n in ("query", "key", "value")]).T.contiguous()
    for matrix, rank, nonzeros, most in ((up, 256, 58, 0.80), (shared, 256, 41, 0.85)):
        values = torch.linalg.svdvals(matrix).square()
        svd = float((values[svd_rank(*matrix.shape, 2.8) :].sum() / values.sum()).sqrt())
        assert d.relative_error(matrix, d.learn(matrix, rank, nonzeros, rounds=5)) < most * svd
