"""The NIR exporter: its file against the model in memory, spike by spike, what it says, and what is refused."""

from __future__ import annotations

import builtins
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import nir
import numpy as np
import pytest
import torch
from export_toys import causal, target
from spiking_nets import fit_norms
from torch import Tensor, nn

from edgetk.core import registry
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Emitted, Lowered
from edgetk.core.errors import MissingExtra, ParityError, PreconditionError
from edgetk.core.signature import Signature, StateSpec, TensorSpec
from edgetk.export import _nir_graph, nir_run, to_nir
from edgetk.export.to_nir import EXPORTER
from edgetk.models._lmuformer_spiking_graph import graph_of
from edgetk.models.layers.lif import LIF, NormedLIF
from edgetk.models.layers.norm import BatchNorm
from edgetk.models.layers.quantized import LowRank, QuantLinear
from edgetk.models.layers.spiking_graph import INPUT, Neurons, Product, Rounding, SpikingGraph, Wiring
from edgetk.models.lmuformer_spiking import build
from edgetk.quant.quantize import Quantize
from edgetk.tasks.speech_commands import TASK


def narrow(negative: bool = False, **config: object) -> Bundle:
    torch.manual_seed(0)
    shape = {"widths": (12, 10, 14, 16), "order": 9, "hidden": 11, "ffn": 20, "features": 6, "classes": 4, "frames": 24}
    bundle = build("s", **{**shape, "theta": 24.0, **config})
    net: Any = bundle.module
    with torch.no_grad():
        for norm in net.modules():
            if isinstance(norm, BatchNorm):
                norm.weight.uniform_(0.7, 1.3)
                norm.bias.uniform_(0.2, 0.6)
                if negative:
                    norm.weight[::3] *= -1
    fit_norms(net, torch.randn(16, net.config.frames, net.config.features))
    return bundle


def folded(bundle: Bundle) -> Bundle:
    net: Any = bundle.module
    net.fold_norms()
    return replace(bundle, signature=net.stream_signature())


def lowered(bundle: Bundle, precision: str = "float32") -> Lowered:
    """What the exporter reads of a lowered form."""
    return Lowered("stream", None, bundle.signature, precision)  # type: ignore[arg-type]


def export(bundle: Bundle) -> list[Emitted]:
    EXPORTER.check(bundle, target())
    return list(EXPORTER([lowered(bundle)], bundle, target(), {"recipe_sha256": "ab12"}))


def test_is_a_plugin() -> None:
    assert registry.load("exporter", "nir") is EXPORTER
    assert EXPORTER.format == "nir"


@pytest.mark.parametrize("negative", [False, True])
def test_every_spike_and_membrane_of_a_narrow_net_is_equal(negative: bool) -> None:
    bundle = folded(narrow(negative))
    file, data = export(bundle)
    assert (file.name, file.format, data.name) == ("model.nir", "nir", "testdata/nir/sequence.npz")
    assert file.parity is not None
    assert (file.parity.max_abs, file.parity.bound, file.parity.agreement) == (0.0, 0.0, 1.0)
    assert file.parity.scale > 0
    neurons = 12 + 10 + 14 + 16 + 16 + 1 + 9 + 11 + 16 + 20 + 16
    steps = to_nir.STREAMS * (23 + to_nir.STEPS)  # the memory looks back on 23 spikes
    assert file.notes == (
        f"{neurons * steps} of {neurons * steps} spikes are equal, of 11 populations over {steps} steps",
        "every sum is exact: no order of additions changes a spike",
    )
    graph = _nir_graph.from_bytes(file.content)
    assert any(isinstance(node, nir.Scale) for node in graph.nodes.values()) == negative


def test_the_network_is_the_stream_whose_frames_are_all_valid() -> None:
    """Against the model's own step function, called here, and not against what the exporter recorded."""
    bundle = folded(narrow())
    net: Any = bundle.module
    file, data = export(bundle)
    graph = _nir_graph.from_bytes(file.content)
    x = torch.randn(2, 60, 6)
    state = list(net.zero_state(2))
    state[0] = torch.ones_like(state[0])
    with torch.no_grad():
        scores, *last = net(x, *state)
        edged, *_ = net(x, *net.zero_state(2))
    made = nir_run.simulate(graph, x.numpy())
    assert np.array_equal(made.spikes["output_neurons"].sum(1), last[-2].numpy())
    assert 0.02 < made.spikes["output_neurons"].mean() < 0.98
    assert np.array_equal(made.membranes["mixer_hidden"][:, -1], last[15].numpy())
    decisions = nir_run.decisions(made.output)
    assert np.abs(decisions - scores.numpy()).max() <= 1e-6 * float(scores.abs().max())
    assert not np.allclose(decisions, edged.numpy(), rtol=1e-3)  # a clip's edges have no counterpart
    arrays = np.load(io.BytesIO(data.content), allow_pickle=False)
    again = nir_run.simulate(graph, arrays["features"][None])
    assert np.array_equal(again.output[0], arrays["output"])
    assert np.array_equal(again.spikes["mixer_input"][0], arrays["spikes_mixer_input"])


