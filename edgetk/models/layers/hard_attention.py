"""Selective hard attention: of each query's softmax weights only the largest count, the others are zero, nothing is rescaled.

Source: AxFormer, Nagarajan et al. 2020, arXiv:2010.03688, and the authors' code (top 30 of at most 128 tokens). With p the
weights of a query and T the `keep` largest of them,

    y = sum over j in T of p_j v_j,    |y - sum over all j of p_j v_j| <= (1 - sum over T of p_j) max_j |v_j|

Scores and softmax are as before; the product with the values shrinks from n n d multiply-accumulates a head to n K d. Of equal
weights the first ones are kept, so that every runtime keeps the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgetk.core.errors import UsageError
from edgetk.models.layers import operators

#: weights kept at 128 tokens, as published
KEEP = 30


def require(keep: int, who: str) -> int:
    """`keep` as it is, or UsageError where it is negative; 0 stands for all."""
    if keep < 0:
        raise UsageError(f"{who}: hard must be at least 0, the weights a query keeps (0: all), got {keep}; correct it")
    return keep


def largest(weights: Tensor, keep: int) -> Tensor:
    """weights (…, n) with all but the `keep` largest of each row zero; itself where n <= keep.

    Rows of the result sum up to the mass that is kept. Gradients reach what is kept only.
    """
    if weights.shape[-1] <= keep:
        return weights
    least = weights.detach().topk(keep, dim=-1).values[..., -1:]
    above = weights > least
    level = weights == least
    room = keep - above.sum(-1, keepdim=True)
    return weights.where(above | (level & (level.cumsum(-1) <= room)), weights.new_zeros(()))


def mix(weights: Tensor, v: Tensor, keep: int = 0) -> Tensor:
    """weights (…, n, m) after the softmax, v (…, m, d) -> (…, n, d); `keep` 0 or at least m: all weights count.

    In an exported graph four-dimensional float32 tensors become one operator, `edgetk::HardAttention`.
    """
    if keep == 0 or weights.shape[-1] <= keep:
        return weights @ v
    if operators.wanted() and v.dim() == 4 and weights.dtype == v.dtype == torch.float32:
        like = weights.new_empty((*weights.shape[:-1], v.shape[-1]))
        return operators.node("HardAttention", (weights, v), like=like, keep=keep, kept=[keep])
    return largest(weights, keep) @ v


def product_macs(tokens: int, width: int, keep: int = 0) -> int:
    """Multiply-accumulates of a head's product of weights and values: tokens * min(keep, tokens) * width."""
    return tokens * (min(keep, tokens) if keep else tokens) * width


__all__ = ["KEEP", "largest", "mix", "product_macs", "require"]
