"""LMUFormer against its published numbers, against recorded outputs of the authors' code, and its stream against itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgetk.core import registry
from edgetk.core.errors import InputError
from edgetk.models import lmuformer
from edgetk.models._lmuformer_published import from_published
from edgetk.models._lmuformer_stream import LOOKAHEAD
from edgetk.models.layers.lmu import LegendreMemory
from edgetk.models.layers.norm import BatchNorm
from edgetk.models.lmuformer import LMUFormer, build

DATA = Path(__file__).parent.parent / "data"


def golden(name: str) -> dict[str, Tensor]:
    """Arrays recorded from the authors' code."""
    with np.load(DATA / name, allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def weights(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("w."): value for key, value in arrays.items() if key.startswith("w.")}


def assert_close(a: Tensor, b: Tensor, bound: float) -> None:
    assert a.shape == b.shape
    assert float((a - b).abs().max()) <= bound


@pytest.fixture(scope="module")
def small() -> dict[str, Tensor]:
    return golden("lmuformer_ann_small.npz")


@pytest.fixture(scope="module")
def net(small: dict[str, Tensor]) -> LMUFormer:
    return from_published(weights(small))


def narrow(seed: int = 0, **config: object) -> LMUFormer:
    """A narrow net whose norms are not the identity."""
    torch.manual_seed(seed)
    made = build(
        "xs", **{"widths": (12, 10, 14, 16), "order": 9, "hidden": 11, "ffn": 20, "features": 6, "classes": 4, **config}
    )
    for module in made.module.modules():
        if isinstance(module, BatchNorm):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    body = made.module
    assert isinstance(body, LMUFormer)
    return body


def stream(net: LMUFormer, x: Tensor) -> Tensor:
    """All outputs of a stream over x (B, T, F), one frame at a time, and of the flush: (B, T + 5, K)."""
    state = net.zero_state(len(x))
    outputs = []
    with torch.no_grad():
        for t in range(x.shape[1]):
            y, *state = net(x[:, t : t + 1], *state)
            outputs.append(y)
        outputs.append(net.flush(*state)[0])
    return torch.cat(outputs, dim=1)


def test_parameter_count_is_the_published_one() -> None:
    assert sum(p.numel() for p in build("base", classes=35).module.parameters()) == 1_621_796


def test_variants_have_their_sizes() -> None:
    sizes = {name: sum(p.numel() for p in build(name).module.parameters()) for name in lmuformer.VARIANTS}
    assert sizes.keys() == {"base", "s", "xs"}
    assert sizes["xs"] < 70_000 < sizes["s"] <= 260_000 < sizes["base"]


@pytest.mark.parametrize("order", [256, 512])
def test_memory_matrices_are_the_published_ones(order: int) -> None:
    recorded, memory = golden(f"lmu_AB_m{order}_theta128.npz"), LegendreMemory(order, 128.0, 128)
    for name in "ABH":
        assert_close(getattr(memory, name), recorded[name], 1e-6)


def test_convolution_and_recurrence_are_the_recorded_cell() -> None:
    recorded = golden("lmu_fft_cell.npz")
    cell, x = weights(recorded), recorded["x"]
    memory = LegendreMemory(10, 16.0, 16)
    u = torch.relu(x @ cell["W_u.weight"].T + cell["W_u.bias"])
    for m in (memory.clip(u[..., 0]), recur(memory, u)):
        assert_close(m, recorded["m_rec"], 1e-5)
        h = torch.relu(torch.cat([m, x], dim=-1) @ cell["W_h.weight"].T + cell["W_h.bias"])
        assert_close(h, recorded["h_fft"], 1e-5)
        assert_close(h, recorded["h_rec"], 1e-5)


def recur(memory: LegendreMemory, u: Tensor) -> Tensor:
    m, steps = torch.zeros(len(u), memory.order), []
    for t in range(u.shape[1]):
        m = memory.step(u[:, t], m)
        steps.append(m)
    return torch.stack(steps, dim=1)


@pytest.mark.parametrize(("order", "theta", "length"), [(256, 128.0, 128), (1, 4.0, 8), (7, 300.0, 60), (33, 5.5, 40)])
def test_memory_of_any_order_and_theta_is_one_linear_map_in_two_forms(order: int, theta: float, length: int) -> None:
    memory = LegendreMemory(order, theta, length)
    u = torch.randn(2, length, 1, generator=torch.Generator().manual_seed(order))
    assert_close(memory.clip(u[..., 0]), recur(memory, u), 1e-5)


def test_memory_takes_clips_longer_than_its_table() -> None:
    memory = LegendreMemory(12, 20.0, 16)
    u = torch.randn(2, 50, 1, generator=torch.Generator().manual_seed(0))
    assert_close(memory.clip(u[..., 0]), recur(memory, u), 1e-5)
    assert_close(memory.response(16), memory.H, 0.0)
    assert_close(memory.response(40)[:, :16], memory.H, 1e-6)


def test_logits_and_running_logits_are_the_recorded_ones(net: LMUFormer, small: dict[str, Tensor]) -> None:
    with torch.no_grad():
        assert_close(net.clip(small["x"]), small["logits"], 1e-5)
        assert_close(net.running(small["x"]), small["logits_all_seq"].transpose(0, 1), 1e-5)
        assert_close(net.running(small["x"])[:, -1], net.clip(small["x"]), 1e-5)


def test_activations_are_the_recorded_ones(net: LMUFormer, small: dict[str, Tensor]) -> None:
    with torch.no_grad():
        x = net.embed.clip(small["x"])
        assert_close(x.mT, small["act.patch_embed"], 1e-5)
        m = net.mixer.memory.clip(torch.relu(net.mixer.encoder(x))[..., 0])
        assert_close(torch.relu(net.mixer.hidden(torch.cat([m, x], dim=-1))), small["act.block.0.attn.lmu"], 1e-5)
        y = net.mixer.clip(x)
        assert_close(y.mT, small["act.block.0.attn"], 1e-5)
        z = net.channels(x + y)
        assert_close(z.mT, small["act.block.0.mlp"], 1e-5)
        assert_close((x + y + z).mT, small["act.block.0"], 1e-5)
        assert_close(net.tokens(small["x"]), x + y + z, 0.0)


def test_stream_of_the_recorded_net(net: LMUFormer, small: dict[str, Tensor]) -> None:
    outputs = stream(net, small["x"])
    assert outputs.shape == (2, 128 + LOOKAHEAD, 5)
    assert not outputs[:, :LOOKAHEAD].any(), "no decision before the look-ahead is there"
    by_the_last_frame, by_the_flush = outputs[:, LOOKAHEAD:128], outputs[:, 128:]
    recorded = small["logits_all_seq"].transpose(0, 1)
    assert (by_the_last_frame.shape[1], by_the_flush.shape[1]) == (123, 5)
    assert_close(by_the_last_frame, recorded[:, :123], 1e-5)
    assert_close(by_the_flush, recorded[:, 123:], 1e-5)
    assert_close(outputs[:, -1], small["logits"], 1e-5)


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (3, 2), (2, 7), (2, 40)])
def test_stream_equals_the_clip_form(batch: int, frames: int) -> None:
    net = narrow(frames)
    x = torch.randn(batch, frames, 6, generator=torch.Generator().manual_seed(frames))
    outputs = stream(net, x)
    with torch.no_grad():
        expected = net.running(x)
        scale = float(expected.abs().max())
        assert_close(outputs[:, LOOKAHEAD:] / scale, expected / scale, 1e-5)
        assert_close(outputs[:, -1] / scale, net.clip(x) / scale, 1e-5)


