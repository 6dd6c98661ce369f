"""Spiking LMUFormer against its published numbers and recorded spikes, and its stream against its clip, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from spiking_nets import fit_norms
from torch import Tensor, nn

from edgetk.core.errors import InputError
from edgetk.models import lmuformer_spiking
from edgetk.models._lmuformer_spiking_published import from_published
from edgetk.models._lmuformer_stream import LOOKAHEAD
from edgetk.models.layers.groups import delete
from edgetk.models.layers.lif import NormedLIF
from edgetk.models.layers.norm import BatchNorm
from edgetk.models.lmuformer_spiking import SpikingLMUFormer, build
from edgetk.tasks.speech_commands import TASK

RECORDED = Path(__file__).parent.parent / "data" / "lmuformer_spiking_ms_small.npz"
#: published module -> module here, and how the recorded spikes lie
NEURONS = {
    "block.0.attn.prev_lif": ("mixer.input", "TCB"),
    "block.0.attn.lmu.f_u": ("mixer.encoded", "TBC"),
    "block.0.attn.lmu.f_m": ("mixer.remembered", "TCB"),
    "block.0.attn.lmu.f_h": ("mixer.hidden", "TBC"),
    "head_lif": ("output", "TCB"),
}


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    with np.load(RECORDED, allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture(scope="module")
def weights(recorded: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("w."): value for key, value in recorded.items() if key.startswith("w.")}


def narrow(seed: int = 0, **config: object) -> SpikingLMUFormer:
    """A narrow net whose norms fit what they see, so that all its neurons fire now and then."""
    torch.manual_seed(seed)
    shape = {"widths": (12, 10, 14, 16), "order": 9, "hidden": 11, "ffn": 20, "features": 6, "classes": 4, "frames": 24}
    net = build("s", **{**shape, "theta": 24.0, **config}).module
    assert isinstance(net, SpikingLMUFormer)
    with torch.no_grad():
        for norm in net.modules():
            if isinstance(norm, BatchNorm):
                norm.weight.uniform_(0.7, 1.3)
                norm.bias.uniform_(0.2, 0.6)
    fit_norms(net, torch.randn(16, net.config.frames, net.config.features))
    return net


def streamed(net: SpikingLMUFormer, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Decisions (B, T, K) of a stream with its flush, look-ahead taken off; and the head's spike counts after each frame."""
    state: list[Tensor] = list(net.zero_state(len(x)))
    outputs, spoken = [], []
    flushed = torch.zeros(len(x), LOOKAHEAD, x.shape[2])
    with torch.no_grad():
        for t, frame in enumerate(torch.cat([x, flushed], dim=1).unbind(1)):
            if t == x.shape[1]:
                state[0][:, 0] = 0
            y, *state = net(frame[:, None], *state)
            outputs.append(y)
            spoken.append(state[-2])
    return torch.cat(outputs, dim=1)[:, LOOKAHEAD:], spoken[LOOKAHEAD:]


def test_parameter_count_is_the_published_one() -> None:
    assert sum(p.numel() for p in build("base", classes=35).module.parameters()) == 1_689_894


def test_variants_have_their_sizes() -> None:
    sizes = {name: sum(p.numel() for p in build(name).module.parameters()) for name in lmuformer_spiking.VARIANTS}
    assert sizes.keys() == {"base", "s"}
    assert sizes["s"] < 270_000 < sizes["base"]


