"""A network over the same batches again and again: what comes before the first change is remembered, not computed again.

Bit for bit: the steps from there on get the very tensors that they would get, in the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgetk.tasks.training.loop import call


class PrefixCache:
    """`body`'s whole-input form in its `steps()` (one where it has none) over fixed `batches`."""

    def __init__(self, body: nn.Module, batches: Sequence[Tensor]) -> None:
        self._body, self._batches = body, tuple(batches)
        #: for each batch: step -> what it reads
        self._known: list[dict[int, Any]] = [{0: batch} for batch in self._batches]
        self.computed = 0

    @torch.inference_mode()
    def outputs(self, first: int = 0) -> list[Tensor]:
        """Outputs of each batch, where steps before `first` are as they were when last computed.

        What steps up to `first` read is remembered. `computed` counts the steps that ran.
        """
        steps = self._stages()
        return [self._one(steps, known, first) for known in self._known]

    def forget(self, after: int) -> None:
        """Stage `after` is another one from now on: what later ones read is not known any more."""
        for known in self._known:
            for step in [s for s in known if s > after]:
                del known[step]

    def _stages(self) -> tuple[Callable[[Any], Any], ...]:
        steps: Callable[[], tuple[Callable[[Any], Any], ...]] | None = getattr(self._body, "steps", None)
        return steps() if steps is not None else (lambda x: call(self._body, x),)

    def _one(self, steps: Sequence[Callable[[Any], Any]], known: dict[int, Any], first: int) -> Tensor:
        first = min(first, len(steps) - 1)  # where there is one step only, it is the first that differs
        start = max(step for step in known if step <= first)
        made = known[start]
        for index in range(start, len(steps)):
            made = steps[index](made)
            self.computed += 1
            if index < first:
                known[index + 1] = made
        result: Tensor = made
        return result


__all__ = ["PrefixCache"]
