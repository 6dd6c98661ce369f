"""Seeing what layers read while a model runs, and how far a changed model strays from the one it came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Predict = Callable[[Tensor], Tensor]


@contextmanager
def inputs_of(body: nn.Module, takers: Mapping[str, Callable[[Tensor], None]]) -> Iterator[None]:
    """Within the block, each taker is given what the layer of its name reads, at every call."""
    handles = []
    for name, take in takers.items():

        def hook(module: nn.Module, args: tuple[Tensor, ...], take: Callable[[Tensor], None] = take) -> None:
            take(args[0])

        handles.append(body.get_submodule(name).register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def changed_share(before: Tensor, after: Tensor) -> float:
    """Mean squared difference of outputs (n, …) as a share of the variance that `before` has over the first axis."""
    variance = (before - before.mean(0)).square().mean().clamp_min(1e-30)
    return float((after - before).square().mean() / variance)


class OutputChange:
    """How much the outputs of a changed model differ from those of the model it came from, on fixed inputs.

    `before` and `predict` map inputs (n, …) to outputs (n, K); the change is the mean squared difference as a share of the
    variance of the original outputs over the inputs: 0 is equal, 1 is as far off as a constant would be.
    """

    def __init__(self, before: Predict, inputs: Tensor) -> None:
        self._inputs = inputs
        self._before = self._run(before)

    def _run(self, predict: Predict) -> Tensor:
        with torch.inference_mode():
            return predict(self._inputs).float()

    def of(self, predict: Predict) -> float:
        """The change that `predict` makes."""
        return changed_share(self._before, self._run(predict))
