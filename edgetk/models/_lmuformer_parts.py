"""The three parts of an LMUFormer, each in its two forms: over whole clips and over single frames."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.models.layers.frame_conv import FrameConv
from edgetk.models.layers.lmu import LegendreMemory
from edgetk.models.layers.norm import BatchNorm


class PatchEmbed(nn.Module):
    """Four [FrameConv -> ReLU -> BN], then x + FrameConv(x) as position encoding."""

    def __init__(self, features: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        sizes = (features, *widths)
        self.convs = nn.ModuleList(FrameConv(i, o) for i, o in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(BatchNorm(o) for o in widths)
        self.position = FrameConv(widths[-1], widths[-1])

    def layers(self) -> list[FrameConv]:
        """All five convolutions in order."""
        return [*self.convs, self.position]

    def clip(self, x: Tensor) -> Tensor:
        """x (B, T, F) -> (B, T, D)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(F.relu(conv.clip(x)))  # type: ignore[operator]
        return x + self.position.clip(x)

    def step(self, x: Tensor, inside: tuple[Tensor, ...], past: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
        """One frame x (B, F); `inside[i]` (B, 1) says whether the output of convolution i lies inside the clip."""
        carried = []
        convs = self.layers()
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y, window = conv.step(x, past[i])  # type: ignore[operator]
            # Beyond the edges of the clip the next convolution sees its padding, not what this one computes there.
            x = torch.where(inside[i], norm(F.relu(y)), convs[i + 1].pad)
            carried.append(window)
        y, window = self.position.step(x, past[-1])
        carried.append(window)
        return past[-1][:, x.shape[-1] :] + y, carried


class TokenMixer(nn.Module):
    """h = relu(W_h [m; x]) with m the memory of u = relu(W_u x); output BN(P h). The only recurrence is m's."""

    def __init__(self, dim: int, order: int, hidden: int, theta: float, frames: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(dim, 1)
        self.memory = LegendreMemory(order, theta, frames)
        self.hidden = nn.Linear(order + dim, hidden)
        self.proj = nn.Linear(hidden, dim)
        self.norm = BatchNorm(dim)

    def read(self, m: Tensor, x: Tensor) -> Tensor:
        """Memory (..., order) and tokens (..., D) -> (..., D)."""
        y: Tensor = self.norm(self.proj(F.relu(self.hidden(torch.cat([m, x], dim=-1)))))
        return y

    def clip(self, x: Tensor) -> Tensor:
        return self.read(self.memory.clip(F.relu(self.encoder(x))[..., 0]).to(x.dtype), x)

    def step(self, x: Tensor, valid: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        m = self.memory.step(F.relu(self.encoder(x)) * valid, m)
        return self.read(m, x), m


class ChannelMixer(nn.Module):
    """relu(BN(W_2 gelu(BN(W_1 x)))), exact (erf) GELU. x (..., D) -> (..., D)."""

    def __init__(self, dim: int, ffn: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, ffn)
        self.norm1 = BatchNorm(ffn)
        self.reduce = nn.Linear(ffn, dim)
        self.norm2 = BatchNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.reduce(F.gelu(self.norm1(self.expand(x))))))