def test_all_recorded_spikes_are_equal(recorded: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    net = from_published(weights)
    seen: dict[str, Tensor] = {}
    for name, unit in net.named_modules():
        if isinstance(unit, NormedLIF):
            unit.clip = _listening(unit, seen, name)  # type: ignore[method-assign]
    with torch.no_grad():
        logits = net.clip(recorded["x"])
        assert float((logits - recorded["logits"]).abs().max()) <= 1e-6
        assert float((net.running(recorded["x"]).transpose(0, 1) - recorded["logits_all_seq"]).abs().max()) <= 1e-6
        embedded = net.embed.clip(recorded["x"])
    assert float((embedded.mT - recorded["act.patch_embed"]).abs().max()) <= 1e-5
    for published, (here, layout) in NEURONS.items():
        spikes = recorded[f"act.{published}"].float()
        assert torch.equal(seen[here], spikes.permute(2, 0, 1) if layout == "TCB" else spikes.transpose(0, 1)), published


def _listening(unit: NormedLIF, seen: dict[str, Tensor], name: str) -> object:
    clip = unit.clip

    def listen(x: Tensor) -> Tensor:
        seen[name] = clip(x)
        return seen[name]

    return listen


def test_the_stream_of_published_weights_gives_the_recorded_decisions(
    recorded: dict[str, Tensor], weights: dict[str, Tensor]
) -> None:
    decisions, _ = streamed(from_published(weights), recorded["x"])
    assert float((decisions.transpose(0, 1) - recorded["logits_all_seq"]).abs().max()) <= 1e-5


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_streamed_spikes_equal_those_of_the_clip_bit_for_bit(seed: int, folded: bool) -> None:
    net = narrow(seed)
    if folded:
        assert len(net.fold_norms()) == 12
    x = torch.randn(5, net.config.frames, net.config.features)
    with torch.no_grad():
        counts = net.spikes(x).cumsum(1)
        running = net.running(x)
    assert 0.02 < float(counts[:, -1].mean()) / net.config.frames < 0.98
    decisions, spoken = streamed(net, x)
    assert torch.equal(torch.stack(spoken, 1), counts)
    assert torch.equal(decisions, running)
    one = torch.cat([streamed(net, x[i : i + 1])[0] for i in range(2)])
    assert torch.equal(one, running[:2])


def test_chunks_of_frames_are_frames_in_turn() -> None:
    net = narrow(2)
    x = torch.randn(2, 12, net.config.features)
    with torch.no_grad():
        state: list[Tensor] = list(net.zero_state(2))
        single = []
        for t in range(12):
            y, *state = net(x[:, t : t + 1], *state)
            single.append(y)
        whole, *last = net(x, *net.zero_state(2))
    assert torch.equal(torch.cat(single, 1), whole)
    assert all(torch.equal(a, b) for a, b in zip(state, last, strict=True))


def test_streamed_spikes_equal_those_of_real_clips() -> None:
    features = TASK.open(None).split("test").features[::40]
    net = build("s", classes=16).module
    assert isinstance(net, SpikingLMUFormer)
    fit_norms(net, features)
    with torch.no_grad():
        counts = net.spikes(features).cumsum(1)
    assert float(counts.max()) > 0
    assert torch.equal(torch.stack(streamed(net, features)[1], 1), counts)


def test_folding_changes_hardly_any_decision() -> None:
    net = narrow(3)
    x = torch.randn(32, net.config.frames, net.config.features)
    with torch.no_grad():
        before = net.clip(x)
        names = net.fold_norms()
        after = net.clip(x)
    assert len(names) == 12
    assert not any(isinstance(m, BatchNorm) for m in net.modules())
    assert float((after - before).square().mean() / before.var()) <= 1e-3
    assert net.fold_norms() == ()


def test_settling_twice_changes_nothing() -> None:
    net = narrow(4)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.settle()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_features_are_rounded_to_eight_bits() -> None:
    net = narrow()
    x = torch.tensor([-5.0, -2.0, -0.01, 0.008, 1.0, 1.99, 7.0])
    assert net.rounded(x).tolist() == [-2.0, -2.0, -1 / 64, 1 / 64, 1.0, 127 / 64, 127 / 64]
    assert torch.equal(narrow(feature_step=0.0).rounded(x), x)


@pytest.mark.parametrize("group", range(6))
def test_deleting_channels_deletes_their_neurons(group: int) -> None:
    net = narrow(5)
    found = net.groups()[group]
    keep = list(range(0, found.size, 2))
    silent = [c for c in range(found.size) if c not in keep]
    reader = net.get_submodule(found.reader)
    assert isinstance(reader, nn.Linear)
    columns = [tap * found.size + c for tap in range(found.taps) for c in silent]
    with torch.no_grad():
        reader.weight[:, columns] = 0
        x = torch.randn(3, net.config.frames, net.config.features)
        before = net.clip(x)
        delete(net, found, keep)
        assert torch.equal(net.clip(x), before)
        assert torch.equal(streamed(net, x)[0][:, -1], before)


def test_every_layer_but_the_first_is_driven_by_spikes() -> None:
    net = narrow()
    names = net.spike_driven()
    assert "embed.convs.0.taps" not in names
    assert {"embed.convs.1.taps", "mixer.memory.taps", "mixer.read_memory", "channels.reduce", "head"} <= set(names)
    assert len(names) == 12


def test_gradients_reach_every_weight() -> None:
    net = narrow(6).train()
    net.clip(torch.randn(8, net.config.frames, net.config.features)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        # a bias in front of a norm has no effect
        if name not in ("mixer.encoder.bias", "mixer.read_input.bias", "mixer.proj.bias", "channels.expand.bias"):
            assert float(parameter.grad.abs().max()) > 0, name


def test_published_weights_are_checked(weights: dict[str, Tensor]) -> None:
    with pytest.raises(InputError, match=r"names of slmu_rnn_ms_conv1d with one block, got 'block\.1\.x'"):
        from_published({**weights, "block.1.x": torch.zeros(1)})
    short = {k: v for k, v in weights.items() if k != "head_bn.bias"}
    with pytest.raises(InputError, match=r"must hold every layer, got none for output\.norm\.bias"):
        from_published(short)
    with pytest.raises(InputError, match=r"must hold every layer, got none for head\.weight"):
        from_published({k: v for k, v in weights.items() if k != "head.weight"})
    with pytest.raises(InputError, match=r"output\.norm\.bias must have the shape \(32,\), got \(3,\)"):
        from_published({**weights, "head_bn.bias": torch.zeros(3)})
    with pytest.raises(InputError, match="memory must be that of theta=128, got another matrix A"):
        from_published({**weights, "block.0.attn.lmu.A": torch.zeros(64, 64)})
    with pytest.raises(InputError, match=r"must be those of one block, got also embed\.convs\.7\.taps\.weight"):
        from_published({**weights, "patch_embed.proj_conv7.weight": torch.zeros(2, 2, 3)})