def test_frames_may_come_several_at_once() -> None:
    net, x = narrow(), torch.randn(2, 20, 6)
    with torch.no_grad():
        first, *state = net(x[:, :13], *net.zero_state(2))
        second, *state = net(x[:, 13:], *state)
        assert_close(torch.cat([first, second, net.flush(*state)[0]], dim=1), stream(net, x), 1e-5)


def test_streams_of_a_batch_do_not_touch_each_other() -> None:
    net, x = narrow(), torch.randn(3, 12, 6)
    together = stream(net, x)
    for i in range(3):
        assert_close(together[i : i + 1], stream(net, x[i : i + 1]), 1e-5)


def test_clips_longer_than_the_configured_frames() -> None:
    net, x = narrow(frames=16), torch.randn(1, 150, 6)
    with torch.no_grad():
        expected = net.running(x)
    scale = float(expected.abs().max())
    assert_close(stream(net, x)[:, LOOKAHEAD:] / scale, expected / scale, 1e-5)


def test_multiply_accumulates_are_the_published_ones() -> None:
    """A m + B u, every matrix product, per frame; the convolutions alone are 88 % of it."""
    net = build("base", classes=35).module
    assert isinstance(net, LMUFormer)
    parts = net.macs()
    assert sum(parts.values()) == 1_680_640
    published_convolutions = parts["embed"] + parts["channels"] + net.mixer.proj.weight.numel()
    assert 128 * published_convolutions == 188_743_680
    assert 128 * sum(parts.values()) == 215_121_920


