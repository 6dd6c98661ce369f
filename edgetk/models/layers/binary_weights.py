"""Layers whose weights are one of two values per output channel, +scale and -scale, with scale = mean |w|.

Source: XNOR-Net, Rastegari et al. 2016, arXiv:1603.05279, eq. 5 and 6 (binary weights; inputs stay as they are). While
training, a layer keeps its weights in full and `Binarized` computes with their signs; what is stored afterwards is
`BinaryLinear` or `BinaryConv`. A code takes a byte, in memory, in safetensors and in ONNX, which has no type of one bit:
packed bits are an eighth of that.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgetk.models.layers.qdq import dequantize_weight
from edgetk.models.layers.quantized import IntegerConv


class _Sign(torch.autograd.Function):
    """+1 where w >= 0, else -1, with the gradient of the identity where |w| <= 1 and none elsewhere."""

    @staticmethod
    def forward(ctx: Any, w: Tensor) -> Tensor:
        ctx.save_for_backward(w)
        return torch.where(w >= 0, 1.0, -1.0).to(w.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (w,) = ctx.saved_tensors
        inside: Tensor = w.abs() <= 1
        return grads[0] * inside


class Binarized(nn.Module):
    """Parametrization of a weight (out, …): w -> mean |w| of its output channel times its sign."""

    def forward(self, w: Tensor) -> Tensor:
        scale = w.abs().flatten(1).mean(1).view(-1, *[1] * (w.dim() - 1))
        sign: Tensor = _Sign.apply(w)  # type: ignore[no-untyped-call]
        return scale * sign


def start_training(layer: nn.Module) -> None:
    """From now on a linear or convolution layer computes with its weights' signs and trains the weights behind them."""
    parametrize.register_parametrization(layer, "weight", Binarized())


def trained(layer: nn.Module) -> Tensor:
    """The weights behind the signs of a layer that `start_training` was called on."""
    return layer.get_parameter("parametrizations.weight.original").detach()


class BinaryLinear(nn.Module):
    """`nn.Linear` with codes +1 and -1 (int8, out x in), a scale per output and a float32 bias or none.

    x (..., in) -> (..., out).
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        self.register_buffer("weight", torch.ones(outputs, inputs, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(outputs))
        self.register_buffer("bias", torch.zeros(outputs) if bias else None)
        self.weight: Tensor
        self.scale: Tensor
        self.bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, dequantize_weight(self.weight, self.scale), self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


class BinaryConv(IntegerConv):
    """An integer convolution whose codes are +1 and -1."""

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x)


__all__ = ["Binarized", "BinaryConv", "BinaryLinear", "start_training", "trained"]
