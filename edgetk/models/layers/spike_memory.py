"""Legendre memory of a spike train as a sum over its last spikes: additions only, and one bit a frame to remember.

m_t = sum over k < L of A^k B u_{t-k}: the published network computes exactly this sum for clips of L frames (by FFT); the
recurrence m_t = A m_{t-1} + B u_t gives the same numbers up to rounding, which a threshold behind it does not forgive. Here
both forms, whole clips and single frames, are the one product W [u_{t-L+1} .. u_t] with W on an exact grid. Longer streams
see a window of L frames. Matrices: `edgetk.models.layers.lmu` (arXiv:2402.04882).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.models.layers.exact import put_on_grid
from edgetk.models.layers.lmu import LegendreMemory
from edgetk.models.layers.qdq import dequantize_weight
from edgetk.models.layers.quantized import QuantLinear


class SpikeMemory(nn.Module):
    """`taps` is an `nn.Linear` (L -> order) whose weight is fixed, not trained, and in no weights file: order, theta and L say
    it all. Column j belongs to the spike L - 1 - j frames ago."""

    def __init__(self, order: int, theta: float, length: int) -> None:
        super().__init__()
        self.length = length
        # passes may put a QuantLinear here
        self.taps: nn.Module = nn.Linear(length, order, bias=False)
        weight = LegendreMemory(order, theta, length).H.flip(1).contiguous()
        self.taps.weight.requires_grad_(False).copy_(weight)
        put_on_grid([self.taps])
        on_grid = self.taps.weight.detach()
        del self.taps.weight
        self.taps.register_buffer("weight", on_grid, persistent=False)

    def clip(self, u: Tensor) -> Tensor:
        """Spikes u (B, T) -> m (B, T, order), in float32 whatever the autocast."""
        with torch.autocast(u.device.type, enabled=False):
            wide = F.pad(u.float(), (self.length - 1, 0))
            if torch.onnx.is_in_onnx_export():
                # The same sums as one Conv: the graph needs no table of window indices.
                return F.conv1d(self._rounded(wide)[:, None], self._weight()[:, None]).transpose(1, 2)
            m: Tensor = self.taps(wide.unfold(1, self.length, 1).contiguous())
            return m

    def step(self, u: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Spike u (B, 1), the L - 1 before it (B, L - 1) -> m (B, order), next past."""
        window = torch.cat([past, u], dim=-1)
        return self.taps(window), window[:, 1:]

    def _weight(self) -> Tensor:
        if isinstance(self.taps, QuantLinear):
            return dequantize_weight(self.taps.weight, self.taps.scale)
        return self.taps.weight  # type: ignore[return-value]

    def _rounded(self, u: Tensor) -> Tensor:
        return self.taps.input(u) if isinstance(self.taps, QuantLinear) else u
