"""Sizes and parts of a wide transformer: attention with any number of heads of any width, and the layer around it.

Source: see `edgetk.models.wide`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.core.errors import UsageError
from edgetk.models.layers import hard_attention, mixers
from edgetk.models.layers.attention import merge_heads, split_heads
from edgetk.models.layers.elements import gone, plain

Last = Literal["class", "all"]


@dataclass(frozen=True)
class Config:
    """Sizes. `head_width` times heads is the inner width of attention, whatever `dim` is.

    vocabulary  of token numbers, one more row is the class token's; 0: spectrograms of `features` bands, which have no padding
    length      tokens or frames of an input, without the class token
    mixer       and its `settings`, see `edgetk.models.layers.mixers`
    turns       heads that are computed together; 0: all
    last        what the last layer computes: the "class" token, or "all" of them
    """

    layers: int = 1
    heads: int = 16
    dim: int = 256
    head_width: int = 64
    ffn: int = 1024
    vocabulary: int = 256
    features: int = 128
    length: int = 1000
    classes: int = 2
    mixer: str = "softmax"
    settings: Mapping[str, Any] = field(default_factory=dict)
    turns: int = 0
    last: Last = "class"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("layers", "heads", "dim", "head_width", "ffn", "length", "classes"):
            if getattr(self, name) < 1:
                raise UsageError(f"wide: {name} must be at least 1, got {getattr(self, name)}; correct it")
        if self.dim % 2:
            raise UsageError(f"wide: dim must be even, for sines and cosines of positions, got {self.dim}; correct it")
        if self.last not in get_args(Last):
            raise UsageError(f"wide: last must be one of {', '.join(get_args(Last))}, got {self.last!r}; correct it")
        if not 0 <= self.turns <= self.heads:
            raise UsageError(f"wide: turns must be in [0, {self.heads}], the number of heads, got {self.turns}; correct it")


class WideAttention(nn.Module):
    """Heads of any number and width on x (B, N, C): sum over heads of mix(q_h, k_h, v_h) W_h, no biases."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.width, self.turns = config.head_width, config.turns
        inner = config.heads * config.head_width
        self.mixer = mixers.make(config.mixer, config.heads, config.head_width, config.length + 1, **config.settings)
        if self.mixer.reads_queries:
            self.to_q = nn.Linear(config.dim, inner, bias=False)
            self.to_k = nn.Linear(config.dim, inner, bias=False)
        self.to_v = nn.Linear(config.dim, inner, bias=False)
        self.proj = nn.Linear(inner, config.dim, bias=False)

    @property
    def heads(self) -> int:
        """As many as `proj` reads."""
        return self.proj.in_features // self.width

    def forward(self, x: Tensor, real: Tensor | None = None, wanted: int | None = None) -> Tensor:
        """x (B, N, C), real (B, N) -> (B, N, C), or the first `wanted` tokens of it."""
        if self.turns in (0, self.heads):
            mixed = self._mixed(self._projected(x, wanted), real, wanted, 0)
        elif not self._sliceable():  # only the scores take turns
            every = self._projected(x, wanted)
            parts = [tuple(p[:, at : at + self.turns] for p in every) for at in self._starts()]
            turns = [self._mixed(part, real, wanted, at) for part, at in zip(parts, self._starts(), strict=True)]
            mixed = torch.cat(turns, dim=1)
        else:
            total = self._part(x, real, wanted, 0)
            for first in self._starts()[1:]:
                total = total + self._part(x, real, wanted, first)
            return total
        y: Tensor = self.proj(merge_heads(mixed))
        return y

    def _starts(self) -> range:
        """The first head of each turn."""
        return range(0, self.heads, self.turns)

    def _sliceable(self) -> bool:
        """Whether rows of the layers may be used by themselves: not of those that passes made, nor while a pass listens to
        what layers read, which must hear them called."""
        layers = [getattr(self, name) for name in self._layers()]
        return plain(self, *self._layers()) and not any(m._forward_hooks or m._forward_pre_hooks for m in layers)

    def _layers(self) -> tuple[str, ...]:
        return ("to_q", "to_k", "to_v", "proj") if self.mixer.reads_queries else ("to_v", "proj")

    def _part(self, x: Tensor, real: Tensor | None, wanted: int | None, first: int) -> Tensor:
        """What `turns` heads from `first` on add to the output."""
        count = min(self.turns, self.heads - first)
        mixed = merge_heads(self._mixed(self._projected(x, wanted, first, count), real, wanted, first))
        return F.linear(mixed, self.proj.weight[:, first * self.width : (first + count) * self.width])

    def _projected(self, x: Tensor, wanted: int | None, first: int = 0, count: int | None = None) -> tuple[Tensor, ...]:
        """Queries, keys and values of `count` heads from `first` on, of all by default."""
        count = self.heads if count is None else count
        asked = x[:, :wanted] if self.mixer.few_queries else x
        if self.mixer.reads_queries:
            q, k = self._heads(self.to_q, asked, first, count), self._heads(self.to_k, x, first, count)
            return q, k, self._heads(self.to_v, x, first, count)
        v = self._heads(self.to_v, x, first, count)
        return v[:, :, :wanted] if self.mixer.few_queries else v, v, v

    def _mixed(self, projected: tuple[Tensor, ...], real: Tensor | None, wanted: int | None, first: int) -> Tensor:
        y: Tensor = self.mixer(*projected, real, first)
        return y[:, :, :wanted]

    def _heads(self, layer: nn.Module, x: Tensor, first: int, count: int) -> Tensor:
        """What a layer gives for `count` heads from `first` on, (B, count, N, d)."""
        if count == self.heads:
            return split_heads(layer(x), count)
        assert isinstance(layer.weight, Tensor)
        return split_heads(F.linear(x, layer.weight[first * self.width : (first + count) * self.width]), count)

    @property
    def hard(self) -> int:
        """The largest softmax weights of a query that count (`layers.hard_attention`), 0 for all; may be set at any time."""
        return int(getattr(self.mixer, "keep", 0))

    @hard.setter
    def hard(self, keep: int) -> None:
        kind = mixers.name_of(self.mixer)
        if kind not in ("softmax", "hard"):
            raise UsageError(f"wide: hard keeps weights of a softmax, got the mixer {kind}; build the model with softmax")
        name, settings = ("hard", {"keep": keep}) if hard_attention.require(keep, "wide") else ("softmax", {})
        self.mixer = mixers.make(name, self.heads, self.width, self.mixer.length, **settings)

    def more_macs(self, tokens: int, asked: int) -> int:
        """Multiply-accumulates for `tokens` tokens, of which `asked` are wanted, beyond those of using each weight for each."""
        macs = self.mixer.macs_of(tokens, asked) - tokens * sum(p.numel() for p in self.mixer.parameters() if p.dim() > 1)
        once = [self.proj, self.to_q] if self.mixer.few_queries and self.mixer.reads_queries else [self.proj]
        return macs - (tokens - asked) * sum(layer.weight.numel() for layer in once)

    def silent_heads(self) -> list[int]:
        """Heads whose part of `proj` is zero: without them the output is the same, exactly."""
        parts = self.proj.weight.view(self.proj.out_features, self.heads, self.width)
        return [h for h in range(self.heads) if not bool(parts[:, h].any())]


class Layer(nn.Module):
    """x += attention(norm(x)); x += down(gelu(up(norm(x)))). Either sum may be gone, with its norm."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention: nn.Module = WideAttention(config)
        self.norm = nn.LayerNorm(config.dim)
        self.up = nn.Linear(config.dim, config.ffn)
        self.down = nn.Linear(config.ffn, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, real: Tensor | None, wanted: int | None = None) -> Tensor:
        """x (B, N, C), real (B, N) -> (B, N, C), or the first `wanted` tokens of it."""
        before, x = x, x[:, :wanted]
        if not gone(self.attention):
            x = x + self.dropout(self.attention(self.attention_norm(before), real, wanted))
        if not gone(self.down):
            x = x + self.dropout(self.down(self.dropout(F.gelu(self.up(self.norm(x))))))
        return x


__all__ = ["Config", "Layer", "WideAttention"]
