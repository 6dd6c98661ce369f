"""The search over blocks and parts on made-up losses: what it removes, in which order, how many evaluations it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetk.models.layers.elements import Block, Part
from edgetk.passes._hierarchical import Outcome, Rules, Search, Trial, bound

LAYERS, HEADS, GROUPS = 3, 4, 2


def network(layers: int = LAYERS, heads: int = HEADS, groups: int = GROUPS) -> list[Block]:
    """Attentions of 100 and feed-forward networks of 300 parameters."""
    made = []
    for i in range(layers):
        for kind, count, size in (("attention", heads, 100), ("ffn", groups, 300)):
            name = f"{i}.{kind}"
            parts = tuple(Part(f"{name}.{k}", k, k + 1, size // count, size // count) for k in range(count))
            hard = name if kind == "attention" else ""
            made.append(Block(name, kind, i + 1, size, size, (name,), parts, hard=hard))
    return made


class Scripted:
    """Samples whose losses are the sum of what each removed element adds to them; a block adds what its parts do."""

    def __init__(
        self, blocks: Sequence[Block], adds: Mapping[str, Sequence[float]], base: float = 10.0, samples: int = 4
    ) -> None:
        self.adds, self.base, self.n = adds, base, samples
        self.parts = {b.name: [p.name for p in b.parts] for b in blocks}
        self.asked: list[Trial] = []
        self.accepted: list[Trial] = []

    def __call__(self, trial: Trial) -> Outcome:
        self.asked.append(trial)
        names = [n for r in trial.removed for n in ([r] if r in self.adds else self.parts.get(r, [r]))]
        names += [f"hard {n}" for n in trial.hard]
        losses = [self.base + sum(self.adds.get(n, [0.0] * self.n)[s] for n in names) for s in range(self.n)]
        as_good = sum(loss <= self.base for loss in losses)
        change = (sum((loss - self.base) ** 2 for loss in losses) / self.n) ** 0.5
        return Outcome(sum(losses) / self.n, as_good, sum(loss < self.base + 1.0 for loss in losses), change)

    def accept(self, trial: Trial) -> None:
        self.accepted.append(trial)


def all_parts(blocks: Sequence[Block]) -> list[str]:
    return [p.name for b in blocks for p in b.parts]


def flat(value: float) -> list[float]:
    return [value] * 4


def test_exactly_what_lowers_the_loss_goes() -> None:
    blocks = network()
    adds = {name: flat(0.1) for name in all_parts(blocks)}
    adds |= {name: flat(-0.1) for name in ("2.ffn.0", "2.ffn.1", "1.attention.2", "0.ffn.1")}
    found = Search(blocks, Scripted(blocks, adds), Rules()).run()
    assert found.removed == {"2.ffn", "1.attention.2", "0.ffn.1"}  # both groups of 2.ffn at once
    assert found.best.loss == pytest.approx(9.6)
    losses = [line["loss"] for line in found.trace if line["accepted"]]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == len(losses)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([-0.2, -0.1, 0.1, 0.2]), min_size=18, max_size=18))
def test_for_sums_of_losses_no_part_that_helps_stays(values: list[float]) -> None:
    blocks = network()
    adds = {name: flat(value) for name, value in zip(all_parts(blocks), values, strict=True)}
    found = Search(blocks, Scripted(blocks, adds), Rules()).run()
    for block in blocks:
        total = sum(adds[p.name][0] for p in block.parts)
        if total < -1e-9:  # the block goes whole, with parts that did not help
            assert block.name in found.removed
        elif total > 1e-9:
            assert {p.name for p in block.parts if p.name in found.removed} == {
                p.name for p in block.parts if adds[p.name][0] < 0
            }
    assert found.best.loss <= found.base.loss
    assert found.evaluations <= bound(blocks, Rules())


def test_last_layer_first_the_network_before_the_attention() -> None:
    blocks = network(2, 2, 2)
    scripted = Scripted(blocks, {name: flat(0.1) for name in all_parts(blocks)})
    found = Search(blocks, scripted, Rules()).run()
    order = [f"1.ffn{s}" for s in ("", ".0", ".1")] + [f"1.attention{s}" for s in ("", ".0", ".1")]
    order += [f"0.ffn{s}" for s in ("", ".0", ".1")] + [f"0.attention{s}" for s in ("", ".0", ".1")]
    assert [line["what"] for line in found.trace[1:]] == order
    assert [trial.step for trial in scripted.asked[1:]] == [2] * 6 + [1] * 6


def test_a_loss_that_rises_by_more_than_a_tenth_opens_nothing() -> None:
    blocks = network()
    adds = {b.name: flat(1.5) for b in blocks} | {f"hard {b.name}": flat(1.5) for b in blocks if b.hard}
    found = Search(blocks, Scripted(blocks, adds), Rules(keep=30)).run()
    assert found.evaluations == LAYERS + 2 * LAYERS + 1
    assert not found.removed


def test_the_most_evaluations_there_can_be() -> None:
    blocks = network()
    adds = {name: flat(0.1) for name in all_parts(blocks)} | {f"hard {b.name}": flat(0.1) for b in blocks if b.hard}
    found = Search(blocks, Scripted(blocks, adds), Rules(keep=30)).run()
    published = LAYERS + LAYERS * (1 + GROUPS) + LAYERS * (1 + HEADS) + 1
    assert found.evaluations == bound(blocks, Rules(keep=30)) == published
    assert bound(network(12, 12, 12), Rules(keep=30)) == 325  # BERT-base
    assert bound(network(6, 12, 6), Rules(keep=30)) == 127  # MiniLM-L6


def test_the_gate_is_at_a_tenth_above_the_best() -> None:
    blocks = network(1, 2, 2)
    for rise, opened in ((0.99, True), (1.0, False)):
        found = Search(blocks, Scripted(blocks, {b.name: flat(rise) for b in blocks}), Rules()).run()
        assert ("0.ffn.0" in [line["what"] for line in found.trace]) is opened


def test_what_hurts_most_samples_stays_though_the_mean_falls() -> None:
    blocks = network(1, 2, 2)
    adds = {"0.ffn.0": [-5.0, 0.1, 0.1, 0.1], "0.ffn.1": flat(2.0), "0.attention.0": flat(2.0), "0.attention.1": flat(2.0)}
    with_rule = Search(blocks, Scripted(blocks, adds), Rules(gate=2.0)).run()
    without = Search(blocks, Scripted(blocks, adds), Rules(gate=2.0, per_sample=False)).run()
    assert with_rule.removed == frozenset()
    assert without.removed == {"0.ffn.0"}


def test_exactly_half_of_the_samples_is_not_most() -> None:
    blocks = network(1, 2, 2)
    adds = {"0.ffn": [-1.0, -1.0, 0.1, 0.1], "0.attention": flat(2.0)}
    assert not Search(blocks, Scripted(blocks, adds), Rules()).run().removed
    adds["0.ffn"] = [-1.0, -1.0, 0.0, 0.1]
    assert Search(blocks, Scripted(blocks, adds), Rules()).run().removed == {"0.ffn"}


def test_samples_are_compared_with_the_original_not_with_the_best_so_far() -> None:
    blocks = network(1, 2, 2)
    # without the network all samples gain 1; the attention then takes 0.5 from three of them and gives the fourth 2
    adds = {"0.ffn": flat(-1.0), "0.attention": [0.5, 0.5, 0.5, -2.0]}
    assert Search(blocks, Scripted(blocks, adds), Rules()).run().removed == {"0.ffn", "0.attention"}


def test_hard_attention_comes_first_and_stays_where_it_helps() -> None:
    blocks = network(2, 2, 2)
    adds = {"hard 1.attention": flat(-0.1), "hard 0.attention": flat(0.1), **{b.name: flat(2.0) for b in blocks}}
    found = Search(blocks, Scripted(blocks, adds), Rules(keep=30)).run()
    assert [line["what"] for line in found.trace[1:3]] == ["hard 0.attention", "hard 1.attention"]
    assert dict(found.hard) == {"1.attention": 30}


SAVES = {"0.ffn": 300.0, "1.ffn": 300.0, "2.ffn": 300.0, "0.attention": 100.0, "1.attention": 100.0, "2.attention": 100.0}


def saves(blocks: Sequence[Block]) -> dict[str, float]:
    return {e.name: float(e.parameters) for b in blocks for e in (b, *b.parts)}  # type: ignore[attr-defined]


def test_in_size_mode_the_largest_go_first_until_the_loss_has_risen() -> None:
    blocks = network()
    adds = {b.name: flat(0.2) for b in blocks} | {name: flat(0.2) for name in all_parts(blocks)}
    found = Search(blocks, Scripted(blocks, adds), Rules("size", "saved", max_loss=0.05), saves(blocks)).run()
    assert found.removed == {"2.ffn", "1.ffn"}  # 10.4; a third one would be above 10.5
    assert found.best.loss <= found.base.loss * 1.05


def test_in_size_mode_right_answers_can_be_the_budget() -> None:
    blocks = network(1, 2, 2)
    adds = {"0.ffn": [0.9, 0.9, 0.9, 0.9], "0.attention": [0.0, 0.0, 0.0, 1.0]}
    rules = Rules("size", "saved", max_drop=0.25)
    found = Search(blocks, Scripted(blocks, adds), rules, saves(blocks)).run()
    assert found.removed == {"0.ffn", "0.attention"}
    assert (found.base.correct, found.best.correct) == (4, 3)


def test_both_budgets_must_hold() -> None:
    blocks = network(1, 2, 2)
    adds = {"0.ffn": flat(-2.0), "0.attention": [1.0, 0.0, 0.0, 0.0]}  # the mean falls by 0.5, one answer is lost by itself
    for max_drop, attention in ((0.0, True), (0.25, True)):
        rules = Rules("size", "saved", max_loss=0.01, max_drop=max_drop)
        found = Search(blocks, Scripted(blocks, adds), rules, saves(blocks)).run()
        assert ("0.attention" in found.removed) is attention
    lost = [-40.0, 1.0, 1.0, 1.0]  # a lower mean, three answers lost
    adds = {"0.ffn": lost, "0.ffn.0": lost, "0.ffn.1": lost, **{n: flat(2.0) for n in all_parts(blocks)[:2]}}
    rules = Rules("size", "saved", max_loss=0.01, max_drop=0.5)
    assert not Search(blocks, Scripted(blocks, adds), rules, saves(blocks)).run().removed


def test_where_losses_do_not_count_every_block_is_opened() -> None:
    blocks = network(1, 2, 2)
    adds = {b.name: flat(50.0) for b in blocks} | {"0.ffn.1": flat(0.5)}
    found = Search(
        blocks,
        Scripted(blocks, {**{n: flat(50.0) for n in all_parts(blocks)}, **adds}),
        Rules("size", "saved", max_drop=0.25),
        saves(blocks),
    ).run()
    assert found.removed == {"0.ffn.1"}


def test_by_importance_what_is_known_to_matter_least_goes_first() -> None:
    blocks = network(1, 2, 2)
    adds = {name: flat(0.1) for name in all_parts(blocks)}
    importance = {"0.attention.0": 1.0, "0.ffn.1": 2.0, "0.attention.1": 3.0}  # per parameter 1 / 50, 2 / 150, 3 / 50
    rules = Rules("size", "taylor", max_loss=0.02)
    found = Search(blocks, Scripted(blocks, adds), rules, saves(blocks), importance).run()
    assert [line["what"] for line in found.trace[1:]] == ["0.ffn.1", "0.attention.0", "0.attention.1"]
    assert found.removed == {"0.ffn.1", "0.attention.0"}
    assert found.evaluations <= bound(blocks, rules)


def test_by_worth_what_changes_samples_least_per_saving_goes_first() -> None:
    blocks = network(2, 2, 2)
    adds = {name: flat(0.3) for name in all_parts(blocks)} | {"0.attention.1": flat(0.001), "1.ffn.0": flat(0.01)}
    rules = Rules("size", "worth", max_loss=0.002)
    found = Search(blocks, Scripted(blocks, adds), rules, saves(blocks)).run()
    assert found.removed == {"0.attention.1", "1.ffn.0"}
    assert found.evaluations <= bound(blocks, rules)
    # one whose gains and losses cancel each other alone comes last all the same
    adds["0.ffn.0"] = [3.0, -3.0, 3.0, -3.0]
    found = Search(blocks, Scripted(blocks, adds), rules, saves(blocks)).run()
    tried = [line["what"] for line in found.trace if line["what"] in all_parts(blocks)]
    assert tried[0] == "0.attention.1"
    assert tried[-1] == "0.ffn.0"


def test_parts_in_turn_stop_at_the_first_that_may_not_go() -> None:
    from edgetk.models.layers.groups import MemoryGroup

    parts = tuple(Part(f"memory.{i}", 8 - i, 9 - i, 10, 10) for i in range(1, 5))
    block = Block("memory", "memory", 0, 40, 40, parts=parts, memory=MemoryGroup("memory", "mixer", "reader", 8))
    adds = {"memory.1": flat(-0.1), "memory.2": flat(0.1), "memory.3": flat(-0.1), "memory.4": flat(-0.1)}
    found = Search([block], Scripted([block], adds), Rules()).run()
    assert found.removed == {"memory.1"}
    assert [line["what"] for line in found.trace[1:]] == ["memory.1", "memory.2"]


def test_the_last_part_of_what_cannot_go_whole_stays() -> None:
    parts = tuple(Part(f"channels.{i}", i, i + 1, 10, 10) for i in range(3))
    block = Block("channels", "channels", 0, 30, 30, parts=parts)
    for rules in (Rules(), Rules("size", "worth", max_loss=1.0)):
        adds = {p.name: flat(-0.1) for p in parts}
        assert len(Search([block], Scripted([block], adds), rules, saves([block])).run().removed) == 2


class Kept:
    """A notebook in memory."""

    def __init__(self, entries: Sequence[Mapping[str, Any]] = ()) -> None:
        self.entries = list(entries)
        self.left: list[int] = []

    def earlier(self) -> Sequence[Mapping[str, Any]]:
        return tuple(self.entries)

    def add(self, entry: Mapping[str, Any]) -> None:
        self.entries.append(entry)

    def clear(self) -> None:
        self.entries = []

    def remaining(self, steps: int) -> None:
        self.left.append(steps)


@pytest.mark.parametrize("rules", [Rules(keep=30), Rules("size", "worth", max_loss=0.02)])
@pytest.mark.parametrize("after", [1, 5, 20])
def test_an_interrupted_search_goes_on_where_it_was(rules: Rules, after: int) -> None:
    blocks = network()
    adds = {name: flat(0.02 * (-1) ** i) for i, name in enumerate(all_parts(blocks))}
    whole_notebook = Kept()
    whole = Search(blocks, Scripted(blocks, adds), rules, saves(blocks), notebook=whole_notebook).run()
    scripted, notebook = Scripted(blocks, adds), Kept(whole_notebook.entries[:after])
    again = Search(blocks, scripted, rules, saves(blocks), notebook=notebook).run()
    assert again == whole
    assert len(scripted.asked) == whole.evaluations - after + 1  # the model as it is once more
    assert notebook.entries == whole_notebook.entries


def test_another_model_or_other_rules_begin_again() -> None:
    blocks = network()
    adds = {name: flat(0.1) for name in all_parts(blocks)}
    notebook = Kept()
    first = Search(blocks, Scripted(blocks, adds), Rules(), notebook=notebook).run()
    for evaluator, rules in ((Scripted(blocks, adds, base=11.0), Rules()), (Scripted(blocks, adds), Rules(per_sample=False))):
        other = Kept(notebook.entries)
        found = Search(blocks, evaluator, rules, notebook=other).run()
        assert len(evaluator.asked) == found.evaluations == first.evaluations
        assert len(other.entries) == found.evaluations


def test_what_is_left_falls_to_nothing_once_all_is_tried() -> None:
    blocks = network()
    adds = {name: flat(0.1) for name in all_parts(blocks)}
    notebook = Kept()
    Search(blocks, Scripted(blocks, adds), Rules(), notebook=notebook).run()
    assert notebook.left[-1] == 0
    assert notebook.left == sorted(notebook.left, reverse=True)