def test_real_frames_through_the_small_variant() -> None:
    data = TASK.open(None)
    bundle = replace(build("s", classes=len(data.labels)), data=data, labels=data.labels)
    net: Any = bundle.module
    fit_norms(net, data.calibration(8))
    file, arrays = export(bundle)
    assert file.parity is not None
    assert (file.parity.max_abs, file.parity.bound, file.parity.n) == (0.0, 0.0, 4)
    first, exact, norms, clips = file.notes
    assert first == "1377280 of 1377280 spikes are equal, of 11 populations over 1024 steps"
    assert exact.startswith("every sum is exact")
    assert norms == "12 norms were folded into thresholds for this file, which rounds them: fold first"
    assert clips.startswith("without edges it decides ")
    assert clips.endswith(" of 8 single clips, with 5 frames of zeros behind, as the clip form")
    assert any(isinstance(m, BatchNorm) for m in net.modules()), "the model itself must stay as it was"
    spikes = np.load(io.BytesIO(arrays.content), allow_pickle=False)
    for name in spikes.files:
        if name.startswith("spikes_"):
            assert 0 < spikes[name].mean() < 1, name


def test_integer_layers_are_exact_too() -> None:
    bundle = folded(narrow())
    net: Any = bundle.module
    layers = ("embed.convs.0.taps", "embed.convs.1.taps", "mixer.memory.taps", "channels.expand")
    Quantize().rebuild(net, {"activation": "uint8", "layers": layers})
    torch.manual_seed(2)
    for name in layers:
        layer = net.get_submodule(name)
        layer.weight.copy_(torch.randint(-127, 128, layer.weight.shape))
        layer.scale.fill_(2.0**-9)
        layer.input.scale.fill_(2.0**-6 if name.startswith("embed.convs.0") else 1.0)
        layer.input.zero_point.fill_(128 if name.startswith("embed.convs.0") else 0)
    net.settle()
    file = EXPORTER([lowered(bundle, "int8")], bundle, target())[0]
    graph = _nir_graph.from_bytes(file.content)
    assert file.parity is not None
    assert (file.parity.max_abs, file.parity.bound) == (0.0, 0.0)
    assert graph.metadata["quantization"] == "int8"
    assert graph.metadata["input_rounding"].tolist() == [[2**-6, -2.0, 2 - 2**-6], [2**-6, -2.0, 2 - 2**-6]]
    assert set(graph.nodes["channels_expand"].metadata["weight_scale"]) == {np.float32(2**-9)}
    assert graph.nodes["mixer_encoder"].metadata == {}
    codes = net.get_submodule("channels.expand").weight
    assert np.array_equal(graph.nodes["channels_expand"].weight, codes.float().numpy() * np.float32(2**-9))


def test_features_that_are_not_rounded_leave_sums_inexact() -> None:
    bundle = folded(narrow(feature_step=0.0))
    file = export(bundle)[0]
    assert file.parity is not None
    assert file.notes[1] == "sums are rounded: another order of additions may change a spike"
    assert file.parity.bound == pytest.approx(0.05 * file.parity.scale)
    assert file.parity.reference == "decisions of the model in memory"
    assert _nir_graph.from_bytes(file.content).metadata["input_rounding"].shape == (0, 3)


def test_the_file_says_what_it_needs() -> None:
    bundle = folded(narrow())
    graph = _nir_graph.from_bytes(export(replace(bundle, labels=("a", "b", "c", "d")))[0].content)
    said = graph.metadata
    assert (said["dt"], said["time_unit"], said["model_type"]) == (0.01, "s", "lmuformer-spiking-s")
    assert (said["labels"], said["recipe_sha256"], said["quantization"]) == ("a\nb\nc\nd", "ab12", "float32")
    assert said["input_rounding"].tolist() == [[2**-6, -2.0, 2 - 2**-6]]
    assert "sample_rate" in said
    assert "states" not in said
    slower = replace(bundle, signature=replace(bundle.signature, period_s=0.016))
    other = _nir_graph.from_bytes(export(slower)[0].content)
    assert other.metadata["dt"] == 0.016
    assert set(other.nodes["mixer_input"].tau) == {0.032}
    assert set(other.nodes["embed_residual"].delay) == {0.016}


def test_same_model_same_bytes() -> None:
    bundle = folded(narrow())
    assert [e.content for e in export(bundle)] == [e.content for e in export(bundle)]


def test_the_clip_form_alone_gives_no_file() -> None:
    bundle = folded(narrow())
    assert bundle.clip is not None
    assert EXPORTER([Lowered("clip", None, bundle.clip, "float32")], bundle, target()) == []  # type: ignore[arg-type]


