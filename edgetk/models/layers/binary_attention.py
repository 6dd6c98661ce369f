"""Linear attention on binary codes: queries and keys are the same codes, so its two products are additions and subtractions.

Source: EcoFormer, Liu et al., NeurIPS 2022, arXiv:2209.09004, and the authors' code (`linear_attention_bias`). With codes
k_n in {-1, +1}^b, k_n . k_j = b - 2 * Hamming distance lies in [-b, b]; adding beta = b + 1 makes every weight positive:

    out_n = (sum_j (k_n . k_j) v_j + beta * v_n) / (k_n . sum_j k_j + N * beta)         numerator "own_token", as published
    out_n = sum_j (k_n . k_j + beta) v_j / (k_n . sum_j k_j + N * beta)                 numerator "sum": weights add up to 1

both evaluated through sum_j k_j v_j^T (b x d), so the cost grows with N and not with N^2. The published code adds beta to the
token's own value only, though its denominator is that of the second form; the published accuracies come from it.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from edgetk.core.errors import UsageError
from edgetk.models.layers import operators
from edgetk.models.layers.precision import at_least_float32, no_autocast

Numerator = Literal["own_token", "sum"]
NUMERATORS: tuple[str, ...] = get_args(Numerator)


def binary_linear_attention(codes: Tensor, v: Tensor, numerator: Numerator = "own_token", keys: Tensor | None = None) -> Tensor:
    """codes (…, N, b) of -1, 0 or +1 in any floating type, v (…, N, d) -> (…, N, d).

    `keys` (…, N, b) where they are not the queries' `codes`. It computes in float32 at least, whatever the autocast; the
    denominator is an integer in [N, N * (2 b + 1)]. In an exported graph four-dimensional float32 tensors become one operator,
    `edgetk::BinaryLinearAttention`. Raises UsageError.
    """
    if numerator not in NUMERATORS:
        raise UsageError(f"binary attention: numerator must be one of {', '.join(NUMERATORS)}, got {numerator!r}; correct it")
    tokens, beta = codes.shape[-2], codes.shape[-1] + 1
    with no_autocast(v):
        v = at_least_float32(v)
        codes = codes.to(v.dtype)
        keys = codes if keys is None else keys.to(v.dtype)
        if operators.wanted() and v.dim() == 4 and v.dtype == torch.float32:
            return operators.node("BinaryLinearAttention", (codes, keys, v), like=v, numerator=numerator)
        context = keys.transpose(-2, -1) @ v
        total = keys.sum(dim=-2, keepdim=True)
        own = v if numerator == "own_token" else v.sum(dim=-2, keepdim=True)
        weights = codes @ total.transpose(-2, -1) + tokens * beta
        return (codes @ context + beta * own) / weights
