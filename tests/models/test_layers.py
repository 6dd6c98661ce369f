"""The blocks that models share: convolution over frames, norms and their folding, groups of channels, the memory's order."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.models.layers.frame_conv import FrameConv, from_conv1d
from edgetk.models.layers.groups import Group, MemoryGroup, Slice, columns, delete, norm_entries, rows
from edgetk.models.layers.lmu import LegendreMemory
from edgetk.models.layers.norm import BatchNorm, Sign, flipped, response, scaled, shifted
from edgetk.models.layers.quantized import LowRank


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("bias", [False, True])
def test_frame_conv_is_a_padded_convolution(bias: bool) -> None:
    reference, conv = nn.Conv1d(4, 5, 3, padding=1, bias=bias), FrameConv(4, 5, bias=bias)
    conv.taps.weight.data = from_conv1d(reference.weight.data)
    if bias:
        conv.taps.bias.data = reference.bias.data
    x = torch.randn(2, 9, 4)
    torch.testing.assert_close(conv.clip(x), reference(x.mT).mT)


def test_window_matrix_is_tap_major() -> None:
    weight = torch.arange(12.0).reshape(2, 2, 3)
    assert from_conv1d(weight).tolist() == [[0, 3, 1, 4, 2, 5], [6, 9, 7, 10, 8, 11]]


def test_frame_conv_pads_with_what_it_is_told() -> None:
    conv = FrameConv(2, 3)
    conv.pad = torch.tensor([1.0, -2.0])
    x = torch.randn(1, 4, 2)
    wide = torch.cat([conv.pad.expand(1, 1, 2), x, conv.pad.expand(1, 1, 2)], dim=1)
    expected = torch.cat([wide[:, k : k + 4] for k in range(3)], dim=2) @ conv.taps.weight.T
    torch.testing.assert_close(conv.clip(x), expected)


def test_frame_conv_steps_are_one_frame_behind() -> None:
    conv, x = FrameConv(3, 2), torch.randn(2, 6, 3)
    past, outputs = torch.zeros(2, 6), []
    for frame in (*x.unbind(1), torch.zeros(2, 3)):
        y, past = conv.step(frame, past)
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs[1:], dim=1), conv.clip(x))


def test_batch_norm_is_torchs_in_both_modes() -> None:
    ours, torchs = BatchNorm(4), nn.BatchNorm1d(4)
    for norm in (ours, torchs):
        norm.weight.data = torch.tensor([1.0, -2.0, 0.0, 3.0])
        norm.bias.data = torch.tensor([0.5, 0.0, 1.0, -1.0])
    x = torch.randn(3, 7, 4) * 2 + 1
    torch.testing.assert_close(ours(x), torchs(x.mT).mT)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(ours, name), getattr(torchs, name))
    torch.testing.assert_close(ours.eval()(x), torchs.eval()(x.mT).mT)
    torch.testing.assert_close(ours(x[:, 0]), torchs(x[:, 0]))


def test_scale_and_shift_by_hand() -> None:
    norm = BatchNorm(2, eps=0.0).eval()
    norm.weight.data, norm.bias.data = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0])
    norm.running_mean, norm.running_var = torch.tensor([3.0, 1.0]), torch.tensor([4.0, 0.25])
    scale, shift = norm.scale_shift()
    assert (scale.tolist(), shift.tolist()) == ([1.0, -2.0], [-2.0, 2.0])
    assert norm(torch.tensor([[5.0, 2.0]])).tolist() == [[3.0, -2.0]]


def test_sign_flips_channels() -> None:
    assert Sign(torch.tensor([1.0, -1.0]))(torch.tensor([[2.0, 3.0]])).tolist() == [[2.0, -3.0]]


def linear(factorized: bool, bias: bool) -> nn.Linear:
    made: nn.Module = LowRank(4, 2, 3, bias) if factorized else nn.Linear(4, 3, bias=bias)
    return made  # type: ignore[return-value]


@pytest.mark.parametrize("factorized", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_scaling_shifting_and_flipping_a_layer(factorized: bool, bias: bool) -> None:
    layer, x = linear(factorized, bias), torch.randn(5, 4)
    before = layer(x).detach()
    factor, sign = torch.tensor([2.0, -0.5, 0.0]), torch.tensor([1.0, -1.0, -1.0, 1.0])
    torch.testing.assert_close(scaled(layer, factor)(x), before * factor)
    torch.testing.assert_close(shifted(layer, factor)(x), before + factor)
    torch.testing.assert_close(flipped(layer, sign)(x * sign), before)
    constant = torch.zeros(3) if layer.bias is None else layer.bias.detach()
    torch.testing.assert_close(response(layer, x[0]), before[0] - constant)
    torch.testing.assert_close(layer(x), before)  # all of them work on copies


def test_low_rank_is_a_product_of_two() -> None:
    pair = LowRank(4, 2, 3, bias=True)
    whole = pair.up.weight @ pair.down.weight
    x = torch.randn(2, 4)
    torch.testing.assert_close(pair(x), x @ whole.T + pair.up.bias)
    assert (pair.in_features, pair.out_features, pair.input) == (4, 3, None)
    assert pair.bias is pair.up.bias
    assert LowRank(4, 2, 3, bias=False).bias is None


class Pair(nn.Module):
    """Three channels made by one layer, scaled by a norm, read over two frames."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Linear(1, 3)
        self.norm = BatchNorm(3)
        self.read = nn.Linear(6, 1, bias=False)
        self.make.weight.data = torch.tensor([[1.0], [2.0], [3.0]])
        self.make.bias.data = torch.tensor([10.0, 20.0, 30.0])
        self.norm.weight.data = torch.tensor([0.1, 0.2, 0.3])
        self.read.weight.data = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])


