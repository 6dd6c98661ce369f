"""Batch normalisation over the last axis, in a form that exports as one multiply and one add."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` with its parameters and buffers, for x (..., C); statistics over all leading axes."""

    def scale_shift(self) -> tuple[Tensor, Tensor]:
        """Scale and shift (C,), (C,) of the evaluation form y = x * scale + shift."""
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            y = F.batch_norm(
                x.flatten(0, -2),
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                True,
                self.momentum or 0.1,
                self.eps,
            )
            return y.view(x.shape)
        scale, shift = self.scale_shift()
        return x * scale + shift


class Sign(nn.Module):
    """Multiply each channel by +1 or -1: what is left of a batch norm with negative weights after folding. x (..., C)."""

    def __init__(self, sign: Tensor) -> None:
        super().__init__()
        self.register_buffer("sign", sign)
        self.sign: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.sign


def _part(layer: nn.Module, name: str) -> nn.Linear:
    """The first ("down") or last ("up") of the products that a layer is made of; a pair may itself hold a pair."""
    while hasattr(layer, name):
        layer = getattr(layer, name)
    return layer  # type: ignore[return-value]


def scaled(layer: nn.Linear, factor: Tensor) -> nn.Linear:
    """A copy of a linear layer, or of a factorized one, whose outputs are multiplied by `factor` (out,)."""
    made = copy.deepcopy(layer)
    last = _part(made, "up")
    last.weight.data.mul_(factor[:, None])
    if last.bias is not None:
        last.bias.data.mul_(factor)
    return made


def shifted(layer: nn.Linear, amount: Tensor) -> nn.Linear:
    """A copy of a linear layer, or of a factorized one, with `amount` (out,) added to its bias (new if it had none)."""
    made = copy.deepcopy(layer)
    last = _part(made, "up")
    start = torch.zeros_like(amount) if last.bias is None else last.bias.detach()
    last.bias = nn.Parameter(start + amount)
    return made


def flipped(layer: nn.Linear, sign: Tensor) -> nn.Linear:
    """A copy of a linear layer, or of a factorized one, that reads its inputs times `sign` (in,)."""
    made = copy.deepcopy(layer)
    _part(made, "down").weight.data.mul_(sign)
    return made


def response(layer: nn.Linear, x: Tensor) -> Tensor:
    """W x without the bias, for one input x (in,)."""
    with torch.no_grad():
        return layer(x) - layer(torch.zeros_like(x))  # type: ignore[no-any-return]
