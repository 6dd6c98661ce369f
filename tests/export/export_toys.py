"""Small models in every shape that export has to handle."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.signature import Signature, StateSpec, TensorSpec
from edgetk.core.target import Stack, Target
from edgetk.models.layers.qdq import dequantize_weight, quantize_dequantize


def target(
    opset: int = 17, ir_version: int = 8, runtime: str = "onnxruntime", layer_norm: bool = True, operators: tuple[str, ...] = ()
) -> Target:
    stack = Stack("toy stack", runtime, opset, ir_version, "uint8", layer_norm, operators)
    return Target("toy", "a toy board", "cpu", "as it is", stack, 1e9, 1, {}, 1e9, 2**30, 2**30)


class CausalNet(nn.Module):
    """Causal convolution of three frames, then a gated memory h' = (1 - z) h + z tanh(W y); both are carried."""

    def __init__(self, features: int = 5, width: int = 6, classes: int = 4) -> None:
        super().__init__()
        self.features, self.width = features, width
        self.taps = nn.Linear(3 * features, width)
        self.gate = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor, past: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        """x (B, 1, F), past (B, 2, F), h (B, W) -> logits (B, 1, K), next past, next h."""
        window = torch.cat([past, x], dim=1)
        y = torch.relu(self.taps(window.flatten(1)))
        z = torch.sigmoid(self.gate(y))
        h = (1 - z) * h + z * torch.tanh(self.value(y))
        return self.head(self.norm(h))[:, None], window[:, 1:], h

    def clip(self, x: Tensor) -> Tensor:
        """x (B, T, F) -> logits (B, K) after the last frame."""
        past, h = x.new_zeros(x.shape[0], 2, self.features), x.new_zeros(x.shape[0], self.width)
        for frame in x.split(1, dim=1):
            logits, past, h = self.forward(frame, past, h)
        return logits[:, 0]


def causal(frames: int = 6) -> Bundle:
    torch.manual_seed(0)
    net = CausalNet().eval()
    state = (
        StateSpec(TensorSpec("state_taps_past", ("batch", 2, 5), axes="B T F")),
        StateSpec(TensorSpec("state_memory", ("batch", 6), axes="B C")),
    )
    features = TensorSpec("features", ("batch", 1, 5), axes="B T F")
    stream = Signature((features,), (TensorSpec("logits", ("batch", 1, 4), axes="B T K"),), state, period_s=0.01)
    clip = Signature(
        (TensorSpec("features", ("batch", frames, 5), axes="B T F"),), (TensorSpec("logits", ("batch", 4), axes="B K"),)
    )
    return Bundle("causal", net, stream, clip, labels=("a", "b", "c", "d"))


class QuantLinear(nn.Module):
    """A linear layer with int8 weights and, where `out_scale` is given, a quantized output."""

    def __init__(self, inputs: int, outputs: int, kind: str, out_scale: float | None = 0.05) -> None:
        super().__init__()
        weight = torch.randn(outputs, inputs)
        scale = weight.abs().amax(1) / 127
        self.kind, self.zero = kind, 128 if kind == "uint8" else 0
        self.register_buffer("weight", torch.round(weight / scale[:, None]).to(torch.int8))
        self.register_buffer("weight_scale", scale)
        self.register_buffer("in_scale", torch.tensor(0.03))
        self.register_buffer("out_scale", None if out_scale is None else torch.tensor(out_scale))
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = quantize_dequantize(x, self.in_scale, self.zero, self.kind)
        y = nn.functional.linear(x, dequantize_weight(self.weight, self.weight_scale), self.bias)
        return y if self.out_scale is None else quantize_dequantize(y, self.out_scale, self.zero, self.kind)


class QuantNet(nn.Module):
    """A product over frames (rank 3), then one over their mean (rank 2) with float output."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first = QuantLinear(16, 24, kind)
        self.second = QuantLinear(24, 8, kind, out_scale=None)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)).mean(1))


def quantized(kind: str = "uint8") -> Bundle:
    torch.manual_seed(0)
    return plain(QuantNet(kind).eval(), (5, 16), (8,))


def plain(net: nn.Module, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Bundle:
    """A model without state, its batch symbolic."""
    signature = Signature((TensorSpec("x", ("batch", *inputs)),), (TensorSpec("y", ("batch", *outputs)),))
    return Bundle("plain", net, signature)
