"""Magnitude and Taylor importance by hand, and the passes that go by them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_models import Examples, Frozen, Words, applied, around, learned, outputs
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.errors import PreconditionError, RecipeError
from edgetk.models._bert_encoder import BertEncoder, Config
from edgetk.models.layers import elements
from edgetk.models.layers.elements import Block, Part
from edgetk.models.layers.groups import Group, rows
from edgetk.passes import _importance
from edgetk.passes.prune import Prune
from edgetk.passes.prune_blocks import PruneBlocks

X = torch.tensor([[1.0, 2.0], [3.0, 1.0]])


class Two(nn.Module):
    """y = W2 relu(W1 x), three channels between; outputs are (0, 0), so that gradients of the loss are known."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(2, 3), nn.Linear(3, 2)
        with torch.no_grad():
            self.up.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
            self.up.bias.copy_(torch.zeros(3))
            # channel 2 undoes what the two others do together: y = 0 for every x >= 0
            self.down.weight.copy_(torch.tensor([[2.0, 2.0, -2.0], [0.5, 0.5, -0.5]]))
            self.down.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(torch.relu(self.up(x)))
        return y

    def groups(self) -> tuple[Group, ...]:
        return (Group("mid", 3, rows("up", self.up), "down"),)

    def elements(self, neurons: int = 1) -> tuple[Block, ...]:
        return (elements.block(self, "mid", "ffn", 0, self.groups()[0], neurons, paths=("up", "down"), bias="down.bias"),)


def pair() -> Bundle:
    return around(Two(), 2, outputs=2, data=Examples(X))


def test_by_hand() -> None:
    """softmax (0, 0) = (1/2, 1/2): the gradient by the outputs is (-1/2, 1/2) for example 0 and (1/2, -1/2) for example 1.

    A gate on channel c has the derivative z_c (w_0c g_0 + w_1c g_1) = ∓ z_c (w_0c - w_1c) / 2 with w_0c - w_1c = ±1.5.
    """
    bundle = pair()
    groups = bundle.module.groups()  # type: ignore[operator]
    magnitude = _importance.channels(bundle, groups, "magnitude", 2)["mid"]
    assert magnitude.tolist() == [1 + 4.25, 1 + 4.25, 2 + 4.25]
    z = torch.tensor([[1.0, 2.0, 3.0], [3.0, 1.0, 4.0]], dtype=torch.float64)
    taylor = _importance.channels(bundle, groups, "taylor", 2)["mid"]
    assert torch.allclose(taylor, (0.75 * z).square().mean(0).sqrt())
    blocks = elements.declared(bundle.module, 1)
    found = _importance.elements(bundle, blocks, "magnitude", 2)
    assert found == {"mid": 16.75, "mid.0": 5.25, "mid.1": 5.25, "mid.2": 6.25}
    found = _importance.elements(bundle, blocks, "taylor", 2)
    assert found["mid"] == pytest.approx(0.0, abs=1e-12)  # nothing changes without it: the parts add up to nothing
    assert [found[f"mid.{i}"] for i in range(3)] == pytest.approx(taylor.tolist())
    (wide,) = elements.declared(bundle.module, 2)
    found = _importance.elements(bundle, [wide], "taylor", 2)
    assert found["mid.0"] == pytest.approx(float((0.75 * (z[:, 0] + z[:, 1])).square().mean().sqrt()))


def test_heads_groups_of_neurons_and_blocks_of_an_encoder() -> None:
    """Taylor is the slope of the loss by a gate on what reads an element; magnitude sums up its matrices."""
    torch.manual_seed(0)
    net = BertEncoder(Config(length=6, positions=6, vocabulary=30, dim=8, layers=2, heads=4, ffn=12)).double().eval()
    for layer in net.matrices():
        net.get_submodule(layer).weight.data.normal_(std=0.4)
    tokens = torch.randint(1, 30, (2, 6)).float()
    bundle = around(net, 6, outputs=2, data=Examples(tokens))
    blocks = elements.declared(net, 5)
    taylor = _importance.elements(bundle, blocks, "taylor", 1)
    magnitude = _importance.elements(bundle, blocks, "magnitude", 1)
    assert len(taylor) == len(magnitude) == 2 * (1 + 4) + 2 * (1 + 3)

    def loss(reader: Any, columns: slice, gate: float) -> float:
        before = reader.weight.detach().clone()
        reader.weight.data[:, columns] *= gate
        with torch.no_grad():
            found = F.cross_entropy(net(tokens[:1]), torch.tensor([0]))
        reader.weight.data.copy_(before)
        return float(found)

    for of in blocks:
        assert of.group is not None
        reader = net.get_submodule(of.group.reader)
        for name, first, last in [(of.name, 0, of.group.size), *((p.name, p.first, p.last) for p in of.parts)]:
            slope = (loss(reader, slice(first, last), 1 + 1e-5) - loss(reader, slice(first, last), 1 - 1e-5)) / 2e-5
            assert taylor[name] == pytest.approx(abs(slope), rel=1e-4, abs=1e-8)
    head = slice(2, 4)
    attention = net.layers[0].attention
    own = [
        attention.query.weight[head],
        attention.key.weight[head],
        attention.value.weight[head],
        attention.output.weight[:, head],
    ]
    assert magnitude["layers.0.attention.1"] == pytest.approx(sum(float(w.detach().square().sum()) for w in own))