def test_deleting_a_channel_takes_its_row_its_entries_and_its_columns() -> None:
    net = Pair()
    group = Group("g", 3, (*rows("make", net.make), *norm_entries("norm", net.norm)), "read", taps=2)
    assert columns(group, [0, 2]) == [0, 2, 3, 5]
    delete(net, group, [0, 2])
    assert net.make.weight.tolist() == [[1.0], [3.0]]
    assert net.make.bias.tolist() == [10.0, 30.0]
    assert torch.equal(net.norm.weight, torch.tensor([0.1, 0.3]))
    assert net.norm.running_var.shape == (2,)
    assert net.read.weight.tolist() == [[1.0, 3.0, 4.0, 6.0]]
    assert (net.make.out_features, net.norm.num_features, net.read.in_features) == (2, 2, 4)
    assert isinstance(net.make.weight, nn.Parameter)
    assert net.make.weight.requires_grad


def test_what_belongs_to_a_channel() -> None:
    assert rows("a", nn.Linear(1, 2)) == (Slice("a.weight", 0), Slice("a.bias", 0))
    assert rows("a", nn.Linear(1, 2, bias=False)) == (Slice("a.weight", 0),)
    assert norm_entries("n", nn.Identity()) == ()
    assert norm_entries("n", Sign(torch.ones(2))) == (Slice("n.sign", 0),)
    assert [s.path for s in norm_entries("n", BatchNorm(2))] == ["n.weight", "n.bias", "n.running_mean", "n.running_var"]


class Remembering(nn.Module):
    def __init__(self, order: int) -> None:
        super().__init__()
        self.memory = LegendreMemory(order, 8.0, 12)
        self.read = nn.Linear(order + 2, 3)

    def forward(self, u: Tensor, x: Tensor) -> Tensor:
        y: Tensor = self.read(torch.cat([self.memory.clip(u), x], dim=-1))
        return y


class Wrapped(nn.Module):
    def __init__(self, order: int = 6) -> None:
        super().__init__()
        self.mixer = Remembering(order)


def observe(net: Wrapped, group: MemoryGroup, u: Tensor, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    with group.observed(net, seen.append):
        net.mixer(u, x)
    assert "clip" not in vars(net.mixer.memory), "the memory is put back as it was"
    return torch.cat(seen).flatten(0, 1).detach().double()


def test_observed_rows_make_the_memory() -> None:
    net, group = Wrapped(), MemoryGroup("m", "mixer", "mixer.read", 6)
    u, x = torch.randn(2, 12), torch.randn(2, 12, 2)
    seen = observe(net, group, u, x)
    assert seen.shape == (24, 14)
    torch.testing.assert_close((seen[:, :12] @ net.mixer.memory.H.double().T).float(), net.mixer.memory.clip(u).flatten(0, 1))
    torch.testing.assert_close(seen[:, 12:].float(), x.flatten(0, 1))


@pytest.mark.parametrize("order", [2, 4, 6])
def test_refit_is_least_squares_on_a_memory_of_another_order(order: int) -> None:
    net, group = Wrapped(), MemoryGroup("m", "mixer", "mixer.read", 6)
    u, x = torch.randn(20, 12), torch.randn(20, 12, 2)
    seen = observe(net, group, u, x)
    wide = torch.cat([seen, torch.ones(len(seen), 1)], dim=1)
    weight, lost = group.refit(net, order, wide.T @ wide / len(wide))
    m = LegendreMemory(order, 8.0, 12).clip(u)
    inputs = torch.cat([m, x], dim=-1).flatten(0, 1).double()
    target = (net.mixer(u, x) - net.mixer.read.bias).flatten(0, 1).detach().double()
    best = torch.linalg.lstsq(inputs, target).solution
    torch.testing.assert_close(weight.double(), best.T, rtol=2e-3, atol=2e-3)
    measured = (inputs @ weight.double().T - target).square().sum() / (target - target.mean(0)).square().sum()
    assert lost == pytest.approx(float(measured), abs=1e-6)
    if order == 6:
        assert lost < 1e-8
        torch.testing.assert_close(weight, net.mixer.read.weight.detach(), rtol=1e-3, atol=1e-4)
    group.resize(net, order)
    assert net.mixer.memory.order == order
    assert net.mixer.read.in_features == order + 2
    net.mixer.read.weight.data = weight
    outputs = (net.mixer(u, x) - net.mixer.read.bias).flatten(0, 1)
    torch.testing.assert_close(outputs.double(), inputs @ weight.double().T, rtol=1e-4, atol=1e-4)


def test_resizing_keeps_the_columns_of_the_tokens() -> None:
    net, group = Wrapped(), MemoryGroup("m", "mixer", "mixer.read", 6)
    tokens = net.mixer.read.weight[:, 6:].clone()
    group.resize(net, 3)
    assert torch.equal(net.mixer.read.weight[:, 3:], tokens)
    assert F.linear(torch.zeros(1, 5), net.mixer.read.weight).shape == (1, 3)
