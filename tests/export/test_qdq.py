"""Quantization in memory: hand-computed codes, and the straight-through gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgetk.models.layers.qdq import dequantize_weight, quantize_dequantize


def test_rounds_half_to_even_and_clamps_uint8() -> None:
    x = torch.tensor([0.25, 0.75, -0.25, 1.0, 100.0, -100.0])
    y = quantize_dequantize(x, 0.5, 128, "uint8")
    assert y.tolist() == [0.0, 1.0, 0.0, 1.0, 63.5, -64.0]


def test_clamps_int8_at_both_ends() -> None:
    y = quantize_dequantize(torch.tensor([100.0, -100.0, 0.26]), torch.tensor(0.5), torch.tensor(0, dtype=torch.int8), "int8")
    assert y.tolist() == [63.5, -64.0, 0.5]


def test_gradient_is_the_identity_inside_the_range_only() -> None:
    x = torch.tensor([0.3, 200.0, -200.0], requires_grad=True)
    quantize_dequantize(x, 0.5, 0, "int8").sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(("axis", "expected"), [(0, [[1.0, 2.0], [1.5, -2.0]]), (1, [[1.0, 1.0], [3.0, -2.0]])])
def test_weight_scale_applies_along_its_axis(axis: int, expected: list[list[float]]) -> None:
    weight = torch.tensor([[1, 2], [3, -4]], dtype=torch.int8)
    assert np.allclose(dequantize_weight(weight, torch.tensor([1.0, 0.5]), axis), expected)


def test_a_scalar_scale_is_per_tensor() -> None:
    assert dequantize_weight(torch.tensor([[2]], dtype=torch.int8), torch.tensor(0.25)).item() == 0.5
