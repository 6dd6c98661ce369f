"""Spiking LMUFormer: the LMUFormer whose layers speak in spikes, so that products become additions.

Source: Liu, Datta, Li & Beerel, ICLR 2024, arXiv:2402.04882; variant `slmu_rnn_ms_conv1d` of the authors' code. Its parts and
their equations: `edgetk.models._lmuformer_spiking_parts`; its neurons: `edgetk.models.layers.lif`.

    features (B, T, F) -> patch embedding -> x (B, T, D);  x += token mixer(x);  x += channel mixer(x)
    logits = W mean over frames of LIF(BN x) + b

Streaming is that of `edgetk.models.lmuformer`: the same look-ahead, `state_valid` and `flush`. Every membrane is a state, and
so are the last spikes that convolutions and memory look back on.

Spikes in a stream equal those of the clip bit for bit, in any batch size and any runtime: features are rounded to 8 bits on
entry, and weights lie on grids where sums are exact (`edgetk.models.layers.exact`; `settle` puts them there).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.signature import StateSpec
from edgetk.models._lmuformer_spiking_graph import graph_of
from edgetk.models._lmuformer_spiking_parts import (
    THRESHOLD,
    SpikingChannelMixer,
    SpikingPatchEmbed,
    SpikingTokenMixer,
)
from edgetk.models._lmuformer_stream import FrameStream, aged, bundled, state
from edgetk.models.layers.exact import put_on_grid
from edgetk.models.layers.frame_conv import TAPS
from edgetk.models.layers.groups import Group, Slice, norm_entries, rows
from edgetk.models.layers.lif import NormedLIF
from edgetk.models.layers.norm import BatchNorm, scaled, shifted
from edgetk.models.layers.spiking_graph import SpikingGraph

#: features are multiples of this in [-2, 2): 256 values, about 0.8 dB apart
FEATURE_STEP = 2.0**-6
FEATURE_LIMIT = 2.0
#: first value of the bias of every norm in front of a neuron: from zero, a few per cent fire and learning starts slowly
START_BIAS = 0.5


@dataclass(frozen=True)
class Config:
    """Widths of every layer. `widths` are the outputs of the four patch convolutions; the last one is the width D.

    `feature_step` 0 takes features as they are, as the published network does; sums over them are exact no longer.
    """

    features: int = 128
    classes: int = 35
    widths: tuple[int, int, int, int] = (256, 256, 256, 256)
    order: int = 512
    hidden: int = 256
    ffn: int = 1024
    theta: float = 128.0
    frames: int = 128
    feature_step: float = FEATURE_STEP

    @property
    def dim(self) -> int:
        return self.widths[-1]


def uniform(dim: int) -> Config:
    """The paper's shape at width `dim`: order 2 * dim, hidden dim, a channel mixer of 4 * dim."""
    return Config(widths=(dim, dim, dim, dim), order=2 * dim, hidden=dim, ffn=4 * dim)


VARIANTS: Mapping[str, Config] = {"base": Config(), "s": uniform(96)}
#: the model of the zoo that computes the same task without spikes, for comparison
COUNTERPARTS = {"base": "lmuformer", "s": "lmuformer-s"}


