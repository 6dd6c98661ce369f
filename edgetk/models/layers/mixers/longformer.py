"""Longformer: a sliding window, and a few global tokens that see all and are seen by all.

Source: Beltagy et al. 2020, arXiv:2004.05150, section 3.1. Queries, keys and values are the same for local and global
attention (the paper has separate ones; Long Range Arena has not).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from edgetk.models.layers.mixers._contract import MASKED, Mixer, attend, block_bias, blocks, hidden, whole


class Longformer(Mixer):
    """Tokens see those at most `window` / 2 away and the first `globals_` tokens, which see all."""

    complexity: ClassVar[str] = "about 3 w N d a head for a window of w; 1.5 w N scores a head"
    streams: ClassVar[str] = "half a window ahead, but for the global tokens, which need the whole input"
    may_be_zero: ClassVar[tuple[str, ...]] = ("globals_",)

    def __init__(self, heads: int, width: int, length: int, window: int = 512, globals_: int = 1) -> None:
        super().__init__(heads, width, length)
        self.reach, self.globals = max(window // 2, 1), globals_

    def forward(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None = None, first: int = 0) -> Tensor:
        tokens, size = q.shape[2], self.reach
        bias = self._bias(real, tokens, q.device)
        keys, values = (torch.cat([self._near(blocks(x, size)), self._shared(x, -(-tokens // size))], dim=3) for x in (k, v))
        y = whole(attend(blocks(q, size), keys, values, bias), tokens)
        if not self.globals:
            return y
        everywhere = attend(q[:, :, : self.globals], k, v, hidden(real))
        return torch.cat([everywhere, y[:, :, self.globals :]], dim=2)

    def _near(self, x: Tensor) -> Tensor:
        """Blocks (B, H, n, s, d) -> each with the one before and the one behind it (B, H, n, 3 s, d)."""
        padded = torch.nn.functional.pad(x, (0, 0, 0, 0, 1, 1))
        return torch.cat([padded[:, :, :-2], padded[:, :, 1:-1], padded[:, :, 2:]], dim=3)

    def _shared(self, x: Tensor, count: int) -> Tensor:
        """The global tokens for every block: (B, H, count, g, d)."""
        return x[:, :, None, : self.globals].expand(-1, -1, count, -1, -1)

    def _bias(self, real: Tensor | None, tokens: int, device: torch.device) -> Tensor:
        """(1 or B, 1, blocks, s, 3 s + g): what a block's queries may see of `_near` and of `_shared`."""
        size = self.reach
        count = -(-tokens // size)
        shown = block_bias(real, tokens, size, device)  # (B, n, s)
        padded = torch.nn.functional.pad(shown, (0, 0, 1, 1), value=MASKED)
        near = torch.cat([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]], dim=2)  # (B, n, 3 s)
        query = torch.arange(size, device=device)
        key = torch.arange(3 * size, device=device) - size
        band = torch.where((key[None, :] - query[:, None]).abs() <= self.reach, 0.0, MASKED)
        place = torch.arange(count, device=device)[:, None] * size + key  # of a key in the input
        twice = torch.where((place >= 0) & (place < self.globals), MASKED, 0.0)  # seen as a global token already
        local = near[:, :, None, :] + band[None, None] + twice[None, :, None, :]
        shared = shown.flatten(1)[:, None, None, : min(self.globals, tokens)].expand(-1, count, size, -1)
        return torch.cat([local.clamp_min(MASKED), shared], dim=-1)[:, None]

    def macs(self, tokens: int) -> int:
        padded = tokens + -tokens % self.reach
        local = padded * (3 * self.reach + min(self.globals, tokens))
        return 2 * self.heads * self.width * (local + min(self.globals, tokens) * tokens)


MIXER = Longformer
