"""LMUFormer: convolutional patch embedding, a Legendre memory instead of attention, and a channel mixer.

Source: Liu, Datta, Li & Beerel, ICLR 2024, arXiv:2402.04882; variant `lmu_rnn_conv1d` of the authors' code.

    features (B, T, F) -> 4 x [FrameConv -> ReLU -> BN] -> + FrameConv (position) -> x (B, T, D)
    x += BN(P relu(W_h [m; x])),  m = LegendreMemory(relu(W_u x))          u is one scalar a frame
    x += relu(BN(W_2 gelu(BN(W_1 x))))
    logits = head(mean over frames of x)

Streaming. `forward(x, *state)` takes frames and state and gives the running decision after each frame, plus the next state;
`clip(x)` is the same network over a whole utterance. The five convolutions look one frame ahead each, so the token that a step
works on is the frame `LOOKAHEAD` = 5 steps ago. `state_valid` says which frames lie inside the clip: entry 0 is for the frames
to come (1 from the start on), entries 1 to 5 for the last five (0 at the start). To finish a clip, write 0 into entry 0 and
push five frames of zeros (`flush`). The state of a fresh stream, T frames and the flush equal `clip`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.signature import StateSpec
from edgetk.models._lmuformer_parts import ChannelMixer, PatchEmbed, TokenMixer
from edgetk.models._lmuformer_stream import FrameStream, aged, bundled, state
from edgetk.models.layers.elements import NEURONS, Block, block, memory_block
from edgetk.models.layers.frame_conv import TAPS
from edgetk.models.layers.groups import Group, MemoryGroup, Slice, norm_entries, rows
from edgetk.models.layers.norm import BatchNorm, Sign, flipped, response, scaled, shifted


@dataclass(frozen=True)
class Config:
    """Widths of every layer. `widths` are the outputs of the four patch convolutions; the last one is the width D."""

    features: int = 128
    classes: int = 35
    widths: tuple[int, int, int, int] = (256, 256, 256, 256)
    order: int = 256
    hidden: int = 256
    ffn: int = 1024
    theta: float = 128.0
    frames: int = 128

    @property
    def dim(self) -> int:
        return self.widths[-1]


def uniform(dim: int, order: int | None = None, ffn: int | None = None) -> Config:
    """The paper's shape at width `dim`: order = hidden = dim and a channel mixer of 4 * dim unless given."""
    return Config(widths=(dim, dim, dim, dim), order=order or dim, hidden=dim, ffn=ffn or 4 * dim)


VARIANTS: Mapping[str, Config] = {"base": Config(), "s": uniform(96), "xs": uniform(48, ffn=96)}