def test_signature_and_initial_state_are_those_of_a_fresh_stream() -> None:
    net = narrow()
    signature = net.stream_signature()
    assert (signature.period_s, signature.lookahead_s) == (0.010, 0.050)
    assert [s.name for s in signature.state] == [
        "state_valid", "state_embed_conv0_past", "state_embed_conv1_past", "state_embed_conv2_past", "state_embed_conv3_past",
        "state_embed_position_past", "state_mixer_memory", "state_head_sum", "state_head_count",
    ]  # fmt: skip
    state = net.zero_state(2)
    assert [tuple(s.shape) for s in state] == [(2, w) for w in (6, 12, 24, 20, 28, 32, 9, 4, 1)]
    assert state[0].tolist() == [[1.0, 0, 0, 0, 0, 0]] * 2
    assert all(not s.any() for s in state[1:])


def test_initial_state_after_folding_holds_what_stands_beyond_the_edge() -> None:
    net = narrow()
    norms = [norm.scale_shift() for norm in net.embed.norms]
    folded = net.fold_norms()
    assert len(folded) == 7
    signature = net.stream_signature()
    pads = dict(zip([s.name for s in signature.state], net.zero_state(), strict=True))
    for i, (scale, shift) in enumerate(norms):
        name = "state_embed_position_past" if i == 3 else f"state_embed_conv{i + 1}_past"
        edge = -shift if i == 3 else -shift * torch.where(scale < 0, -1.0, 1.0)
        assert_close(pads[name], edge.detach().repeat(2)[None], 0.0)
    assert not pads["state_embed_conv0_past"].any()
    assert signature == net.stream_signature()


def test_config_overrides_a_variant_and_is_recorded() -> None:
    bundle = build("s", widths=[8, 8, 8, 16], order=4, classes=3)
    again = build(bundle.source["variant"], **bundle.source["config"])
    assert bundle.source["config"]["widths"] == [8, 8, 8, 16]
    assert again.source == bundle.source
    assert again.signature == bundle.signature
    assert [v.shape for v in again.module.state_dict().values()] == [v.shape for v in bundle.module.state_dict().values()]
    assert registry.load("model", "lmuformer") is build


def test_training_moves_statistics_and_evaluation_does_not() -> None:
    net, x = narrow(), torch.randn(4, 10, 6)
    before = net.embed.norms[0].running_mean.clone()
    net.clip(x)
    assert torch.equal(net.embed.norms[0].running_mean, before)
    net.train().clip(x)
    assert not torch.equal(net.embed.norms[0].running_mean, before)


BAD = {
    "another name": (
        lambda w: w | {"block.1.attn.lmu.W_u.weight": w["head.bias"]},
        r"names of lmu_rnn_conv1d .*'block\.1\.attn",
    ),
    "no head": (lambda w: {k: v for k, v in w.items() if k != "head.weight"}, r"every layer, got none for 'head\.weight'"),
    "no norm": (lambda w: {k: v for k, v in w.items() if "proj_bn.bias" not in k}, r"got none for mixer\.norm\.bias; hand in"),
    "a fifth": (
        lambda w: w | {"patch_embed.conv_layers.4.0.weight": w["patch_embed.conv_layers.3.0.weight"]},
        r"one block, got also embed\.convs\.4\.taps\.weight",
    ),
    "a shape": (
        lambda w: w | {"block.0.attn.proj_bn.bias": torch.zeros(3)},
        r"mixer\.norm\.bias must have the shape \(32,\), got \(3,\)",
    ),
    "another theta": (
        lambda w: w | {"block.0.attn.lmu.A": LegendreMemory(32, 64.0).A},
        r"memory must be that of theta=128, got another matrix A",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_published_weights_that_do_not_fit_are_refused(case: str, small: dict[str, Tensor]) -> None:
    change, text = BAD[case]
    with pytest.raises(InputError, match=text):
        from_published(change(weights(small)))


def test_uniform_gives_the_papers_proportions() -> None:
    assert lmuformer.uniform(96) == replace(lmuformer.Config(), widths=(96,) * 4, order=96, hidden=96, ffn=384)
