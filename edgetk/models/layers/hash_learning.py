"""Learning binary codes whose inner products follow the similarity of tokens, one bit after the other.

Source: EcoFormer, Liu et al., NeurIPS 2022, arXiv:2209.09004, in the form of the authors' code (`train_hashing_weight_woeig`),
after supervised hashing with kernels (Liu et al., CVPR 2012). For unit vectors z of a batch, S_ij is +1 where j is among the
`NEIGHBOURS` tokens most similar to i, -1 where it is among the least similar, 0 elsewhere. With centred kernel values
G (N, m) and R_0 = b S, bit r is

    a_r = argmin -s(G a)^T R_r s(G a) / (N b),  s(t) = 2 sigmoid(t) - 1,   then  R_{r+1} = R_r - y y^T,  y = sign(G a_r)

by `STEPS` steps of gradient descent from the stored a_r; the new a_r is kept only if it is strictly better with the hard sign.
All heads have their own a_r and are judged together. R is never written out: it is sparse plus r products of rank one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgetk.core.errors import InputError
from edgetk.models.layers.precision import no_autocast

NEIGHBOURS = 10
STEPS = 100
LEARNING_RATE = 5e-4
MOMENTUM = 0.9
#: rows of similarities in memory at a time: 64 million floats
_CHUNK = 1 << 26


@dataclass(frozen=True)
class Targets:
    """S (B, H, N, N) by rows: `index` (B, H, N, 2k) of its non-zero columns, `sign` (B, H, N, 2k) of what stands there."""

    index: Tensor
    sign: Tensor

    def dense(self) -> Tensor:
        """S (B, H, N, N)."""
        tokens = self.index.shape[-2]
        return self.sign.new_zeros(*self.index.shape[:-1], tokens).scatter_add(-1, self.index, self.sign)

    def product(self, y: Tensor) -> Tensor:
        """S y for y (B, H, N)."""
        return (y.gather(-1, self.index.flatten(-2)).view_as(self.sign) * self.sign).sum(-1)

    def transposed_product(self, y: Tensor) -> Tensor:
        """S^T y for y (B, H, N)."""
        return torch.zeros_like(y).scatter_add(-1, self.index.flatten(-2), (self.sign * y[..., None]).flatten(-2))


@dataclass(frozen=True)
class Learned:
    """What `learn_bits` found: `A` (H, b, m), the soft loss before each step (b, STEPS), and which bits were changed (b,)."""

    A: Tensor
    losses: Tensor
    changed: tuple[bool, ...]


def similarity_targets(z: Tensor, k: int = NEIGHBOURS) -> Targets:
    """Targets for unit vectors z (B, H, N, d); a token is its own neighbour. Raises InputError for fewer than 2 k tokens."""
    tokens = z.shape[-2]
    if tokens < 2 * k:
        raise InputError(
            f"hash learning: needs at least {2 * k} tokens, got {tokens}; use softmax attention where there are fewer"
        )
    rows = z.flatten(0, 1)
    tops, bottoms = [], []
    step = max(1, _CHUNK // tokens**2)
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        similar = part @ part.transpose(-2, -1)
        tops.append(similar.topk(k, dim=-1).indices)
        bottoms.append(similar.topk(k, dim=-1, largest=False).indices)
    top, bottom = torch.cat(tops), torch.cat(bottoms)
    # where all tokens are alike, one may be drawn for both: then it counts as dissimilar
    both = (top[..., None] == bottom[..., None, :]).any(-1)
    sign = torch.cat([(~both).to(z.dtype), -torch.ones_like(bottom, dtype=z.dtype)], dim=-1)
    index = torch.cat([top, bottom], dim=-1)
    shape = (*z.shape[:-1], 2 * k)
    return Targets(index.view(shape), sign.view(shape))


def learn_bits(centred: Tensor, start: Tensor, targets: Targets) -> Learned:
    """Codes' weights from kernel values minus their mean, `centred` (B, H, N, m), and `start` (H, b, m).

    Runs where its inputs are, without gradients. Raises InputError where the loss is not a number.
    """
    with torch.no_grad(), no_autocast(centred):
        batch, heads, tokens, _ = centred.shape
        bits = start.shape[1]
        weights, traces, changed = start.clone(), [], []
        codes = centred.new_zeros(batch, heads, tokens, 0)

        def response(a: Tensor) -> Tensor:
            return (centred @ a[..., None])[..., 0]

        def residual(y: Tensor) -> Tensor:
            return bits * targets.product(y) - _outer(codes, y)

        def objective(y: Tensor, ry: Tensor) -> Tensor:
            return -(y * ry).sum(-1).mean() / (tokens * bits)

        def hard(a: Tensor) -> Tensor:
            return torch.where(response(a) > 0, 1.0, -1.0).to(centred.dtype)

        for r in range(bits):
            old = weights[:, r]
            a, velocity, trace = old.clone(), torch.zeros_like(old), []
            for _ in range(STEPS):
                y = 2 * torch.sigmoid(response(a)) - 1
                ry = residual(y)
                trace.append(objective(y, ry))
                ry = ry + bits * targets.transposed_product(y) - _outer(codes, y)
                slope = -ry / (tokens * bits * batch * heads) * (1 - y.square()) / 2
                gradient = (slope[..., None, :] @ centred)[..., 0, :].sum(0)
                velocity = MOMENTUM * velocity + gradient
                a = a - LEARNING_RATE * (gradient + MOMENTUM * velocity)
            traces.append(torch.stack(trace))
            before, after = hard(old), hard(a)
            gain = objective(before, residual(before)) - objective(after, residual(after))
            if not bool(torch.isfinite(traces[-1]).all() & torch.isfinite(gain)):
                raise InputError(
                    f"hash learning: the loss of bit {r} must be a number, got NaN or infinity; "
                    "look for inputs or weights that are not finite"
                )
            better = bool(gain > 0)
            if better:
                weights[:, r] = a
            changed.append(better)
            codes = torch.cat([codes, (after if better else before)[..., None]], dim=-1)
        return Learned(weights, torch.stack(traces), tuple(changed))


def _outer(codes: Tensor, y: Tensor) -> Tensor:
    """sum over r of c_r c_r^T y for codes (B, H, N, r) and y (B, H, N)."""
    return (codes @ (codes.transpose(-2, -1) @ y[..., None]))[..., 0]
