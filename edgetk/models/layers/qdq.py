"""Affine quantization as torch arithmetic in memory and as ONNX QuantizeLinear / DequantizeLinear in an exported graph.

Equations: q = clamp(round_half_even(x / scale) + zero_point, low, high), x' = (q - zero_point) * scale (Jacob et al. 2018,
arXiv:1712.05877, eq. 1; ONNX operator specification, QuantizeLinear-13 and DequantizeLinear-13). Both sides compute the
same float32 operations in the same order, so that an unoptimised graph equals the module bit by bit.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

IntegerType = Literal["uint8", "int8"]

#: integer type -> (torch type, lowest code, highest code)
CODES: dict[str, tuple[torch.dtype, int, int]] = {"uint8": (torch.uint8, 0, 255), "int8": (torch.int8, -128, 127)}
_NAMES = {kind: name for name, (kind, _, _) in CODES.items()}


class _FakeQuantize(torch.autograd.Function):
    """Rounding whose gradient is that of the identity inside the range and zero outside (straight-through estimator)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        code = torch.round(x / scale) + zero_point
        ctx.save_for_backward((code >= low) & (code <= high))
        return (torch.clamp(code, low, high) - zero_point) * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None, None, None


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Activations `x` (any shape, float32) as codes of `zero_point`'s type; scale and zero point are scalars."""
    kind = zero_point.dtype
    if torch.onnx.is_in_onnx_export():
        return _symbolic("QuantizeLinear", (x, scale, zero_point), kind, x)
    _, low, high = CODES[_NAMES[kind]]
    return torch.clamp(torch.round(x / scale) + zero_point.to(torch.float32), low, high).to(kind)


def dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Float32 activations from their codes."""
    if torch.onnx.is_in_onnx_export():
        return _symbolic("DequantizeLinear", (codes, scale, zero_point), torch.float32, codes)
    return (codes.to(torch.float32) - zero_point.to(torch.float32)) * scale


def quantize_dequantize(x: Tensor, scale: Tensor | float, zero_point: Tensor | int, dtype: IntegerType) -> Tensor:
    """Round activations `x` (any shape, float32) to the codes of `dtype` and back; per tensor, so `scale` is a scalar.

    Outside export this is torch arithmetic with a straight-through gradient; within `torch.onnx.export` it becomes the pair
    QuantizeLinear, DequantizeLinear. Buffers give the exported constants their names; plain numbers get made-up ones.
    """
    kind, low, high = CODES[dtype]
    step = scale if isinstance(scale, Tensor) else torch.tensor(scale, dtype=torch.float32, device=x.device)
    zero = zero_point if isinstance(zero_point, Tensor) else torch.tensor(zero_point, dtype=kind, device=x.device)
    if torch.onnx.is_in_onnx_export():
        return dequantize(quantize(x, step, zero.to(kind)), step, zero.to(kind))
    return _FakeQuantize.apply(x, step, zero.to(torch.float32), low, high)  # type: ignore[no-any-return, no-untyped-call]


def dequantize_weight(weight: Tensor, scale: Tensor, axis: int = 0) -> Tensor:
    """Float32 weights from int8 codes: `weight` int8, `scale` float32 with one entry per slice along `axis` (or a scalar).

    Symmetric, zero point 0. In an exported graph the codes stay an int8 initializer in front of a DequantizeLinear.
    """
    if torch.onnx.is_in_onnx_export():
        # onnxruntime makes integer kernels only where the zero point is written out, though ONNX lets it be left out
        zero = torch.zeros_like(scale, dtype=weight.dtype)
        attrs = {"axis": axis} if scale.dim() else {}
        return _symbolic("DequantizeLinear", (weight, scale, zero), torch.float32, weight, attrs)
    shape = [1] * weight.dim()
    if scale.dim():
        shape[axis] = -1
    return weight.to(torch.float32) * scale.reshape(shape)


def _symbolic(op: str, inputs: tuple[Tensor, ...], dtype: torch.dtype, like: Tensor, attrs: Any = None) -> Tensor:
    return torch.onnx.ops.symbolic(op, inputs, attrs or {}, dtype=dtype, shape=like.shape)


__all__ = ["CODES", "IntegerType", "dequantize", "dequantize_weight", "quantize", "quantize_dequantize"]
