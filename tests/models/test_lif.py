"""Neurons: recorded spikes and gradients, the equality case, snnTorch's own loop, folding, and the memory of spikes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from snntorch import Leaky, SpikingNeuron, surrogate
from torch import Tensor, nn

from edgetk.models.layers.exact import put_on_grid
from edgetk.models.layers.lif import LIF, NormedLIF
from edgetk.models.layers.lmu import LegendreMemory
from edgetk.models.layers.norm import BatchNorm, Sign
from edgetk.models.layers.spike_memory import SpikeMemory

RECORDED = Path(__file__).parent.parent / "data" / "lif_multistep.npz"


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    with np.load(RECORDED, allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_spikes_membranes_and_gradients_are_the_recorded_ones(recorded: dict[str, Tensor], threshold: float) -> None:
    x = recorded["x"].permute(2, 0, 1).clone().requires_grad_()  # [T, C, B] -> (B, T, C)
    neuron = LIF(x.shape[-1], threshold)
    spikes = neuron.clip(x)
    assert torch.equal(spikes.permute(1, 2, 0), recorded[f"spike_vth{threshold}"])
    (spikes * recorded["w"].permute(2, 0, 1)).sum().backward()
    assert x.grad is not None
    assert float((x.grad.permute(1, 2, 0) - recorded[f"grad_x_vth{threshold}"]).abs().max()) <= 1e-6
    v = neuron.rest.expand(len(x), -1)
    with torch.no_grad():
        for t in range(x.shape[1]):
            s, v = neuron(x[:, t], v)
            assert torch.equal(s.T, recorded[f"spike_vth{threshold}"][t])
            assert float((v.T - recorded[f"v_after_reset_vth{threshold}"][t]).abs().max()) <= 1e-6


@pytest.mark.parametrize("grad", [False, True])
def test_a_membrane_equal_to_the_threshold_fires(recorded: dict[str, Tensor], grad: bool) -> None:
    x = recorded["edge_x"].T[..., None].clone().requires_grad_(grad)
    spikes = LIF(1).clip(x)
    assert spikes.detach().flatten().tolist() == recorded["edge_spike"].flatten().tolist() == [1, 0, 1, 0, 1]


def test_away_from_equality_it_is_snntorch() -> None:
    x = torch.randn(3, 50, 7, generator=torch.Generator().manual_seed(0)) * 2
    theirs = Leaky(0.5, threshold=1.0, spike_grad=surrogate.sigmoid(slope=4), reset_mechanism="zero", reset_delay=True)
    mine, leaves = LIF(7), [x.clone().requires_grad_() for _ in range(2)]
    mem, steps = torch.zeros(3, 7), []
    for t in range(50):
        s, mem = theirs(leaves[0][:, t] / 2, mem)
        steps.append(s)
    spikes = mine.clip(leaves[1])
    assert torch.equal(torch.stack(steps, 1), spikes)
    weight = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(1))
    torch.stack(steps, 1).mul(weight).sum().backward()
    spikes.mul(weight).sum().backward()
    assert leaves[0].grad is not None
    assert leaves[1].grad is not None
    assert torch.allclose(leaves[0].grad, leaves[1].grad, atol=1e-6)


def test_it_leaves_nothing_behind() -> None:
    before = len(SpikingNeuron.instances)
    neuron = LIF(3)
    assert len(SpikingNeuron.instances) == before
    assert sorted(neuron.state_dict()) == ["rest", "threshold"]


def test_two_steps_by_hand() -> None:
    """x = 1.5, 1.5, 0.25: h = 0.75; (0.75 + 1.5) / 2 = 1.125 fires; (0 + 0.25) / 2 = 0.125."""
    neuron, v = LIF(1), torch.zeros(1, 1)
    seen = []
    for x in (1.5, 1.5, 0.25):
        s, v = neuron(torch.tensor([[x]]), v)
        seen.append((float(s), float(v)))
    assert seen == [(0.0, 0.75), (1.0, 0.0), (0.0, 0.125)]


def normed(width: int, seed: int, signed: bool) -> NormedLIF:
    torch.manual_seed(seed)
    unit = NormedLIF(width).eval()
    assert isinstance(unit.norm, BatchNorm)
    nn.init.uniform_(unit.norm.weight, 0.5, 2.0)
    if signed:
        unit.norm.weight.data *= torch.where(torch.arange(width) % 3 == 0, -1.0, 1.0)
    nn.init.normal_(unit.norm.bias)
    nn.init.normal_(unit.norm.running_mean)
    nn.init.uniform_(unit.norm.running_var, 0.5, 2.0)
    return unit


@pytest.mark.parametrize("signed", [False, True])
def test_a_folded_norm_gives_the_same_spikes(signed: bool) -> None:
    unit = normed(9, 0, signed)
    x = torch.randn(4, 60, 9) * 2
    with torch.no_grad():
        before = unit.clip(x)
        assert unit.fold()
        assert not unit.fold()
        after = unit.clip(x)
    assert 0.05 < float(before.mean()) < 0.95
    # thresholds are rounded, so a membrane that nearly equals one may fall to the other side
    assert float((before != after).float().mean()) <= 1e-3
    assert isinstance(unit.norm, Sign if signed else nn.Identity)


def test_a_norm_with_a_vanishing_scale_stays() -> None:
    unit = normed(3, 1, False)
    assert isinstance(unit.norm, BatchNorm)
    unit.norm.weight.data[1] = 1e-9
    assert not unit.fold()
    assert isinstance(unit.norm, BatchNorm)


@pytest.mark.parametrize("folded", [False, True])
def test_outside_the_clip_a_neuron_rests(folded: bool) -> None:
    unit = normed(5, 2, False)
    if folded:
        unit.fold()
    rest = unit.rest.expand(2, -1)
    outside = torch.zeros(2, 1, dtype=torch.bool)
    with torch.no_grad():
        s, v = unit.step(torch.full((2, 5), 100.0), outside, rest)
        assert float(s.abs().max()) == 0.0
        assert torch.equal(v, rest)
        almost = torch.nextafter(unit.neuron.threshold, torch.tensor(-torch.inf)).expand(2, -1)
        assert float(unit.step(torch.full((2, 5), 100.0), outside, almost)[0].abs().max()) == 0.0


@given(st.integers(1, 400), st.integers(1, 40), st.integers(0, 10_000), st.floats(1e-3, 30.0))
@settings(max_examples=40, deadline=None)
def test_on_the_grid_the_order_of_a_sum_does_not_matter(inputs: int, rows: int, seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    linear = nn.Linear(inputs, rows)
    for weight in linear.parameters():
        weight.data.copy_(torch.randn(weight.shape, generator=generator) * size)
    before = linear.weight.detach().clone()
    total = before.abs().sum(1) + linear.bias.detach().abs()
    put_on_grid([linear])
    step = (total * 2.0**-22).clamp_min(2.0**-24)
    assert bool(((linear.weight - before).abs() <= step[:, None]).all())
    kept = [p.detach().clone() for p in linear.parameters()]
    put_on_grid([linear])
    assert all(torch.equal(a, b) for a, b in zip(kept, linear.parameters(), strict=True))
    half = [p.half().float() for p in kept]  # as weights files store them
    spikes = (torch.rand(6, inputs, generator=generator) < 0.4).float()
    order = torch.randperm(inputs, generator=generator)
    for weight, bias in ((kept[0], kept[1]), (half[0], half[1])):
        exact = (spikes.double() @ weight.double().T + bias.double()).float()
        assert torch.equal(nn.functional.linear(spikes, weight, bias), exact)
        one_by_one = torch.stack([nn.functional.linear(s, weight, bias) for s in spikes])
        assert torch.equal(one_by_one, exact)
        summed = torch.zeros(6, rows) + bias
        for i in order:
            summed += spikes[:, i, None] * weight[:, i]
        assert torch.equal(summed, exact)


def test_grid_of_layers_that_add_up() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(30, 8, bias=False), nn.Linear(50, 8), nn.Linear(20, 8)]
    put_on_grid(layers)
    inputs = [(torch.rand(40, layer.in_features) < 0.5).float() for layer in layers]
    a, b, c = (layer(x) for layer, x in zip(layers, inputs, strict=True))
    assert torch.equal((a + b) + c, a + (b + c))
    assert torch.equal((a + b) + c, sum(y.double() for y in (a, b, c)).float())


def test_memory_of_spikes_is_the_published_sum_in_both_forms() -> None:
    memory, reference = SpikeMemory(20, 16.0, 24), LegendreMemory(20, 16.0, 24)
    u = (torch.rand(3, 24, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    m = memory.clip(u)
    assert float((m - reference.clip(u)).abs().max()) <= 1e-5
    past, steps = torch.zeros(3, 23), []
    for t in range(24):
        y, past = memory.step(u[:, t : t + 1], past)
        steps.append(y)
    assert torch.equal(torch.stack(steps, 1), m)
    assert not list(memory.parameters())
    assert not memory.state_dict()


def test_memory_looks_back_on_its_window_only() -> None:
    memory = SpikeMemory(6, 4.0, 8)
    u = (torch.rand(1, 40, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    assert torch.equal(memory.clip(u)[:, -1], memory.clip(u[:, -8:])[:, -1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: the fused kernel runs nowhere else")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fused_kernel_is_the_loop(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = (torch.randn(8, 128, 300) * 2).to(dtype).float()
    weight = torch.randn(x.shape).to(dtype).float()
    leaves = x.clone().requires_grad_(), x.to("cuda", dtype).requires_grad_()
    neuron = LIF(300)
    neuron.rest.uniform_(-0.2, 0.0)
    spikes = neuron.clip(leaves[0])
    (spikes * weight).sum().backward()
    fused = neuron.cuda().clip(leaves[1])
    (fused * weight.to("cuda", dtype)).sum().backward()
    assert torch.equal(fused.detach().float().cpu(), spikes.detach())
    assert leaves[0].grad is not None
    assert leaves[1].grad is not None
    assert float((leaves[0].grad - leaves[1].grad.float().cpu()).abs().max()) <= (1e-6 if dtype == torch.float32 else 0.01)
