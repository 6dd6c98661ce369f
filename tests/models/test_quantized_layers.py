"""Integer layers by hand: rounding, saturation, products, and the same numbers wherever they are windowed or split."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgetk.models.layers import qdq
from edgetk.models.layers.frame_conv import FrameConv
from edgetk.models.layers.quantized import InputQuantizer, LowRank, QuantConv, QuantLinear


def quant_linear(weight: list[list[int]], scale: list[float], bias: list[float], step: float, zero: int = 0) -> QuantLinear:
    layer = QuantLinear(len(weight[0]), len(weight), "uint8")
    layer.weight.copy_(torch.tensor(weight))
    layer.scale.copy_(torch.tensor(scale))
    layer.bias.copy_(torch.tensor(bias))
    layer.input.scale.fill_(step)
    layer.input.zero_point.fill_(zero)
    return layer


def test_half_codes_round_to_even() -> None:
    x = torch.tensor([0.25, 0.75, 1.25, -0.25, -0.75])
    assert qdq.quantize_dequantize(x, 0.5, 128, "uint8").tolist() == [0.0, 1.0, 1.0, 0.0, -1.0]
    assert InputQuantizer(0.5, 128).quantize(x).tolist() == [128, 130, 130, 128, 126]


@pytest.mark.parametrize(
    ("kind", "zero", "low", "high"), [("uint8", 0, 0.0, 127.5), ("uint8", 100, -50.0, 77.5), ("int8", 0, -64.0, 63.5)]
)
def test_values_beyond_the_range_saturate(kind: qdq.IntegerType, zero: int, low: float, high: float) -> None:
    x = torch.tensor([-1e6, 1e6, 0.0])
    assert InputQuantizer(0.5, zero, kind)(x).tolist() == [low, high, 0.0]


def test_codes_there_and_back() -> None:
    quantizer = InputQuantizer(0.5, 3, "uint8")
    codes = quantizer.quantize(torch.tensor([-1.5, 0.0, 2.0, 1000.0]))
    assert codes.dtype == torch.uint8
    assert codes.tolist() == [0, 3, 7, 255]
    assert quantizer.dequantize(codes).tolist() == [-1.5, 0.0, 2.0, 126.0]


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-4, 10.0), st.integers(0, 255), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20), st.booleans())
def test_error_inside_the_range_is_at_most_half_a_step(scale: float, zero: int, shares: list[float], signed: bool) -> None:
    kind: qdq.IntegerType = "int8" if signed else "uint8"
    _, low, high = qdq.CODES[kind]
    zero_point = zero + low
    x = torch.tensor([(low - zero_point + share * (high - low)) * scale for share in shares])
    error = (qdq.quantize_dequantize(x, scale, zero_point, kind) - x).abs().max()
    assert float(error) <= scale / 2 + 1e-4 * scale
    assert float(qdq.quantize_dequantize(torch.zeros(1), scale, zero_point, kind)) == 0.0


def test_gradient_passes_inside_the_range_only() -> None:
    x = torch.tensor([-1.0, 0.3, 200.0], requires_grad=True)
    qdq.quantize_dequantize(x, 0.5, 0, "uint8").sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 0.0]


def test_weights_have_a_scale_per_slice() -> None:
    codes, scale = torch.tensor([[1, -2], [3, 127]], dtype=torch.int8), torch.tensor([0.5, 2.0])
    assert qdq.dequantize_weight(codes, scale).tolist() == [[0.5, -1.0], [6.0, 254.0]]
    assert qdq.dequantize_weight(codes, scale, axis=1).tolist() == [[0.5, -4.0], [1.5, 254.0]]
    assert qdq.dequantize_weight(codes, torch.tensor(2.0)).tolist() == [[2.0, -4.0], [6.0, 254.0]]


def test_linear_by_hand() -> None:
    layer = quant_linear([[1, 2], [-3, 4]], [0.5, 0.25], [10.0, 0.0], step=1.0)
    # 1.5 -> 2 and 2.5 -> 2 (to even), -7 -> 0 (no negative codes)
    assert layer(torch.tensor([[1.5, 2.5], [-7.0, 1.0]])).tolist() == [[13.0, 0.5], [11.0, 1.0]]
    assert layer.product(torch.tensor([[2.0, 2.0]])).tolist() == [[13.0, 0.5]]
    assert layer.weight.dtype == torch.int8
    assert not list(layer.parameters())


def test_convolution_by_hand() -> None:
    layer = QuantConv(nn.Conv1d(1, 2, 2), "int8")
    layer.weight.copy_(torch.tensor([[[1, 2]], [[-1, 1]]]))
    layer.scale.copy_(torch.tensor([0.5, 1.0]))
    layer.bias.copy_(torch.tensor([0.0, 1.0]))
    layer.input.scale.fill_(2.0)
    # 1 -> 0 and 3 -> 4 (to even), 1000 -> 254
    assert layer(torch.tensor([[[1.0, 3.0, 1000.0]]])).tolist() == [[[4.0, 256.0], [5.0, 251.0]]]


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, dilation=1),
        nn.Conv2d(4, 4, (3, 1), padding="same", bias=False),
        nn.Conv1d(4, 2, 3, dilation=2, padding=2),
    ],
)
def test_convolution_keeps_its_geometry(conv: nn.Conv1d | nn.Conv2d) -> None:
    torch.manual_seed(0)
    layer = QuantConv(conv, "int8")
    layer.weight.random_(-128, 128)
    layer.input.scale.fill_(1 / 64)
    x = torch.randint(-128, 128, (2, 4, *[8] * (conv.weight.dim() - 2))) / 64
    with torch.no_grad():
        conv.weight.copy_(layer.weight)
        if conv.bias is not None:
            conv.bias.zero_()
        torch.testing.assert_close(layer(x), conv(x))


def test_frame_conv_of_integers_equals_its_windows() -> None:
    torch.manual_seed(0)
    conv = FrameConv(4, 5)
    taps = quant_linear([[1] * 12] * 5, [0.1] * 5, [0.0] * 5, step=0.05, zero=128)
    taps.weight.random_(-128, 128)
    conv.taps, conv.pad = taps, torch.full((4,), 0.07)  # type: ignore[assignment]
    x = torch.randn(2, 6, 4)
    edge = conv.pad.expand(2, 1, 4)
    wide = torch.cat([edge, x, edge], dim=1)
    expected = taps(torch.cat([wide[:, k : k + 6] for k in range(3)], dim=2))
    assert torch.equal(conv.clip(x), expected)
    past = conv.pad.repeat(2).expand(2, 8)
    for t in range(6):
        y, past = conv.step(x[:, t], past)
        if t > 0:
            torch.testing.assert_close(y, expected[:, t - 1])


def test_low_rank_of_integers_offers_its_input_quantizer() -> None:
    pair = LowRank(2, 1, 2, bias=True)
    pair.down = quant_linear([[1, 2]], [1.0], [0.0], step=0.5)  # type: ignore[assignment]
    x = torch.tensor([[0.6, 1.1]])
    assert pair.input is pair.down.input
    rounded = pair.input(x)
    assert rounded.tolist() == [[0.5, 1.0]]
    torch.testing.assert_close(pair(x), pair.product(rounded))
    torch.testing.assert_close(pair(x), F.linear(torch.tensor([[2.5]]), pair.up.weight, pair.up.bias))
