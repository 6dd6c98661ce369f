"""Which blocks and parts of a network go: greedy search, coarse before fine, on losses that somebody else works out.

Source: AxFormer, Nagarajan et al. 2020, arXiv:2010.03688, and the authors' code. Every trial has all that was accepted before
in force; nothing is trained in between.

    1  hard attention: from the first layer up, one attention more keeps its largest weights only, where that is accepted
    2  from the last layer down, the feed-forward network before the attention: without the block; where that is rejected, but
       its loss is below `gate` times the limit, without its parts one after the other
    3  goal accuracy: accepted is a loss below the best so far with which more than half of the samples have no larger a loss
       than with the original model; goals size and speed: a loss and a drop of right answers within the budget

Other orders are for goals size and speed: "saved", blocks by what they save; "worth" and "taylor", blocks and parts alike by
what they matter per saving. That is the root mean square change of the samples' losses without them, each tried alone before
(not the change of the mean: gains and losses that cancel each other alone do not do so together), or the importance that the
loss's gradients give.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol

from edgetk.core.contracts import Notebook

if TYPE_CHECKING:
    from edgetk.models.layers.elements import Block

Goal = Literal["accuracy", "size", "speed"]
Order = Literal["layers", "saved", "worth", "taylor"]


@dataclass(frozen=True)
class Trial:
    """A candidate: what is removed, which attentions are hard (name -> weights kept), the first step that differs from the
    candidate accepted last."""

    removed: frozenset[str]
    hard: Mapping[str, int]
    step: int


@dataclass(frozen=True)
class Outcome:
    """Mean loss of a candidate, samples whose loss is not above that of the original model, and right answers.

    change  root mean square difference of the samples' losses from those of the original model
    """

    loss: float
    as_good: int
    correct: int
    change: float = 0.0


class Evaluator(Protocol):
    """Works out candidates. The first one it is asked for is the model as it is."""

    #: samples of an evaluation
    n: int

    def __call__(self, trial: Trial) -> Outcome: ...

    def accept(self, trial: Trial) -> None:
        """From now on candidates differ from this one."""
        ...


class NoNotebook:
    """Forgets everything."""

    def earlier(self) -> Sequence[Mapping[str, Any]]:
        return ()

    def add(self, entry: Mapping[str, Any]) -> None:
        pass

    def clear(self) -> None:
        pass

    def remaining(self, steps: int) -> None:
        pass


@dataclass(frozen=True)
class Rules:
    """When a candidate is accepted.

    per_sample  goal accuracy: besides the mean, more than half of the samples must not lose
    max_loss    goals size and speed: rise of the loss against the original, as a share of it
    max_drop    goals size and speed: right answers lost, as a share of all; both must hold, one that is 0 is not looked at
    gate        a rejected block whose loss is below so many times the limit is opened
    keep        weights that hard attention keeps, 0: no such scan
    """

    goal: Goal = "accuracy"
    order: Order = "layers"
    per_sample: bool = True
    max_loss: float = 0.0
    max_drop: float = 0.0
    gate: float = 1.1
    keep: int = 0


@dataclass(frozen=True)
class Found:
    """The candidate that stays, and how it came about: `trace` has a line for each evaluation."""

    removed: frozenset[str]
    hard: Mapping[str, int]
    base: Outcome
    best: Outcome
    trace: tuple[Mapping[str, Any], ...]

    @property
    def evaluations(self) -> int:
        return len(self.trace)


@dataclass
class Search:
    """One search. `saves`: what each block and part saves, in bytes or seconds; needed for orders other than "layers".

    `importance` is needed for order "taylor"; elements that are not in it stay.
    """

    blocks: Sequence[Block]
    evaluate: Evaluator
    rules: Rules
    saves: Mapping[str, float] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    notebook: Notebook = field(default_factory=NoNotebook)

    def run(self) -> Found:
        """Search, from what the notebook has on."""
        self._removed: frozenset[str] = frozenset()
        self._hard: dict[str, int] = {}
        self._trace: list[dict[str, Any]] = []
        self._left = bound(self.blocks, self.rules)
        self._earlier: Iterator[Mapping[str, Any]] = iter(())
        trial = Trial(self._removed, {}, 0)
        self._base = self._best = self.evaluate(trial)
        self._note("the model as it is", trial, self._base, True, self._reopened())
        if self.rules.keep:
            self._harden()
        if self.rules.order in ("worth", "taylor"):
            self._by_worth()
        else:
            self._by_blocks()
        return Found(self._removed, dict(self._hard), self._base, self._best, tuple(self._trace))

    def _reopened(self) -> bool:
        """Whether the notebook is of this very search: then its evaluations are not done again."""
        earlier = list(self.notebook.earlier())
        if earlier and earlier[0].get("loss") == self._base.loss and earlier[0].get("rules") == asdict(self.rules):
            self._earlier = iter(earlier[1:])
            return True
        self.notebook.clear()
        return False

    def _harden(self) -> None:
        """Step 1. Hard attention saves next to nothing: it stays where it helps, whatever the goal."""
        for block in sorted((b for b in self.blocks if b.hard), key=lambda b: b.step):
            hard = {**self._hard, block.name: self.rules.keep}
            self._attempt(f"hard {block.name}", Trial(self._removed, hard, block.step), self._better)

    def _by_blocks(self) -> None:
        """Step 2, in the order of layers or of savings."""
        ordered = list(reversed(self.blocks))
        if self.rules.order == "saved":
            ordered.sort(key=lambda b: -self.saves[b.name])
        for block in ordered:
            if block.whole:
                outcome, accepted = self._without(block, block.name)
                if accepted or not outcome.loss < self.rules.gate * self._limit():
                    self._spend(len(block.parts))
                    continue
            self._open(block)

    def _open(self, block: Block) -> None:
        """The parts of a block, one after the other."""
        for index, part in enumerate(block.parts):
            if not block.whole and all(p.name in self._removed for p in block.parts if p is not part):
                self._spend(1)  # the last part of what cannot go whole
            elif not self._without(block, part.name)[1] and block.in_turn:
                self._spend(len(block.parts) - index - 1)
                return

    def _by_worth(self) -> None:
        """All elements by what they matter per saving."""
        harm: list[tuple[float, int, Block, str]] = []
        for block in reversed(self.blocks):
            gone: set[str] = set()
            worst = -math.inf
            for name in [block.name] * block.whole + [part.name for part in block.parts]:
                gone = {*gone, name} if block.in_turn else {name}
                if self.rules.order == "worth":
                    matters = self._look(f"alone {name}", Trial(self._removed | gone, dict(self._hard), block.step)).change
                elif name in self.importance:
                    matters = self.importance[name]
                else:
                    self._spend(1)
                    continue
                each = matters / max(sum(self.saves[n] for n in gone), 1e-30)
                worst = max(worst, each) if block.in_turn else each
                harm.append((worst, len(harm), block, name))
        for _, _, block, name in sorted(harm, key=lambda h: h[:2]):
            if block.name in self._removed or not self._may_go(block, name):
                self._spend(1)
            else:
                self._without(block, name)

    def _may_go(self, block: Block, name: str) -> bool:
        """Whether those before it are gone where parts go in turn, and whether it is not the last of what must stay."""
        if block.whole:
            return True
        names = [p.name for p in block.parts]
        if block.in_turn and not set(names[: names.index(name)]) <= self._removed:
            return False
        return not set(names) <= self._removed | {name}

    def _without(self, block: Block, name: str) -> tuple[Outcome, bool]:
        removed = self._removed | {name}
        if name == block.name:  # a block takes its parts with it
            removed -= {p.name for p in block.parts}
        return self._attempt(name, Trial(removed, dict(self._hard), block.step), self._accepted)

    def _attempt(self, what: str, trial: Trial, accepted: Callable[[Outcome], bool]) -> tuple[Outcome, bool]:
        outcome, known = self._outcome(what, trial)
        yes = accepted(outcome)
        self._note(what, trial, outcome, yes, known)
        if yes:
            self._removed, self._hard, self._best = trial.removed, dict(trial.hard), outcome
            self.evaluate.accept(trial)
        return outcome, yes

    def _look(self, what: str, trial: Trial) -> Outcome:
        outcome, known = self._outcome(what, trial)
        self._note(what, trial, outcome, False, known)
        return outcome

    def _outcome(self, what: str, trial: Trial) -> tuple[Outcome, bool]:
        entry = next(self._earlier, None)
        if entry is not None and entry.get("what") == what:
            return Outcome(**{f.name: entry[f.name] for f in fields(Outcome)}), True
        self._earlier = iter(())
        return self.evaluate(trial), False

    def _note(self, what: str, trial: Trial, outcome: Outcome, accepted: bool, known: bool) -> None:
        entry: dict[str, Any] = {"what": what, **asdict(outcome), "accepted": accepted}
        self._trace.append(entry)
        if not known:
            self.notebook.add({**entry, **({"rules": asdict(self.rules)} if len(self._trace) == 1 else {})})
        self._spend(1)

    def _spend(self, evaluations: int) -> None:
        self._left -= evaluations
        self.notebook.remaining(self._left)

    def _limit(self) -> float:
        """A loss that is accepted at the most."""
        if self.rules.goal == "accuracy":
            return self._best.loss
        if not self.rules.max_loss:
            return math.inf  # losses are not what counts: all blocks are opened
        return max(self._best.loss, self._base.loss * (1 + self.rules.max_loss))

    def _better(self, outcome: Outcome) -> bool:
        majority = outcome.as_good > self.evaluate.n // 2 or not self.rules.per_sample
        return outcome.loss < self._best.loss and majority

    def _accepted(self, outcome: Outcome) -> bool:
        if self.rules.goal == "accuracy":
            return self._better(outcome)
        if not math.isfinite(outcome.loss):
            return False
        lost = (self._base.correct - outcome.correct) / self.evaluate.n
        by_loss = not self.rules.max_loss or outcome.loss <= self._base.loss * (1 + self.rules.max_loss)
        by_drop = not self.rules.max_drop or lost <= self.rules.max_drop + 1e-12
        return by_loss and by_drop


def bound(blocks: Sequence[Block], rules: Rules) -> int:
    """Evaluations at the most: 1 + L + L (1 + G) + L (1 + H) for L layers with G groups of neurons and H heads."""
    tries = sum(int(b.whole) + len(b.parts) for b in blocks)
    return 1 + (sum(1 for b in blocks if b.hard) if rules.keep else 0) + tries * (2 if rules.order == "worth" else 1)


__all__ = ["Evaluator", "Found", "Goal", "NoNotebook", "Order", "Outcome", "Rules", "Search", "Trial", "bound"]
