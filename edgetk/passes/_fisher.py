"""How much the task's loss depends on the rows of a matrix: diagonal Fisher information, summed over a row.

Source: Hsu et al. 2022 (FWSVD), arXiv:2207.00112: I_w = mean over examples of (dLoss / dw)^2, and a row counts as the sum of
its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    assert isinstance(bundle.data, TrainingData)
    draw, rows = bundle.data.batches("cpu")
    chosen = torch.linspace(0, rows - 1, min(examples, rows)).long()
    layers: dict[str, Any] = {name: bundle.module.get_submodule(name) for name in names}
    weights = [layer.weight for layer in layers.values()]
    total = [torch.zeros(weight.shape[1], dtype=torch.float64) for weight in weights]
    needed = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    predict = bundle.predict()
    with torch.enable_grad():
        for row in chosen:
            x, targets = draw(row[None])
            gradients = torch.autograd.grad(F.cross_entropy(predict(x).float(), targets), weights)
            for sums, gradient in zip(total, gradients, strict=True):
                sums += gradient.detach().double().square().sum(0)
    for weight, was in zip(weights, needed, strict=True):
        weight.requires_grad_(was)
    return {name: sums / len(chosen) for name, sums in zip(layers, total, strict=True)}


__all__ = ["row_information"]
