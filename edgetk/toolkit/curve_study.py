"""One or more streaming models on one split, as data: each one's curve, its saving, and what confident exits give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import edgetk
from edgetk.core import registry
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Data, Split
from edgetk.core.errors import InputError, PostconditionError, PreconditionError, UsageError
from edgetk.core.figures import Score
from edgetk.export.parity import BOUNDS
from edgetk.toolkit import calling, curve, source
from edgetk.toolkit import evaluate as scoring
from edgetk.toolkit.progress import Progress, Silent

if TYPE_CHECKING:
    import torch

#: What "confident" means: models trained with one binary cross-entropy per class are no exception.
NORMALISATION = "softmax over the running class scores, taken as logits; no temperature is fitted"

#: examples of the first batch on which the last decision is compared with the whole-input form
_COMPARED = 4


def study(
    models: Mapping[str, Bundle],
    task: str,
    data: Data,
    split: str = "test",
    exits: Sequence[float] = (),
    earliest: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What `edgetk evaluate --curve` prints, as plain data; docs/early-decision.md has its keys.

    models    what each is called -> the model; those that say their labels must have the same
    exits     confidences at which to stop listening, each in (0, 1)
    earliest  frames that must have been heard before a confident exit

    Raises PreconditionError (a model without a stream form, a task that does not score by top-1), InputError (labels or inputs
    that do not fit each other) or UsageError (`earliest` is beyond the real frames).
    """
    progress = progress or Silent()
    _agree(models)
    examples = data.split(split)
    followers = {name: scoring.decider(bundle) for name, bundle in models.items()}
    for bundle in models.values():
        calling.check_features(bundle, examples.features, f"model {bundle.name}")
    front_end = registry.load("task", task).front_end
    rows: list[dict[str, Any]] = []
    final = Score(0, 0)
    for name, bundle in models.items():
        chosen = len(examples.labels) if examples.official is None else int(examples.official.sum())
        with progress.task(f"following {name} on {split}", chosen) as step:
            trace, final = _follow(bundle, followers[name], task, examples, data.origin, step.advance)
        axis = curve.axis_of(bundle.signature, trace.right.shape[1], front_end)
        if exits and earliest > axis.real:
            raise UsageError(
                f"evaluate: --exit-from must be a frame of the input, at most {axis.real}, got {earliest}; lower it"
            )
        correct = trace.correct()
        rows.append(
            {
                "model": name,
                "files": source.files(name),
                "form": _form(bundle),
                "lookahead_s": bundle.signature.lookahead_s,
                **axis.to_json(),
                "final": final.to_json(),
                "saving": curve.saving(correct, final.n, axis),
                "exits": [curve.leave(trace, axis, threshold, earliest) for threshold in exits],
                "curve": curve.points(correct, final.n, axis),
            }
        )
    head = {"edgetk_version": edgetk.__version__, "task": task, "data": data.origin, "split": split}
    return {**head, "n": final.n, "note": final.note, "confidence": NORMALISATION, "models": rows}


def _agree(models: Mapping[str, Bundle]) -> None:
    """All models that say their labels must decide between the same classes, in one order."""
    labelled = [(name, bundle.labels) for name, bundle in models.items() if bundle.labels]
    for name, labels in labelled[1:]:
        first, wanted = labelled[0]
        if labels != wanted:
            pairs = zip(labels, wanted, strict=False)
            got, there = next(((a, b) for a, b in pairs if a != b), (f"{len(labels)} labels", f"{len(wanted)} labels"))
            raise InputError(
                f"evaluate: {name} must have the labels of {first} in the same order, got {got} where it has {there}; "
                "compare models of one task and one set of labels"
            )


def _follow(
    bundle: Bundle, decide: scoring.Predict, task: str, split: Split, origin: str, advance: Any
) -> tuple[curve.Trace, Score]:
    """Every decision on the examples that the task scores, and its own score of the last ones."""
    import torch

    labels = split.labels if split.official is None else split.labels[split.official]
    parts: list[curve.Trace] = []
    done = 0

    def last(features: torch.Tensor) -> torch.Tensor:
        nonlocal done
        if done + len(features) > len(labels):
            raise PreconditionError(
                f"evaluate: task {task} must score the {len(labels)} examples of its official lists once each for a curve, "
                "got more; leave --curve out"
            )
        scores = _checked(decide(features), len(features), bundle)
        if not parts:
            _same_as_whole(bundle, features[:_COMPARED], scores[:_COMPARED, -1])
        parts.append(curve.Trace.of(scores, labels[done : done + len(features)]))
        done += len(features)
        advance(len(features))
        return scores[:, -1]

    with torch.inference_mode():
        score = scoring.score(last, task, split, origin)
        trace = curve.Trace.join(parts)
    correct = trace.correct()[-1]
    if (correct, len(trace.right)) != (score.correct, score.n):
        raise PreconditionError(
            f"evaluate: task {task} must score by the largest class score for a curve, "
            f"got {score.correct} of {score.n} right where that gives {correct} of {len(trace.right)}; leave --curve out"
        )
    return trace, score


def _checked(scores: torch.Tensor, n: int, bundle: Bundle) -> torch.Tensor:
    finite = bool(scores.isfinite().all())
    if scores.ndim != 3 or len(scores) != n or not scores.shape[1] or not finite:
        raise PostconditionError(
            f"model {bundle.name}: must give finite scores of each class after each token ({n}, tokens, classes), "
            f"got {tuple(scores.shape)}{'' if finite else ' with NaN or infinity'}; correct its running decisions"
        )
    return scores


def _same_as_whole(bundle: Bundle, features: torch.Tensor, ends: torch.Tensor) -> None:
    """A stream that has heard everything must decide what the whole-input form decides."""
    if not bundle.is_torch or bundle.clip is None:
        return
    whole = scoring.predictor(bundle)(features)
    gap, scale = float((whole - ends).abs().max()), float(whole.abs().max())
    if not gap <= BOUNDS["int8"] * max(scale, 1e-6):  # quantized layers may round differently; also catches NaN
        raise PostconditionError(
            f"model {bundle.name}: the last running decision must be that of the whole input, got a difference of {gap:.2g} "
            f"of {scale:.2g}; correct its running decisions"
        )


def _form(bundle: Bundle) -> str:
    """How the decisions were had."""
    if not bundle.is_torch:
        return "stream, step by step in onnxruntime"
    return "stream, all tokens at once in memory" if hasattr(bundle.module, "running") else "stream, step by step in memory"


__all__ = ["NORMALISATION", "study"]
