"""What the report says about binary layers is what a count by hand gives."""

from __future__ import annotations

from dataclasses import replace

import onnx
import torch
from export_toys import target
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.signature import Signature, TensorSpec
from edgetk.export.binary_layers import RUNS_AS, BinaryLayer, binary_layers
from edgetk.export.lower import lower
from edgetk.models.layers.binary_weights import BinaryConv, BinaryLinear
from edgetk.models.layers.hashed_attention import HashedAttention
from edgetk.testing import tiny_bundle


class Net(nn.Module):
    """Binary attention of 2 heads of 4 over 50 tokens with codes of 6 bits, a binary linear layer, a binary convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = HashedAttention(8, 2, bits=6, anchors=5)
        self.attention.hash.randomise()
        self.linear = BinaryLinear(8, 3)
        self.linear.weight.copy_(torch.randn(3, 8).sign())
        self.conv = BinaryConv(nn.Conv1d(3, 4, 5))
        self.conv.weight.copy_(torch.randn(4, 3, 5).sign())
        self.conv.scale.fill_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(self.linear(self.attention(x)).transpose(1, 2)).mean(2)
        return y


def graph(net: nn.Module, shape: tuple[int, ...], classes: int) -> onnx.ModelProto:
    signature = Signature((TensorSpec("x", ("batch", *shape)),), (TensorSpec("y", ("batch", classes)),))
    return lower(Bundle("net", net.eval(), signature), target(17))[0].graph


def test_counts_by_hand() -> None:
    found = binary_layers(graph(Net(), (50, 8), 4))
    attention, linear, conv = found
    rows = 2 * 50  # heads x tokens
    assert replace(attention, name="") == BinaryLayer(
        name="",
        kind="attention on codes",
        shape="2 heads x 50 tokens x 6 bits, values of 4",
        values=rows * 6,
        stored_bytes=0,
        packed_bytes=rows,  # 6 bits in a byte
        additions=2 * rows * 6 * 4 + 2 * rows * 6 + rows * 4 + rows,
        multiplications=rows * 4,
        divisions=rows * 4,
    )
    assert (linear.kind, linear.values, linear.stored_bytes, linear.packed_bytes) == ("binary weights", 24, 24, 3)
    assert (linear.additions, linear.multiplications, linear.divisions) == (50 * 3 * 8, 50 * 3, 0)
    assert (conv.shape, conv.values, conv.packed_bytes) == ("4 x 3 x 5", 60, 8)
    assert (conv.additions, conv.multiplications) == (46 * 4 * 15, 46 * 4)
    assert {layer.kind for layer in found} == set(RUNS_AS["onnxruntime"])


def test_other_graphs_have_none() -> None:
    assert binary_layers(lower(tiny_bundle(), target(17))[0].graph) == ()
