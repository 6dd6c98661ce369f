"""Convolution over frames, three wide, one frame of look-ahead: whole clips and single frames from one weight matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TAPS = 3


class FrameConv(nn.Module):
    """y_t = W [x_{t-1}; x_t; x_{t+1}] (+ b) as one `nn.Linear` over the window, tap-major: column k * C_in + c.

    It is `nn.Conv1d(kernel_size=3, padding=1)` written as a matrix product, so that every pass that understands `nn.Linear`
    understands it, and a stream needs no convolution operator. `pad` (C_in,) is what stands beyond both ends of a clip:
    zero, until folding a norm that followed a ReLU moves it.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        # passes may put a LowRank or a QuantLinear here
        self.taps: nn.Linear = nn.Linear(TAPS * inputs, outputs, bias=bias)
        self.register_buffer("pad", torch.zeros(inputs))
        self.pad: Tensor

    def clip(self, x: Tensor) -> Tensor:
        """x (B, T, C_in) -> (B, T, C_out)."""
        edge = self.pad.expand(x.shape[0], 1, -1)
        wide = torch.cat([edge, x, edge], dim=1)
        quantizer = getattr(self.taps, "input", None)
        if quantizer is None:
            plain: Tensor = self.taps(_windows(wide, x.shape[1]))
            return plain
        if torch.onnx.is_in_onnx_export():
            # Same numbers, but the graph rounds each frame once and copies codes, a quarter of the bytes.
            rounded = quantizer.dequantize(_windows(quantizer.quantize(wide), x.shape[1]))
        else:
            rounded = _windows(quantizer(wide), x.shape[1])
        return self.taps.product(rounded)  # type: ignore[no-any-return, operator]

    def step(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C_in), past (B, 2 * C_in) -> the output one frame ago (B, C_out), next past."""
        window = torch.cat([past, x], dim=-1)
        return self.taps(window), window[:, x.shape[-1] :]


def _windows(wide: Tensor, length: int) -> Tensor:
    """(B, T + 2, C) -> (B, T, 3 * C)."""
    return torch.cat([wide[:, k : k + length] for k in range(TAPS)], dim=-1)


def from_conv1d(weight: Tensor) -> Tensor:
    """`nn.Conv1d` weight (C_out, C_in, 3) as the window matrix (C_out, 3 * C_in)."""
    return weight.permute(0, 2, 1).flatten(1)