def test_least_important_channels_go_first() -> None:
    path = _importance.ranked(torch.tensor([3.0, 1.0, 2.0, 1.0]), 1)
    assert path[-1].keep == (0,)
    assert path[-1].gone == (1, 3, 2)


@pytest.mark.parametrize(("criterion", "kept"), [("magnitude", [1, 2]), ("taylor", [0, 2])])
def test_prune_goes_by_the_criterion(criterion: str, kept: list[int]) -> None:
    bundle = pair()
    with torch.no_grad():
        bundle.module.up.weight[0].mul_(0.9)  # channel 0 weighs least; z_1 is smaller than z_0 on average
    after = applied(Prune(criterion=criterion, keep={"mid": 2}, refit=False, calibration=2), bundle)
    assert after.lineage[-1].structure == {"keep": {"mid": kept}}
    assert torch.equal(after.module.down.weight, bundle.module.down.weight[:, kept])  # not refitted


@pytest.mark.parametrize("criterion", ["magnitude", "taylor"])
def test_prune_a_learned_model(criterion: str) -> None:
    bundle = learned()
    keep = {"channels.ffn": 24, "mixer.memory": 8}
    refitted, plain = (applied(Prune(criterion=criterion, keep=keep, calibration=24, refit=r), bundle) for r in (True, False))
    assert refitted.lineage[-1].structure == plain.lineage[-1].structure
    inputs = Words().calibration(96)
    before = outputs(bundle, inputs)
    errors = [float((outputs(b, inputs) - before).square().sum()) for b in (refitted, plain)]
    assert errors[0] < errors[1]


def block(name: str, sizes: list[int], whole: bool = True) -> Block:
    parts = tuple(Part(f"{name}.{i}", i, i + 1, size, 0) for i, size in enumerate(sizes))
    return Block(name, "ffn", 0, sum(sizes), 0, paths=("x",) if whole else (), parts=parts)


def test_elements_go_by_importance_per_parameter() -> None:
    blocks = [block("a", [10, 10]), block("b", [20, 60])]
    scores = {"a": 9.0, "a.0": 1.0, "a.1": 8.0, "b": 50.0, "b.0": 1.0, "b.1": 48.0}  # per parameter .45 .1 .8 .625 .05 .8
    assert _importance.least(blocks, scores, 0.29) == {"b.0"}
    assert _importance.least(blocks, scores, 0.3) == {"b.0", "a.0"}
    assert _importance.least(blocks, scores, 0.45) == {"b.0", "a"}  # the block takes its parts along
    assert _importance.least(blocks, scores, 0.8) == {"b.0", "a"}  # b and b.1 do not fit


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.booleans()), min_size=1, max_size=4),
    st.floats(0.01, 0.99),
    st.integers(0, 2**31),
)
def test_no_more_goes_than_the_share(sizes: list[tuple[list[int], bool]], share: float, seed: int) -> None:
    blocks = [block(str(i), parts, whole) for i, (parts, whole) in enumerate(sizes)]
    random = torch.Generator().manual_seed(seed)
    names = [n for b in blocks for n in (b.name, *(p.name for p in b.parts))]
    removed = _importance.least(blocks, {n: float(torch.rand((), generator=random)) for n in names}, share)
    gone = elements.parameters_of(blocks, removed)
    assert gone <= share * sum(b.parameters for b in blocks)
    for b in blocks:
        parts = {p.name for p in b.parts}
        assert not (b.name in removed and parts & removed)
        assert b.whole or (b.name not in removed and not parts <= removed)


def test_prune_blocks_goes_by_the_criterion() -> None:
    bundle = pair()
    after = applied(PruneBlocks(criterion="magnitude", share=0.4, neurons=1, examples=2), bundle, "prune-blocks")
    assert after.lineage[-1].notes["removed"] == ["mid.0"]
    assert after.module.down.in_features == 2
    assert torch.equal(after.module.up.weight, bundle.module.up.weight[1:])
    after = applied(PruneBlocks(criterion="taylor", share=0.7, neurons=1, examples=2), bundle, "prune-blocks")
    assert after.lineage[-1].notes["removed"] == ["mid.0", "mid.1"]  # z_2 is the largest
    result = PruneBlocks(criterion="taylor", share=0.01, neurons=1, examples=2)(bundle)
    assert (result.modified, result.notes["why"]) == (False, "no element fits into the share")


def test_what_is_refused() -> None:
    bundle = learned()
    frozen = replace(bundle, data=Frozen())
    with pytest.raises(
        PreconditionError, match=r"prune: taylor needs training data, for its gradients, got none for .*; use mag"
    ):
        Prune(criterion="taylor").check(frozen)
    Prune(criterion="magnitude").check(frozen)
    with pytest.raises(PreconditionError, match="prune-blocks: taylor needs training data, for its gradients, got none for"):
        PruneBlocks(criterion="taylor", share=0.5, neurons=8).check(frozen)
    with pytest.raises(
        RecipeError, match="prune: criterion must be one of least-squares, magnitude, taylor, got 'l1'; correct"
    ):
        Prune(criterion="l1")
    with pytest.raises(RecipeError, match="prune-blocks: criterion must be one of 'loss', 'magnitude', 'taylor', got 'l1'"):
        PruneBlocks(criterion="l1")
    for settings_ in ({"share": 0.5}, {"criterion": "taylor"}, {"criterion": "magnitude", "share": 1.0}):
        with pytest.raises(RecipeError, match=r"prune-blocks: share must be in \(0, 1\) for the criteria magnitude and taylor"):
            PruneBlocks(**settings_)  # type: ignore[arg-type]
