"""Top-1 accuracy: how often the largest class score is the right one. Every classification task scores by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetk.core.errors import PostconditionError
from edgetk.core.figures import Score

if TYPE_CHECKING:
    from edgetk.core.contracts import Predict, Split

_BATCH = 64


def top1(who: str, predict: Predict, split: Split, official_only: bool = True, noun: str = "clip") -> Score:
    """Right answers of `predict` (features (B, …) -> class scores (B, K)) on a split.

    `official_only` counts the examples of the benchmark's own lists where the split knows them; `noun` is what the task calls
    an example. Raises PostconditionError where `predict` does not return one finite row of scores per example.
    """
    import torch

    features, labels = split.features, split.labels
    note = f"all {len(labels)} {noun}s"
    if official_only and split.official is not None:
        features, labels = features[split.official], labels[split.official]
        note = f"the {len(labels)} {noun}s of the official lists, of {len(split.labels)}"
    correct = 0
    with torch.inference_mode():
        for start in range(0, len(labels), _BATCH):
            batch, truth = features[start : start + _BATCH], labels[start : start + _BATCH]
            scores = predict(batch)
            if scores.ndim != 2 or len(scores) != len(batch) or scores.shape[1] <= int(truth.max()):
                raise PostconditionError(
                    f"{who}: predict must return one row of class scores per {noun}, "
                    f"got {tuple(scores.shape)} for {len(batch)} {noun}s; correct the model's output"
                )
            if not scores.isfinite().all():
                raise PostconditionError(
                    f"{who}: class scores must be finite, got NaN or infinity; look for an overflow in the model"
                )
            correct += int((scores.argmax(1).cpu() == truth).sum())
    return Score(correct, len(labels), split.name, note)


__all__ = ["top1"]