class OneLayer(nn.Module):
    """The smallest module of a user's own: a product and neurons, whose stream is not a LMUFormer's."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.taps, self.neurons = nn.Linear(1, 2, bias=False), LIF(2)
        self.told = weight
        nn.init.constant_(self.taps.weight, 1.0)

    def forward(self, x: Tensor, v: Tensor, count: Tensor, frames: Tensor) -> tuple[Tensor, ...]:
        spikes, v = self.neurons(self.taps(x[:, 0]), v)
        count, frames = count + spikes, frames + 1
        return (count / frames)[:, None], v, count, frames

    def spiking_graph(self) -> SpikingGraph:
        product = Product(self.taps.weight.detach() * self.told)
        neurons = Neurons(self.neurons.threshold, self.neurons.rest, 0.5, "neurons")
        state = (torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 1))
        edges = ((INPUT, "taps"), ("taps", "neurons"))
        return SpikingGraph(1, {"taps": product, "neurons": neurons}, edges, "neurons", (Rounding(0.25, -4, 4),), self, state)


def users(net: nn.Module) -> Bundle:
    states = tuple(
        StateSpec(TensorSpec(f"state_{name}", (1, width))) for name, width in (("v", 2), ("count", 2), ("frames", 1))
    )
    stream = Signature((TensorSpec("x", (1, 1, 1)),), (TensorSpec("y", (1, 1, 2)),), states, period_s=0.002)
    return Bundle("mine", net, stream)


def test_a_users_module_is_exported_by_what_it_declares() -> None:
    rounds = OneLayer()
    rounds.forward = _rounding_first(rounds.forward)  # type: ignore[method-assign]
    file = export(users(rounds))[0]
    assert file.parity is not None
    assert file.parity.max_abs == 0.0
    assert set(_nir_graph.from_bytes(file.content).nodes["neurons"].tau) == {0.004}


def _rounding_first(forward: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    return lambda x, *state: forward((x / 0.25).round().clamp(-16, 16) * 0.25, *state)


def test_a_file_that_computes_something_else_is_not_written() -> None:
    with pytest.raises(
        ParityError, match=r"nir: spikes must be those of the model in memory, got \d+ of \d+ unequal, most of .* neurons"
    ):
        export(users(OneLayer(weight=2.0)))
    bundle = folded(narrow())
    net: Any = bundle.module

    def wrong_head() -> SpikingGraph:
        graph = graph_of(net, 2.0)
        head: Any = graph.nodes["head"]
        return replace(graph, nodes={**graph.nodes, "head": Product(head.weight * 2, head.bias)})

    net.spiking_graph = wrong_head
    with pytest.raises(
        ParityError, match=r"nir: decisions must differ from the model in memory by at most .*, got .*; do not use"
    ):
        export(bundle)


def test_the_package_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "nir":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtra, match=r"exporter nir: needs the package nir, .* pip install 'edgetk\[nir\]'") as caught:
        EXPORTER.check(causal(), target())
    assert caught.value.exit_code == 4


def test_what_is_no_spiking_model_is_refused() -> None:
    with pytest.raises(PreconditionError, match=r"nir: causal must be a spiking model .* got CausalNet; export it to onnx"):
        EXPORTER.check(causal(), target())
    graph = replace(causal(), body=object())
    with pytest.raises(PreconditionError, match=r"nir: causal must be a spiking model .* got an ONNX graph"):
        EXPORTER.check(graph, target())
    timeless = narrow()
    timeless = replace(timeless, signature=replace(timeless.signature, period_s=None))
    with pytest.raises(PreconditionError, match="must say how long a step takes, got a signature without period_s; add it"):
        EXPORTER.check(timeless, target())


def test_layers_without_a_counterpart_are_refused() -> None:
    bundle = narrow()
    net: Any = bundle.module
    net.channels.expand = QuantLinear(16, 20, "uint8")
    with pytest.raises(
        PreconditionError, match=r"norms must be folded before .* integer layer channels\.expand; put the pass fold"
    ):
        EXPORTER.check(bundle, target())
    bundle = narrow()
    net = bundle.module
    with torch.no_grad():
        net.output.norm.weight[0] = 0.0
    with pytest.raises(
        PreconditionError, match="in front of output must fold into thresholds, got a scale next to zero; prune"
    ):
        EXPORTER.check(bundle, target())
    wiring = Wiring("test")
    with pytest.raises(PreconditionError, match="test: layer odd must be linear, factorized or quantized, got Identity; leave"):
        wiring.layer("odd", nn.Identity(), INPUT)
    split = LowRank(4, 2, 3, bias=False)
    split.up = QuantLinear(2, 3, "uint8")  # type: ignore[assignment]
    with pytest.raises(
        PreconditionError, match="what layer odd_up reads must stay as it is, got numbers rounded to 8 bits; leave"
    ):
        wiring.layer("odd", split, INPUT)
    assert isinstance(NormedLIF(3).norm, BatchNorm)