class LMUFormer(FrameStream):
    """The network; see the module's docstring for its equations and its two forms."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed = PatchEmbed(config.features, config.widths)
        self.mixer = TokenMixer(config.dim, config.order, config.hidden, config.theta, config.frames)
        self.channels = ChannelMixer(config.dim, config.ffn)
        self.head = nn.Linear(config.dim, config.classes)
        for linear in (self.mixer.encoder, self.mixer.hidden, self.head):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def tokens(self, x: Tensor) -> Tensor:
        """x (B, T, F) -> what the head averages, (B, T, D)."""
        x = self.embed.clip(x)
        x = x + self.mixer.clip(x)
        y: Tensor = x + self.channels(x)
        return y

    def clip(self, x: Tensor) -> Tensor:
        """Whole utterances x (B, T, F) -> logits (B, K)."""
        y: Tensor = self.head(self.tokens(x).mean(dim=1))
        return y

    def running(self, x: Tensor) -> Tensor:
        """The decision after each token of whole utterances: x (B, T, F) -> (B, T, K), row n the mean of tokens 0..n."""
        count = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)[:, None]
        y: Tensor = self.head(self.tokens(x).cumsum(dim=1) / count)
        return y

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Frames x (B, T, F) and state -> running logits (B, T, K) after each frame, and the next state."""
        outputs = []
        for frame in x.unbind(dim=1):
            y, state = self._step(frame, state)
            outputs.append(y)
        return torch.stack(outputs, dim=1), *state

    def _step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        valid, *past, m, total, count = state
        inside = torch.split(valid > 0.5, 1, dim=1)[1:]
        x, past = self.embed.step(x, inside[:4], tuple(past))
        counts = inside[4].to(x.dtype)
        y, m = self.mixer.step(x, counts, m)
        x = x + y
        x = x + self.channels(x)
        total = total + self.head(x) * counts
        count = count + counts
        return total / count.clamp(min=1.0), (aged(valid), *past, m, total, count)

    def stream_states(self) -> tuple[StateSpec, ...]:
        """All states but `state_valid`: what convolutions look back on, the memory, sums."""
        convs = self.embed.layers()
        pasts = []
        for i, conv in enumerate(convs):
            pad = conv.pad.detach().cpu()
            name = "embed_position_past" if i == len(convs) - 1 else f"embed_conv{i}_past"
            pasts.append(state(name, 2 * len(pad), init=tuple(pad.repeat(2).tolist()) if bool(pad.any()) else ()))
        return (
            *pasts,
            state("mixer_memory", self.mixer.memory.order),
            state("head_sum", self.config.classes),
            state("head_count", 1),
        )

    def fold_norms(self) -> tuple[str, ...]:
        """Fold every batch norm into its neighbours, exactly, and name the folded ones.

        A norm after a linear layer becomes its scale and bias. One after conv -> ReLU goes two ways: the size of its scale back
        through the ReLU (relu(|g| y) = |g| relu(y)), its sign and shift forward into what reads it. Beyond the edges of a clip
        then stands minus that shift, since the published network pads after the norm.
        """
        folded = [name for name, module in self.named_modules() if isinstance(module, BatchNorm)]
        for i, (conv, reader) in enumerate(itertools.pairwise(self.embed.layers())):
            norm = self.embed.norms[i]
            if isinstance(norm, BatchNorm):
                scale, shift = (t.detach() for t in norm.scale_shift())
                sign = torch.where(scale < 0, -1.0, 1.0)
                last = reader is self.embed.position  # its input is the residual stream too, which keeps sign and shift
                conv.taps = scaled(conv.taps, scale.abs())
                moved = response(reader.taps, shift.repeat(TAPS))
                reader.taps = shifted(reader.taps, moved + shift if last else moved)
                reader.pad = reader.pad - shift
                if not last:
                    reader.taps = flipped(reader.taps, sign.repeat(TAPS))
                    reader.pad = reader.pad * sign
                self.embed.norms[i] = Sign(sign) if last and bool((sign < 0).any()) else nn.Identity()
        for parent, name, norm_name in (
            (self.mixer, "proj", "norm"),
            (self.channels, "expand", "norm1"),
            (self.channels, "reduce", "norm2"),
        ):
            norm = getattr(parent, norm_name)
            if isinstance(norm, BatchNorm):
                scale, shift = (t.detach() for t in norm.scale_shift())
                setattr(parent, name, shifted(scaled(getattr(parent, name), scale), shift))
                setattr(parent, norm_name, nn.Identity())
        return tuple(folded)

    def groups(self) -> tuple[Group, ...]:
        """What structured pruning may take: channels of the first three patch convolutions, of the token mixer's hidden layer
        and of the channel mixer. The residual stream keeps its width; the memory has its own reduction."""
        found = []
        for i, (here, reader) in enumerate(itertools.pairwise(self.embed.layers()[:-1])):
            made = (*rows(f"embed.convs.{i}.taps", here.taps), *norm_entries(f"embed.norms.{i}", self.embed.norms[i]))
            padded = (*made, Slice(f"embed.convs.{i + 1}.pad", 0))
            found.append(Group(f"embed.conv{i}", reader.pad.numel(), padded, f"embed.convs.{i + 1}.taps", TAPS))
        mixer, channels = self.mixer, self.channels
        found.append(Group("mixer.hidden", mixer.proj.in_features, rows("mixer.hidden", mixer.hidden), "mixer.proj"))
        made = (*rows("channels.expand", channels.expand), *norm_entries("channels.norm1", channels.norm1))
        found.append(Group("channels.ffn", channels.reduce.in_features, made, "channels.reduce"))
        return tuple(found)

    def elements(self, neurons: int = NEURONS) -> tuple[Block, ...]:
        """The groups in eighths, of at most so many `neurons`, and the memory's order; nothing can go as a whole."""
        steps = {"embed": 0, "mixer": 1, "channels": 2}
        found = []
        for group in self.groups():
            part, kind = group.name.split(".")[0], "ffn" if group.name == "channels.ffn" else "channels"
            width = max(1, min(neurons, group.size // 8))
            found.append(block(self, group.name, kind, steps[part], group, width, self.config.frames))
        found += [memory_block(self, memory, steps["mixer"], runs=self.config.frames) for memory in self.memory_groups()]
        return tuple(sorted(found, key=lambda b: b.step))

    def steps(self) -> tuple[Callable[[Tensor], Tensor], ...]:
        """Patches, token mixer, channel mixer, head: `clip` is one after the other."""
        return (
            self.embed.clip,
            lambda x: x + self.mixer.clip(x),
            lambda x: x + self.channels(x),
            lambda x: self.head(x.mean(dim=1)),
        )

    def memory_groups(self) -> tuple[MemoryGroup, ...]:
        """The Legendre memory, whose order may be lowered."""
        return (MemoryGroup("mixer.memory", "mixer", "mixer.hidden", self.mixer.memory.order),)

    def macs(self) -> dict[str, int]:
        """Multiply-accumulates per frame of the stream form, by part (B u counts as `order`)."""
        counted = super().macs()
        counted["mixer"] += self.mixer.memory.order * (self.mixer.memory.order + 1)
        return counted


def build(variant: str = "base", **config: Any) -> Bundle:
    """An untrained LMUFormer; `config` overrides fields of the variant's `Config`."""
    if "widths" in config:
        config["widths"] = tuple(config["widths"])
    shape = replace(VARIANTS[variant], **config)
    net = LMUFormer(shape).eval()
    return bundled(net, "lmuformer", variant)
