"""Legendre memory unit: a linear state space that holds the last `theta` samples as Legendre coefficients.

Source: Voelker, Kajić & Eliasmith, NeurIPS 2019, eq. 1-2 (A, B); zero-order hold as in the LMUFormer code (arXiv:2402.04882).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn


def state_space(order: int, theta: float) -> tuple[Tensor, Tensor]:
    """Continuous A (order, order) and B (order, 1) in float64.

    R_i = (2i+1)/theta; A_ij = R_i * (-1 if i < j else (-1)^(i-j+1)); B_i = R_i * (-1)^i.
    """
    i = torch.arange(order, dtype=torch.float64)
    rate = (2 * i + 1)[:, None] / theta
    row, column = i[:, None], i[None, :]
    sign = 1 - 2 * ((row - column + 1) % 2)
    a = rate * torch.where(row < column, -torch.ones_like(sign), sign)
    return a, rate * (1 - 2 * (i % 2))[:, None]


def discretise(a: Tensor, b: Tensor, dt: float = 1.0) -> tuple[Tensor, Tensor]:
    """Zero-order hold in float64: [[Ad, Bd], [0, I]] = expm([[A, B], [0, 0]] dt)."""
    order = a.shape[0]
    block = torch.zeros(order + 1, order + 1, dtype=torch.float64)
    block[:order, :order] = a * dt
    block[:order, order:] = b * dt
    exact = torch.linalg.matrix_exp(block)
    return exact[:order, :order], exact[:order, order:]


def impulse_response(a: Tensor, b: Tensor, length: int) -> Tensor:
    """H (order, length), H[:, k] = A^k B, in the precision of `a`."""
    columns = [b[:, 0]]
    for _ in range(length - 1):
        columns.append(a @ columns[-1])
    return torch.stack(columns, dim=1)


@functools.lru_cache(maxsize=64)
def _constants(order: int, theta: float, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """A, B and H in float32; searches ask for the same orders again and again."""
    a, b = discretise(*state_space(order, theta))
    return a.float(), b.float(), impulse_response(a, b, length).float()


class LegendreMemory(nn.Module):
    """m_t = A m_{t-1} + B u_t with m_{-1} = 0; A and B are fixed, not trained.

    Whole clips use the impulse response (a causal convolution in direct form), streams the recurrence; both are the same
    linear map. `length` is the longest clip whose impulse response is kept ready; longer ones compute it when asked.
    """

    def __init__(self, order: int, theta: float = 128.0, length: int = 128) -> None:
        super().__init__()
        self.order, self.theta, self.length = order, theta, length
        a, b, h = _constants(order, theta, length)
        # Not in the state dict: order and theta say it all.
        self.register_buffer("A", a.clone(), persistent=False)
        self.register_buffer("B", b.clone(), persistent=False)
        self.register_buffer("H", h.clone(), persistent=False)
        self.A: Tensor
        self.B: Tensor
        self.H: Tensor

    def response(self, length: int) -> Tensor:
        """H (order, length)."""
        if length <= self.length:
            return self.H[:, :length]
        return impulse_response(self.A.double(), self.B.double(), length).to(self.A)

    def clip(self, u: Tensor) -> Tensor:
        """u (B, T) -> m (B, T, order), in float32 whatever the autocast."""
        length = u.shape[1]
        with torch.autocast(u.device.type, enabled=False):
            wide = torch.nn.functional.pad(u.float(), (length - 1, 0))
            if torch.onnx.is_in_onnx_export():
                # The same sums as one Conv: the graph needs no table of window indices.
                kernel = self.response(length).flip(1)[:, None]
                return torch.nn.functional.conv1d(wide[:, None], kernel).transpose(1, 2)
            windows = wide.unfold(1, length, 1).contiguous()  # (B, T, T): row t holds u_{t-T+1} .. u_t
            return windows @ self.response(length).flip(1).T

    def step(self, u: Tensor, m: Tensor) -> Tensor:
        """u (B, 1), m (B, order) -> next m (B, order)."""
        return torch.nn.functional.linear(torch.cat([m, u], dim=-1), torch.cat([self.A, self.B], dim=1))

    def extra_repr(self) -> str:
        return f"order={self.order}, theta={self.theta:g}"
