"""What a mixer promises, and the softmax that several of them share."""

from __future__ import annotations

import inspect
from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: added to the score of what must not be seen: exp() of it is 0 in float32, and it is finite in float16
MASKED: Final = -3e4


class Mixer(nn.Module):
    """q, k, v (B, H, N, d), and which tokens are real (B, N) -> (B, H, N, d).

    It has no projections: those are the layer's around it. A subclass says of itself

    complexity  multiply-accumulates and memory by the tokens N, as text
    streams     what must be heard before a token's output is known: "whole input", or how much; none of them looks only back
    """

    complexity: ClassVar[str]
    streams: ClassVar[str] = "whole input"
    #: settings that may be 0; all others are above
    may_be_zero: ClassVar[tuple[str, ...]] = ()
    #: False where scores do not come from queries and keys
    reads_queries: ClassVar[bool] = True
    #: True where q may hold the first tokens only, each of which has its own output whatever the others ask for
    few_queries: ClassVar[bool] = False

    def __init__(self, heads: int, width: int, length: int) -> None:
        super().__init__()
        self.heads, self.width, self.length = heads, width, length

    @classmethod
    def settings(cls) -> tuple[str, ...]:
        """Names of what can be chosen beside the sizes."""
        return tuple(inspect.signature(cls).parameters)[3:]

    def forward(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None = None, first: int = 0) -> Tensor:
        """Mix. `real` None: all tokens are; a token that is none is seen by no other, its own output means nothing.

        `first`: the tensors hold some heads only, from this one of the mixer's heads on, so that heads can take turns.
        """
        raise NotImplementedError

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates of its products for `tokens` tokens and all heads."""
        raise NotImplementedError

    def macs_of(self, tokens: int, asked: int) -> int:
        """The same where q holds `asked` tokens, of a mixer that has `few_queries`."""
        return self.macs(tokens) * asked // tokens if self.few_queries else self.macs(tokens)


def hidden(real: Tensor | None) -> Tensor | None:
    """What to add to scores of keys (…, keys): 0 for a real token, `MASKED` for any other; real (B, N) -> (B, 1, 1, N)."""
    return None if real is None else torch.where(real, 0.0, MASKED)[:, None, None, :]


def scores(q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
    """q k^T / sqrt(d) + bias: q (…, n, d), k (…, m, d) -> (…, n, m)."""
    products: Tensor = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return products if bias is None else products + bias.to(products.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v over the last but one dimension of k; the softmax in float32 at least.

    Where torch has a kernel that keeps no scores, it is taken; exported graphs have the plain operators.
    """
    if q.ndim == 4 and not torch.compiler.is_exporting():
        fused: Tensor = F.scaled_dot_product_attention(q, k, v, None if bias is None else bias.to(q.dtype))
        return fused
    y: Tensor = torch.softmax(scores(q, k, bias), dim=-1).to(v.dtype) @ v
    return y


def blocks(x: Tensor, size: int) -> Tensor:
    """x (B, H, N, d) -> (B, H, ceil(N / size), size, d), zeros behind the last token."""
    missing = -x.shape[2] % size
    padded = torch.nn.functional.pad(x, (0, 0, 0, missing)) if missing else x
    return padded.reshape(x.shape[0], x.shape[1], -1, size, x.shape[3])


def block_bias(real: Tensor | None, tokens: int, size: int, device: torch.device) -> Tensor:
    """(1 or B, blocks, size): 0 for a real token, `MASKED` for any other, and for what `blocks` adds."""
    shown = torch.ones(1, tokens, dtype=torch.bool, device=device) if real is None else real
    padded = torch.nn.functional.pad(shown, (0, -tokens % size))
    return torch.where(padded, 0.0, MASKED).reshape(shown.shape[0], -1, size)


def whole(x: Tensor, tokens: int) -> Tensor:
    """The inverse of `blocks`: (B, H, blocks, size, d) -> (B, H, tokens, d)."""
    return x.flatten(2, 3)[:, :, :tokens]


__all__ = ["MASKED", "Mixer", "attend", "block_bias", "blocks", "hidden", "scores", "whole"]
