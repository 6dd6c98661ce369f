"""The parts of a pyramid vision transformer: overlapping patches, a block with a depthwise convolution in its MLP, a stage.

Source: Wang et al. 2022 (PVTv2), arXiv:2106.13797, section 3; constants as in the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.models.layers.attention import Grid, to_image, to_tokens

EPS = 1e-6  # of all norms but that of a patch embedding, which has torch's default


class PatchEmbed(nn.Module):
    """image (B, C_in, H, W) -> tokens (B, N, C) of patches that overlap, and the grid they lie on."""

    def __init__(self, inputs: int, dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, dim, kernel, stride=stride, padding=kernel // 2)
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


class Block(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x))."""

    def __init__(self, dim: int, hidden: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attention = attention
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = ConvMlp(dim, hidden)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        x = x + self.attention(self.norm1(x), grid)
        y: Tensor = x + self.mlp(self.norm2(x), grid)
        return y


class Stage(nn.Module):
    """Patches, `depth` blocks whose attention `attend` makes, a norm: image (B, C_in, H, W) -> tokens (B, N, C), grid."""

    def __init__(self, embed: PatchEmbed, dim: int, hidden: int, depth: int, attend: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.ModuleList(Block(dim, hidden, attend()) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=EPS)

    def forward(self, image: Tensor) -> tuple[Tensor, Grid]:
        x, grid = self.embed(image)
        for block in self.blocks:
            x = block(x, grid)
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
