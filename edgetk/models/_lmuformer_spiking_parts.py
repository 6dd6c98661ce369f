"""The three parts of a spiking LMUFormer, each over whole clips and over single frames; neurons speak in spikes of 0 and 1."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from edgetk.models.layers.frame_conv import FrameConv
from edgetk.models.layers.lif import NormedLIF
from edgetk.models.layers.norm import BatchNorm
from edgetk.models.layers.spike_memory import SpikeMemory

#: thresholds: everywhere, and of the neurons in front of the memory
THRESHOLD, INPUT_THRESHOLD = 1.0, 0.5


class SpikingPatchEmbed(nn.Module):
    """r = conv3(LIF(BN(conv2(LIF(BN(conv1(LIF(BN(conv0 x)))))))), then r + position(LIF(BN(r))); the residual is real."""

    def __init__(self, features: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        sizes = (features, *widths)
        self.convs = nn.ModuleList(FrameConv(i, o) for i, o in itertools.pairwise(sizes))
        self.neurons = nn.ModuleList(NormedLIF(o, THRESHOLD) for o in widths)
        self.position = FrameConv(widths[-1], widths[-1])

    def layers(self) -> list[FrameConv]:
        """All five convolutions in order."""
        return [*self.convs, self.position]

    def clip(self, x: Tensor) -> Tensor:
        """x (B, T, F) -> (B, T, D)."""
        spikes, y = x, x
        for conv, neuron in zip(self.convs, self.neurons, strict=True):
            y = conv.clip(spikes)  # type: ignore[operator]
            spikes = neuron.clip(y)  # type: ignore[operator]
        return y + self.position.clip(spikes)

    def step(
        self, x: Tensor, inside: tuple[Tensor, ...], past: tuple[Tensor, ...], residual: Tensor, v: tuple[Tensor, ...]
    ) -> tuple[Tensor, list[Tensor], Tensor, list[Tensor]]:
        """One frame x (B, F); `inside[i]` (B, 1) says whether the output of convolution i lies inside the clip.

        `residual` (B, D) is the last output of the fourth convolution, which waits one frame for the position encoding.
        Returns the token, next pasts, next residual, next membranes.
        """
        carried, membranes = [], []
        spikes, y = x, x
        for i, (conv, neuron) in enumerate(zip(self.convs, self.neurons, strict=True)):
            y, window = conv.step(spikes, past[i])  # type: ignore[operator]
            spikes, membrane = neuron.step(y, inside[i], v[i])  # type: ignore[operator]
            carried.append(window)
            membranes.append(membrane)
        position, window = self.position.step(spikes, past[-1])
        return residual + position, [*carried, window], y, membranes


class SpikingTokenMixer(nn.Module):
    """s = LIF(BN x);  u = LIF(BN(W_u s));  m = memory of u;  h = LIF(BN(W_m LIF(BN m) + W_s s + b));  output BN(P h)."""

    def __init__(self, dim: int, order: int, hidden: int, theta: float, frames: int) -> None:
        super().__init__()
        self.input = NormedLIF(dim, INPUT_THRESHOLD)
        self.encoder = nn.Linear(dim, 1)
        self.encoded = NormedLIF(1, THRESHOLD)
        self.memory = SpikeMemory(order, theta, frames)
        self.remembered = NormedLIF(order, THRESHOLD)
        self.read_memory = nn.Linear(order, hidden, bias=False)
        self.read_input = nn.Linear(dim, hidden)
        self.hidden = NormedLIF(hidden, THRESHOLD)
        self.proj = nn.Linear(hidden, dim)
        self.norm: nn.Module = BatchNorm(dim)

    def units(self) -> list[NormedLIF]:
        """All neurons in order."""
        return [self.input, self.encoded, self.remembered, self.hidden]

    def clip(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        s = self.input.clip(x)
        u = self.encoded.clip(self.encoder(s))
        ms = self.remembered.clip(self.memory.clip(u[..., 0]))
        h = self.hidden.clip(self.read_memory(ms.to(s.dtype)) + self.read_input(s))
        y: Tensor = self.norm(self.proj(h))
        return y

    def step(self, x: Tensor, inside: Tensor, past: Tensor, v: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """x (B, D), past spikes u (B, frames - 1) -> output (B, D), next past, next membranes."""
        s, v0 = self.input.step(x, inside, v[0])
        u, v1 = self.encoded.step(self.encoder(s), inside, v[1])
        m, past = self.memory.step(u, past)
        ms, v2 = self.remembered.step(m, inside, v[2])
        h, v3 = self.hidden.step(self.read_memory(ms) + self.read_input(s), inside, v[3])
        return self.norm(self.proj(h)), past, [v0, v1, v2, v3]


class SpikingChannelMixer(nn.Module):
    """W_2 LIF(BN(W_1 LIF(BN x))). x (..., D) -> (..., D)."""

    def __init__(self, dim: int, ffn: int) -> None:
        super().__init__()
        self.input = NormedLIF(dim, THRESHOLD)
        self.expand = nn.Linear(dim, ffn)
        self.expanded = NormedLIF(ffn, THRESHOLD)
        self.reduce = nn.Linear(ffn, dim)

    def units(self) -> list[NormedLIF]:
        """All neurons in order."""
        return [self.input, self.expanded]

    def clip(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        y: Tensor = self.reduce(self.expanded.clip(self.expand(self.input.clip(x))))
        return y

    def step(self, x: Tensor, inside: Tensor, v: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
        """x (B, D) -> output (B, D), next membranes."""
        s, v0 = self.input.step(x, inside, v[0])
        s, v1 = self.expanded.step(self.expand(s), inside, v[1])
        return self.reduce(s), [v0, v1]
