"""Integer layers: weights stored as int8 with a scale per output channel, inputs rounded to 8 bits with a fixed scale.

In memory they compute what the exported Q/DQ graph computes (`qdq`), so training, evaluation and files share one arithmetic.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.models.layers import qdq


class InputQuantizer(nn.Module):
    """Rounds activations to 8-bit codes: x' = (clamp(round(x / scale) + zero_point) - zero_point) * scale, per tensor."""

    def __init__(self, scale: float = 1.0, zero_point: int = 0, dtype: qdq.IntegerType = "uint8") -> None:
        super().__init__()
        self.dtype: qdq.IntegerType = dtype
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        self.register_buffer("zero_point", torch.tensor(zero_point, dtype=qdq.CODES[dtype][0]))
        self.scale: Tensor
        self.zero_point: Tensor

    def quantize(self, x: Tensor) -> Tensor:
        """Codes of x."""
        return qdq.quantize(x, self.scale, self.zero_point)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Activations of codes."""
        return qdq.dequantize(codes, self.scale, self.zero_point)

    def forward(self, x: Tensor) -> Tensor:
        return qdq.quantize_dequantize(x, self.scale, self.zero_point, self.dtype)


class QuantLinear(nn.Module):
    """`nn.Linear` with int8 weights (out, in), a scale per output, a float32 bias (zeros for a layer without, or none where
    `bias` is False), and an `InputQuantizer`.

    x (..., in) -> (..., out). `rounded` is x already rounded by this layer's quantizer, for callers that move codes about
    before the product (windows of frames).
    """

    #: its weights are no parameters: nothing here can be trained on
    integer = True

    def __init__(self, inputs: int, outputs: int, dtype: qdq.IntegerType, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        self.input = InputQuantizer(dtype=dtype)
        self.register_buffer("weight", torch.zeros(outputs, inputs, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(outputs))
        self.register_buffer("bias", torch.zeros(outputs) if bias else None)
        self.weight: Tensor
        self.scale: Tensor
        self.bias: Tensor | None

    def product(self, rounded: Tensor) -> Tensor:
        """The matrix product on rounded inputs."""
        return F.linear(rounded, qdq.dequantize_weight(self.weight, self.scale), self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.product(self.input(x))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


class IntegerConv(nn.Module):
    """The shape of a `nn.Conv1d` or `nn.Conv2d`, with int8 weights, a scale per output channel and a float32 bias or none."""

    def __init__(self, conv: nn.Conv1d | nn.Conv2d) -> None:
        super().__init__()
        self.stride, self.dilation, self.groups = tuple(conv.stride), tuple(conv.dilation), conv.groups
        self.padding = conv.padding if isinstance(conv.padding, str) else tuple(conv.padding)
        self.register_buffer("weight", torch.zeros(conv.weight.shape, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(conv.out_channels))
        self.register_buffer("bias", torch.zeros(conv.out_channels) if conv.bias is not None else None)
        self.weight: Tensor
        self.scale: Tensor
        self.bias: Tensor | None

    def convolve(self, x: Tensor) -> Tensor:
        """The convolution of x as it is."""
        weight = qdq.dequantize_weight(self.weight, self.scale)
        options: Any = (self.bias, self.stride, self.padding, self.dilation, self.groups)
        return F.conv1d(x, weight, *options) if weight.dim() == 3 else F.conv2d(x, weight, *options)


class QuantConv(IntegerConv):
    """An integer convolution with an `InputQuantizer`."""

    integer = True

    def __init__(self, conv: nn.Conv1d | nn.Conv2d, dtype: qdq.IntegerType) -> None:
        super().__init__(conv)
        self.input = InputQuantizer(dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(self.input(x))


class LowRank(nn.Module):
    """W x + b as U (V x) + b with V (rank, in) and U (out, rank): what factorization leaves of a linear layer."""

    def __init__(self, inputs: int, rank: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=bias)

    @property
    def input(self) -> InputQuantizer | None:
        """The quantizer of its input, once it has one."""
        return self.down.input if isinstance(self.down, QuantLinear) else None

    @property
    def bias(self) -> Tensor | None:
        return cast("Tensor | None", self.up.bias)

    @property
    def in_features(self) -> int:
        return self.down.in_features

    @property
    def out_features(self) -> int:
        return self.up.out_features

    def product(self, rounded: Tensor) -> Tensor:
        """On inputs that the input's quantizer has rounded."""
        down = cast("QuantLinear", self.down)
        y: Tensor = self.up(down.product(rounded))
        return y

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.up(self.down(x))
        return y
