"""How much the task's loss depends on the rows of a matrix: diagonal Fisher information, summed over a row.

Source: Hsu et al. 2022 (FWSVD), arXiv:2207.00112: I_w = mean over examples of (dLoss / dw)^2, and a row counts as the sum of
its weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import TrainingData


def row_information(bundle: Bundle, names: Sequence[str], examples: int) -> dict[str, Tensor]:
    """For each linear layer the information of its inputs (in,), float64, over `examples` of the training split.

    The gradient is that of the cross entropy of each example alone.
    """
    layers: dict[str, Any] = {name: bundle.module.get_submodule(name) for name in names}
    weights = [layer.weight for layer in layers.values()]
    total = [torch.zeros(weight.shape[1], dtype=torch.float64) for weight in weights]
    count = 0
    for found in gradients(bundle, weights, examples):
        count += 1
        for sums, gradient in zip(total, found, strict=True):
            sums += gradient.double().square().sum(0)
    return {name: sums / count for name, sums in zip(layers, total, strict=True)}


def gradients(bundle: Bundle, tensors: Sequence[Tensor], examples: int) -> Iterator[tuple[Tensor, ...]]:
    """For each of `examples` of the training split, spread over all of it, the gradients of its cross entropy by `tensors` of
    the body; zeros for what the outputs do not depend on."""
    assert isinstance(bundle.data, TrainingData)
    draw, rows = bundle.data.batches("cpu")
    chosen = torch.linspace(0, rows - 1, min(examples, rows)).long()
    needed = [tensor.requires_grad for tensor in tensors]
    for tensor in tensors:
        tensor.requires_grad_(True)
    predict = bundle.predict()
    try:
        for row in chosen:
            x, targets = draw(row[None])
            with torch.enable_grad():
                loss = F.cross_entropy(predict(x).float(), targets)
                found = torch.autograd.grad(loss, list(tensors), allow_unused=True)
            yield tuple(torch.zeros_like(t) if g is None else g.detach() for t, g in zip(tensors, found, strict=True))
    finally:
        for tensor, was in zip(tensors, needed, strict=True):
            tensor.requires_grad_(was)


__all__ = ["gradients", "row_information"]
