"""Neurons over whole clips as one GPU kernel each way, for training: a loop of 128 steps of small kernels is ten times slower.

Equations and gradient are those of `edgetk.models.layers.lif`; each program walks its channels of one clip through time.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 64


@triton.jit
def _forward(x, s, h_out, threshold, rest, channels, STEPS: tl.constexpr, BLOCK: tl.constexpr, KEEP: tl.constexpr):  # type: ignore[no-untyped-def]
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = c < channels
    start = tl.program_id(0).to(tl.int64) * STEPS * channels + c
    theta = tl.load(threshold + c, mask=mask)
    low = tl.load(rest + c, mask=mask)
    v = low
    for t in range(STEPS):
        at = start + t * channels
        h = (v + tl.load(x + at, mask=mask).to(tl.float32)) * 0.5
        fires = h >= theta
        tl.store(s + at, fires.to(s.dtype.element_ty), mask=mask)
        if KEEP:
            tl.store(h_out + at, h, mask=mask)
        v = tl.where(fires, low, h)


@triton.jit
def _backward(grad_s, grad_x, h_in, threshold, channels, STEPS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = c < channels
    start = tl.program_id(0).to(tl.int64) * STEPS * channels + c
    theta = tl.load(threshold + c, mask=mask)
    grad_v = tl.zeros([BLOCK], tl.float32)
    for i in range(STEPS):
        at = start + (STEPS - 1 - i) * channels
        h = tl.load(h_in + at, mask=mask)
        sg = tl.sigmoid(4.0 * (h - theta))
        grad_h = tl.load(grad_s + at, mask=mask).to(tl.float32) * 4.0 * sg * (1.0 - sg) + tl.where(h >= theta, 0.0, grad_v)
        grad_v = grad_h * 0.5
        tl.store(grad_x + at, grad_v.to(grad_x.dtype.element_ty), mask=mask)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor, rest: Tensor) -> Tensor:
        x = x.contiguous()
        batch, steps, channels = x.shape
        keep = ctx.needs_input_grad[0]
        spikes = torch.empty_like(x)
        h = torch.empty(x.shape if keep else (1,), dtype=torch.float32, device=x.device)
        grid = (batch, triton.cdiv(channels, _BLOCK))
        _forward[grid](x, spikes, h, threshold, rest, channels, STEPS=steps, BLOCK=_BLOCK, KEEP=keep)
        ctx.save_for_backward(h, threshold)
        return spikes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        h, threshold = ctx.saved_tensors
        grad_s = grads[0].contiguous()
        batch, steps, channels = grad_s.shape
        grad_x = torch.empty_like(grad_s)
        grid = (batch, triton.cdiv(channels, _BLOCK))
        _backward[grid](grad_s, grad_x, h, threshold, channels, STEPS=steps, BLOCK=_BLOCK)
        return grad_x, None, None


def lif(x: Tensor, threshold: Tensor, rest: Tensor) -> Tensor:
    """Clips x (B, T, C) on a GPU, threshold and rest (C,) -> spikes (B, T, C), each clip from rest."""
    spikes: Tensor = _Fused.apply(x, threshold.float().contiguous(), rest.float().contiguous())  # type: ignore[no-untyped-call]
    return spikes
