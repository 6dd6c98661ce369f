"""The contract checks find what they are there for: each kind of broken promise fails with its text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from fake_plugins import Break, Liar, Meddle, Nudge, Rescale, Shrink, Strip
from quick import clip_graph, lower

from edgetk import testing
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Emitted, Lowered, PassResult
from edgetk.core.target import Target
from edgetk.models import lmuformer
from edgetk.toolkit.tiny import TinyData


@dataclass
class Thawed:
    """Not frozen."""


@dataclass(frozen=True)
class NoFacts(Nudge):
    """Does not say what it accepts."""

    accepts: ClassVar[Any] = None


@dataclass(frozen=True)
class Grabs(Rescale):
    """Changes a model that it remembered from `check`."""

    def check(self, bundle: Bundle) -> None:
        object.__setattr__(self, "seen", bundle.body)

    def __call__(self, bundle: Bundle) -> PassResult:
        self.seen.decide.bias.data += 1.0  # type: ignore[attr-defined]
        return PassResult(bundle.body, True)


@pytest.mark.usefixtures("quick_lower")
@pytest.mark.parametrize("made", [Shrink(6), Nudge(), Rescale()])
def test_good_passes_pass(made: Any) -> None:
    after = testing.check_pass(made, testing.tiny_bundle())
    assert after.lineage[-1].name == type(made).__name__.lower()


@pytest.mark.usefixtures("quick_lower")
def test_graph_passes_are_checked_too() -> None:
    bundle = testing.tiny_bundle()
    assert bundle.clip is not None
    graph = replace(bundle, body=clip_graph(bundle), signature=bundle.clip, clip=None)
    assert testing.check_pass(Strip(), graph).lineage[-1].name == "strip"


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (Liar(), r"liar: is lossless, so outputs must stay equal up to 1e-04, got \d"),
        (Thawed(), r"thawed: a pass must be frozen"),
        (NoFacts(), r"nofacts: accepts must be a tuple"),
        (Grabs(), r"grabs: must leave the model it was given a copy of unchanged"),
        (Meddle("random"), r"meddle: two runs with seed 0 must give equal bytes"),
        (Meddle("rebuild"), r"meddle: rebuild must give a fresh body .* difference in decide\.weight, .* \(structure none\)"),
        (Break("nan"), r"break: clip output scores must be finite"),
        (Break("states"), r"break: the stream form must accept inputs of shape"),
        (Break("notes"), r"break: notes must be plain data, got"),
    ],
)
def test_broken_passes_are_found(made: Any, text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        testing.check_pass(made, testing.tiny_bundle())


def _small(**changes: Any) -> Any:
    def build(variant: str) -> Bundle:
        bundle = lmuformer.build("xs", widths=(8, 8, 8, 8), order=4, hidden=8, ffn=8, features=4, frames=8, classes=3)
        return replace(bundle, **changes)

    return build


def test_broken_models_are_found() -> None:
    with pytest.raises(AssertionError, match=r"source must say how to build it again, got \{\}"):
        testing.check_model(_small(source={}), ["xs"])
    wrong = _small()("xs").clip
    assert wrong is not None
    shape = replace(wrong.outputs[0], shape=("batch", 5))
    with pytest.raises(AssertionError, match=r"clip output logits must have shape \(batch, 5\), got \(2, 3\)"):
        testing.check_model(_small(clip=replace(wrong, outputs=(shape,))), ["xs"])


class SameData(TinyData):
    """Whatever split one asks for, it is the test split."""

    def split(self, name: str) -> Any:
        return replace(super().split("test"), name=name)


class Generous(testing.TinyTask):
    """Counts every answer as right but one."""

    def score(self, predict: Any, split: Any, official_only: bool = True) -> Any:
        score = super().score(predict, split)
        return replace(score, correct=score.n - 1)


def test_broken_tasks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    testing.check_task(testing.TASK)
    with pytest.raises(AssertionError, match=r"task tiny: right answers must score 100 %, got 98\.96 %"):
        testing.check_task(Generous())
    task = testing.TinyTask()
    monkeypatch.setattr(testing.TinyTask, "open", lambda *_: SameData())
    with pytest.raises(AssertionError, match=r"task tiny: validation and test must not share an example"):
        testing.check_task(task)


@dataclass
class Leaving:
    """An exporter that writes elsewhere, and other bytes each time."""

    name: str
    format: str = "leaving"
    times: int = 0

    def check(self, bundle: Bundle, target: Target) -> None: ...

    def __call__(self, lowered: Sequence[Lowered], bundle: Bundle, target: Target, facts: Any = None) -> list[Emitted]:
        self.times += 1
        content = bytes([self.times]) if self.name == "twice" else b"x"
        return [Emitted(self.name, content, self.format, low) for low in lowered]


@pytest.mark.parametrize(
    ("name", "forms", "text"),
    [
        ("../x", 1, "names must stay in the run folder"),
        ("/x", 1, "names must be relative"),
        ("twice", 1, "must emit the same bytes twice"),
        ("x", 2, "file names must differ"),
    ],
)
def test_broken_exporters_are_found(monkeypatch: pytest.MonkeyPatch, name: str, forms: int, text: str) -> None:
    monkeypatch.setattr("edgetk.export.lower.lower", lambda bundle, target: lower(bundle, target)[:forms])
    with pytest.raises(AssertionError, match=rf"exporter leaving: {text}"):
        testing.check_exporter(Leaving(name), testing.tiny_bundle())
