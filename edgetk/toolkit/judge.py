"""Whether a pass stays: the accuracy guard, the speed of each form, and the goals at the end. Pure decisions on figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgetk.core import units
from edgetk.core.artifact import Artifact
from edgetk.core.errors import GoalMissed
from edgetk.core.figures import METRICS, Measured, Predicted, Score
from edgetk.toolkit.recipe import Goals
from edgetk.toolkit.result import FigureRow, RunResult

#: net examples that the final split must lose before `max_drop` counts as missed: fewer may be chance
MIN_LOST = 5


@dataclass(frozen=True)
class Verdict:
    """`forms` go on with the pass's model (none: it is taken back); `reason` is what the report prints."""

    forms: tuple[str, ...]
    reason: str

    @property
    def kept(self) -> bool:
        return bool(self.forms)


def drop(before: Score | None, after: Score | None) -> float | None:
    """Accuracy lost, as a share of all examples; None where either is not known."""
    return before.top1 - after.top1 if before is not None and after is not None else None


def judge(lost: float | None, score: Score | None, goals: Goals, slower: Mapping[str, str | None]) -> Verdict:
    """A pass that costs more than `goals.max_drop` of the original's accuracy, or slows every form down, is taken back.

    `slower` has every form of the model: None, or the two latencies in words. A pass that slows down one form only is kept
    for the others.
    """
    if lost is not None and score is not None and lost > goals.max_drop + 1e-9:
        return Verdict((), f"accuracy on {score.split} fell by {_points(lost)}, more than {_points(goals.max_drop)}: {score}")
    fine = tuple(form for form, text in slower.items() if text is None)
    slow = "; ".join(f"{form} got slower, {text}" for form, text in slower.items() if text is not None)
    if not slow:
        cost = f"accuracy on {score.split} changed by {_points(-lost, sign=True)}" if score and lost is not None else "no data"
        return Verdict(fine, f"within the guard ({cost})" if lost is not None else "kept without an accuracy check: no data")
    if not fine:
        return Verdict((), slow)
    return Verdict(fine, f"{slow}; that form keeps the model from before")


def missed(
    goals: Goals,
    before: Score | None,
    after: Score | None,
    artifacts: Sequence[Artifact],
    figures: Sequence[FigureRow],
    target: str,
) -> tuple[str, ...]:
    """One sentence per goal that was not reached; a goal that nothing is known about counts as missed."""
    texts = []
    lost = drop(before, after)
    if lost is not None and after is not None and lost > goals.max_drop + 1e-9 and not by_chance(lost, after):
        texts.append(f"max_drop: accuracy on {after.split} must fall by at most {_points(goals.max_drop)}, got {_points(lost)}")
    if goals.min_top1 is not None and (after is None or after.top1 < goals.min_top1):
        texts.append(f"min_top1: accuracy must be at least {units.percent(goals.min_top1)}, got {after or 'no data'}")
    if goals.max_size_bytes is not None:
        texts += [
            f"max_size_bytes: {a.path} must have at most {units.size(goals.max_size_bytes)}, got {units.size(a.size_bytes)}"
            for a in artifacts
            if a.size_bytes > goals.max_size_bytes
        ]
    if goals.max_latency_s is not None:
        for row in figures:
            if row.figure.metric != "latency" or row.target != target:
                continue
            seconds = _seconds(row)
            if seconds is None or seconds > goals.max_latency_s:
                limit = units.text(goals.max_latency_s, METRICS["latency"])
                texts.append(f"max_latency_s: {row.artifact} on {target} must take at most {limit}, got {row.figure}")
    return tuple(texts)


def by_chance(lost: float, after: Score) -> bool:
    """True where the final split lost too few examples to say that a goal was missed."""
    return round(lost * after.n) < MIN_LOST


def doubt(goals: Goals, before: Score | None, after: Score | None) -> str | None:
    """What to say where the final split fell by more than allowed, but by too few examples to call the goal missed."""
    lost = drop(before, after)
    if lost is None or after is None or lost <= goals.max_drop + 1e-9 or not by_chance(lost, after):
        return None
    return (
        f"accuracy on {after.split} fell by {_points(lost)}, more than {_points(goals.max_drop)}, but that is "
        f"{round(lost * after.n)} of {after.n} examples: too few to tell; judge it on more data"
    )


def require_goals(result: RunResult) -> None:
    """Raise GoalMissed (exit code 3) if the run missed a goal; all its files are written by then."""
    if result.goals_missed:
        raise GoalMissed(
            f"goals: {'; '.join(result.goals_missed)}; the best candidate is in {result.folder}, "
            "relax the goal or add a pass (finetune) and run again"
        )


def _seconds(row: FigureRow) -> float | None:
    figure = row.figure
    if isinstance(figure, Measured):
        return figure.median
    return figure.value if isinstance(figure, Predicted) else None


def _points(share: float, sign: bool = False) -> str:
    value = round(100 * share, 2) + 0.0  # makes 0.0 of -0.0
    text = f"{value:+.2f}" if sign and value else f"{value:.2f}"
    return f"{text} points"
