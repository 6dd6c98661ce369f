"""The parts of a pyramid transformer: patches, two kinds of MLP, a block, a stage.

Sources: Wang et al. 2022 (PVTv2), arXiv:2106.13797, section 3; Chu et al. 2021 (Twins-SVT), arXiv:2104.13840, section 3.2;
constants as in their authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.models.layers.attention import Grid, to_image, to_tokens
from edgetk.models.layers.elements import gone

EPS = 1e-6  # of all norms but that of a patch embedding, which has torch's default


class PatchEmbed(nn.Module):
    """image (B, C_in, H, W) -> tokens (B, N, C) of patches, and their grid. Patches that overlap reach beyond edges."""

    def __init__(self, inputs: int, dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, dim, kernel, stride=stride, padding=kernel // 2 if kernel > stride else 0)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Tensor) -> tuple[Tensor, Grid]:
        x = self.proj(image)
        return self.norm(to_tokens(x)), (x.shape[2], x.shape[3])


class ConvMlp(nn.Module):
    """Linear -> depthwise 3x3 convolution on the grid -> GELU -> Linear, per token otherwise; x (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.reduce = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        mixed = to_tokens(self.mix(to_image(self.expand(x), grid)))
        y: Tensor = self.reduce(F.gelu(mixed))
        return y


class Mlp(nn.Module):
    """Linear -> GELU -> Linear, per token; x (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.reduce = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        y: Tensor = self.reduce(F.gelu(self.expand(x)))
        return y


class Block(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x)). Either sum may be gone, with its norm."""

    def __init__(self, dim: int, attention: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attention = attention
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = mlp

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        if not gone(self.attention):
            x = x + self.attention(self.norm1(x), grid)
        return x if gone(self.mlp) else x + self.mlp(self.norm2(x), grid)


class Stage(nn.Module):
    """Patches, blocks, a norm: image (B, C_in, H, W) -> tokens (B, N, C) and their grid.

    `position` where it is given adds a depthwise convolution of the tokens to them behind the first block.
    """

    def __init__(self, embed: PatchEmbed, blocks: Iterable[Block], position: nn.Conv2d | None, norm: nn.Module) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.ModuleList(blocks)
        self.position = position
        self.norm = norm

    def forward(self, image: Tensor) -> tuple[Tensor, Grid]:
        x, grid = self.embed(image)
        for i, block in enumerate(self.blocks):
            x = block(x, grid)
            if i == 0 and self.position is not None:
                x = x + to_tokens(self.position(to_image(x, grid)))
        return self.norm(x), grid


def initialise(net: nn.Module) -> None:
    """Linear: truncated normal 0.02, convolution: normal sqrt(2 / fan_out), every bias 0."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
        elif isinstance(layer, nn.Conv2d):
            fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
