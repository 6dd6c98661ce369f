"""Candidates of a pruning search on a network: elements switched off, losses of the samples, the outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.models.layers.elements import Block
from edgetk.models.layers.removal import Masks
from edgetk.passes._hierarchical import Outcome, Trial
from edgetk.passes._prefix_cache import PrefixCache

#: samples of a batch, as published
BATCH = 128


class Trials:
    """`body` on labelled samples; batches of (features (B, …), labels (B,)) on the body's device.

    The loss of a candidate is the mean over batches of their mean cross entropies. `device`s of all must agree.
    """

    def __init__(
        self,
        body: nn.Module,
        blocks: Sequence[Block],
        batches: Sequence[tuple[Tensor, Tensor]],
        refit: Mapping[str, Callable[[int], Tensor]] = MappingProxyType({}),
    ) -> None:
        self._masks = Masks(body, blocks, refit)
        self._cache = PrefixCache(body, [x for x, _ in batches])
        self._labels = [y for _, y in batches]
        self.n = sum(len(y) for y in self._labels)
        self._original: list[Tensor] = []

    def __call__(self, trial: Trial) -> Outcome:
        """The outcome; the first candidate is the original model that samples are compared with."""
        self._masks.set(trial.removed, trial.hard)
        try:
            outputs = self._cache.outputs(trial.step)
        finally:
            self._masks.set(())
        losses = [F.cross_entropy(y.float(), labels, reduction="none") for y, labels in zip(outputs, self._labels, strict=True)]
        if not self._original:
            self._original = losses
        as_good = sum((new <= old).sum() for new, old in zip(losses, self._original, strict=True))
        correct = sum((y.argmax(1) == labels).sum() for y, labels in zip(outputs, self._labels, strict=True))
        mean = torch.stack([each.double().mean() for each in losses]).mean()
        squares = sum((new - old).double().square().sum() for new, old in zip(losses, self._original, strict=True))
        return Outcome(float(mean), int(as_good), int(correct), float(squares / self.n) ** 0.5)

    def accept(self, trial: Trial) -> None:
        """Later candidates have this one's changes."""
        self._cache.forget(trial.step)

    @property
    def steps_run(self) -> int:
        """Stages that were computed so far, over all batches."""
        return self._cache.computed


def batched(body: nn.Module, features: Tensor, labels: Tensor, size: int = BATCH) -> list[tuple[Tensor, Tensor]]:
    """Samples in batches; those of a module that can trim padding lie sorted by what is left of them, and are trimmed."""
    trimmed: Any = getattr(body, "trimmed", None)
    if trimmed is None:
        return list(zip(torch.split(features, size), torch.split(labels, size), strict=True))
    lengths = torch.tensor([trimmed(row[None]).shape[1] for row in features])
    order = torch.argsort(lengths, stable=True)
    parts = zip(torch.split(features[order], size), torch.split(labels[order], size), strict=True)
    return [(trimmed(x), y) for x, y in parts]


__all__ = ["BATCH", "Trials", "batched"]
