"""Training a model on after a pass changed it, with the model from before as teacher: what several passes do alike."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import TrainingData
from edgetk.core.errors import PreconditionError, closest
from edgetk.models.layers.sparse_pattern import held
from edgetk.tasks.training.loop import Schedule, Training


def require(who: str, bundle: Bundle, augment: str, distill: float) -> None:
    """Raise PreconditionError where `bundle` cannot be trained: no training data, no teacher, no such augmentation."""
    if not isinstance(bundle.data, TrainingData):
        raise PreconditionError(
            f"{who}: needs training data, got none for {bundle.name}; give the data set with --data or leave it out"
        )
    check = getattr(bundle.data, "require_training", None)  # what only some data sets can say without reading everything
    if check is not None:
        check()
    if distill > 0 and bundle.original is None:
        raise PreconditionError(
            f"{who}: distill={distill} needs the model before compression as teacher, got none; set distill to 0"
        )
    known = bundle.data.augmentations
    if augment not in known:
        raise PreconditionError(f"{who}: augment must be one of the task's, got {augment!r}; {closest(augment, known)}")


def resolve(device: str) -> str:
    """ "cuda" or "cpu" for "auto": a GPU where there is one."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def tune(
    body: nn.Module,
    bundle: Bundle,
    schedule: Schedule,
    augment: str,
    device: str,
    between: Callable[[nn.Module], None] | None = None,
) -> dict[str, Any]:
    """Train `body` in place on the data of `bundle`, keep its best epoch, bring it back to the CPU; gives notes for the report.

    The teacher is `bundle.original`, where the schedule distills. `between` is called with the body after each epoch.
    """
    data = bundle.data
    assert isinstance(data, TrainingData)
    device = resolve(device)
    batches, rows = data.batches(device, data.augmentations[augment])
    validation = data.split("validation")
    body.to(device)
    teaches = bundle.original is not None and schedule.distill > 0
    teacher = copy.deepcopy(bundle.original).to(device).eval() if teaches else None
    held_out = validation.features.to(device), validation.labels.to(device)
    training = Training(body, batches, rows, held_out, schedule, teacher)
    history = []
    with held(body):
        for e in training:
            history.append([e.number, round(e.loss, 5), e.correct])
            if between is not None:
                between(body)
    body.load_state_dict(training.best)
    body.cpu().eval()
    return {
        "history": history,
        "best_epoch": training.best_epoch,
        "validation_correct": training.best_correct,
        "validation_n": len(validation.labels),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
    }


__all__ = ["require", "resolve", "tune"]