class SpikingLMUFormer(FrameStream):
    """The network; see the module's docstring for its equations and its two forms."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed = SpikingPatchEmbed(config.features, config.widths)
        self.mixer = SpikingTokenMixer(config.dim, config.order, config.hidden, config.theta, config.frames)
        self.channels = SpikingChannelMixer(config.dim, config.ffn)
        self.output = NormedLIF(config.dim, THRESHOLD)
        self.head = nn.Linear(config.dim, config.classes)
        for unit in self.units():
            nn.init.constant_(unit.norm.bias, START_BIAS)  # type: ignore[arg-type]
        for linear in (self.mixer.encoder, self.mixer.read_memory, self.mixer.read_input, self.head):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def units(self) -> list[NormedLIF]:
        """All neurons in the order of the network."""
        return [*self.embed.neurons, *self.mixer.units(), *self.channels.units(), self.output]

    def rounded(self, x: Tensor) -> Tensor:
        """Features as the network reads them: 8 bits."""
        step: float = self.config.feature_step
        if not step:
            return x
        limit = FEATURE_LIMIT / step
        return (x / step).round().clamp(-limit, limit - 1) * step

    def spikes(self, x: Tensor) -> Tensor:
        """x (B, T, F) -> the spikes that the head counts, (B, T, D)."""
        x = self.embed.clip(self.rounded(x))
        x = x + self.mixer.clip(x)
        x = x + self.channels.clip(x)
        return self.output.clip(x)

    def clip(self, x: Tensor) -> Tensor:
        """Whole utterances x (B, T, F) -> logits (B, K)."""
        return self._decide(self.spikes(x).float().sum(dim=1), x.shape[1])

    def running(self, x: Tensor) -> Tensor:
        """The decision after each token of whole utterances: x (B, T, F) -> (B, T, K), row n from the spikes of tokens 0..n."""
        count = torch.arange(1, x.shape[1] + 1, dtype=torch.float32, device=x.device)[:, None]
        return self._decide(self.spikes(x).float().cumsum(dim=1), count)

    def _decide(self, counts: Tensor, frames: Tensor | int) -> Tensor:
        """Logits of the mean over frames. Counts first: they are whole numbers, so that the product is exact."""
        y: Tensor = nn.functional.linear(counts, self.head.weight) / frames
        return y + self.head.bias

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Frames x (B, T, F) and state -> running logits (B, T, K) after each frame, and the next state."""
        outputs = []
        for frame in self.rounded(x).unbind(dim=1):
            y, state = self._step(frame, state)
            outputs.append(y)
        return torch.stack(outputs, dim=1), *state

    def _step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        valid, *past = state[:6]
        residual, history = state[6:8]
        v = state[8:19]
        spoken, count = state[19:]
        inside = torch.split(valid > 0.5, 1, dim=1)[1:]
        x, past, residual, v_embed = self.embed.step(x, inside[:4], tuple(past), residual, v[:4])
        last = inside[4]
        y, history, v_mixer = self.mixer.step(x, last, history, v[4:8])
        x = x + y
        y, v_channels = self.channels.step(x, last, v[8:10])
        spikes, v_output = self.output.step(x + y, last, v[10])
        spoken = spoken + spikes
        count = count + last.to(x.dtype)
        logits = self._decide(spoken, count.clamp(min=1.0))
        membranes = (*v_embed, *v_mixer, *v_channels, v_output)
        return logits, (aged(valid), *past, residual, history, *membranes, spoken, count)

    def stream_states(self) -> tuple[StateSpec, ...]:
        """All states but `state_valid`: what layers look back on, membranes, counts."""
        config = self.config
        convs = self.embed.layers()[:-1]
        pasts = [state(f"embed_conv{i}_past", 2 * c.pad.numel(), "spikes" if i else "values") for i, c in enumerate(convs)]
        names = [f"embed_neuron{i}" for i in range(len(self.embed.neurons))]
        names += ["mixer_input", "mixer_encoded", "mixer_remembered", "mixer_hidden"]
        names += ["channels_input", "channels_expanded", "output"]
        membranes = []
        for name, unit in zip(names, self.units(), strict=True):
            rest = unit.rest.detach().cpu()
            start = tuple(rest.tolist()) if bool(rest.any()) else ()
            membranes.append(state(f"{name}_membrane", len(rest), "membrane", start))
        return (
            *pasts,
            state("embed_position_past", 2 * config.dim, "spikes"),
            state("embed_residual", config.dim),
            state("mixer_memory_past", self.mixer.memory.length - 1, "spikes"),
            *membranes,
            state("head_spikes", config.dim, "counts"),
            state("head_count", 1, "counts"),
        )

    @property
    def exact_sums(self) -> bool:
        """Whether settled weights make every sum exact, so that other runtimes give the same bits.

        Norms that are not folded do round, twice for each number; runtimes that keep the two operators apart round alike.
        """
        return bool(self.config.feature_step)

    def settle(self) -> None:
        """Put all weights on their grids, where sums of them are exact; whoever changes weights calls it afterwards."""
        embed, mixer = self.embed, self.mixer
        first, second, third, fourth, position = (conv.taps for conv in embed.layers())
        if self.config.feature_step:
            put_on_grid([first], FEATURE_LIMIT, self.config.feature_step)
        for layers in ([second], [third], [mixer.encoder], [mixer.read_memory, mixer.read_input], [self.channels.expand]):
            put_on_grid(layers)
        # All that is added to the residual stream shares its channels' grids.
        put_on_grid([fourth, position, mixer.proj, self.channels.reduce])
        put_on_grid([self.head], largest=self.config.frames)

    def spike_driven(self) -> tuple[str, ...]:
        """The layers whose inputs are spikes: their products are additions as long as they stay whole."""
        return tuple(name for name, _ in self.products() if name != "embed.convs.0.taps")

    def fold_norms(self) -> tuple[str, ...]:
        """Fold every batch norm, exactly but for rounding, and name the folded ones.

        A norm in front of a neuron becomes its threshold and rest; the one behind the mixer's projection its scale and bias.
        """
        folded = [f"{name}.norm" for name, unit in self.named_modules() if isinstance(unit, NormedLIF) and unit.fold()]
        if isinstance(self.mixer.norm, BatchNorm):
            scale, shift = (t.detach() for t in self.mixer.norm.scale_shift())
            self.mixer.proj = shifted(scaled(self.mixer.proj, scale), shift)
            self.mixer.norm = nn.Identity()
            folded.append("mixer.norm")
        if folded:
            self.settle()
        return tuple(folded)

    def groups(self) -> tuple[Group, ...]:
        """What structured pruning may take: channels of the first three patch convolutions, coefficients of the memory, and
        neurons of the token mixer's hidden layer and of the channel mixer. The residual stream keeps its width."""
        found = []
        for i, (here, reader) in enumerate(itertools.pairwise(self.embed.layers()[:-1])):
            made = (*rows(f"embed.convs.{i}.taps", here.taps), *_neuron(f"embed.neurons.{i}", self.embed.neurons[i]))
            padded = (*made, Slice(f"embed.convs.{i + 1}.pad", 0))
            found.append(Group(f"embed.conv{i}", reader.pad.numel(), padded, f"embed.convs.{i + 1}.taps", TAPS))
        mixer, channels = self.mixer, self.channels
        made = (*rows("mixer.memory.taps", mixer.memory.taps), *_neuron("mixer.remembered", mixer.remembered))
        found.append(Group("mixer.memory", mixer.read_memory.in_features, made, "mixer.read_memory"))
        made = (
            *rows("mixer.read_memory", mixer.read_memory),
            *rows("mixer.read_input", mixer.read_input),
            *_neuron("mixer.hidden", mixer.hidden),
        )
        found.append(Group("mixer.hidden", mixer.proj.in_features, made, "mixer.proj"))
        made = (*rows("channels.expand", channels.expand), *_neuron("channels.expanded", channels.expanded))
        found.append(Group("channels.ffn", channels.reduce.in_features, made, "channels.reduce"))
        return tuple(found)

    def spiking_graph(self) -> SpikingGraph:
        """The stream without edges as plain nodes, for formats of spiking networks."""
        return graph_of(self, FEATURE_LIMIT)


def build(variant: str = "base", **config: Any) -> Bundle:
    """An untrained spiking LMUFormer; `config` overrides fields of the variant's `Config`."""
    if "widths" in config:
        config["widths"] = tuple(config["widths"])
    shape = replace(VARIANTS[variant], **config)
    net = SpikingLMUFormer(shape).eval()
    net.settle()
    return bundled(net, "lmuformer-spiking", variant, COUNTERPARTS[variant])


def _neuron(path: str, unit: Any) -> tuple[Slice, ...]:
    """The per-channel tensors of a neuron and of the norm in front of it."""
    return (*norm_entries(f"{path}.norm", unit.norm), *(Slice(f"{path}.neuron.{name}", 0) for name in ("threshold", "rest")))
