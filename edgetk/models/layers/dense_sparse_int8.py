"""Sparse factors with int8 values: a scale for each line, indices in as few bits as before.

Source: the layout of `edgetk.models.layers.dense_sparse` with the arithmetic of `edgetk.models.layers.qdq`, symmetric. Behind
an int8 dictionary all numbers of a pair are bytes: b_D = b_S = 8 in the formula of its bits, and `Group.scales` floats besides.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from edgetk.models.layers.dense_sparse import DenseSparseLinear, SparseFactor, groups_of
from edgetk.models.layers.dense_sparse_sizes import FLOAT, Group
from edgetk.models.layers.qdq import dequantize_weight
from edgetk.models.layers.quantized import QuantLinear

#: bits of an int8 value
INT8 = 8


class QuantSparseFactor(SparseFactor):
    """A sparse factor whose `values` (lines, s) are int8, to be multiplied by `scale` (lines,), float32.

    In an exported graph it is `edgetk::DenseSparseMatMulInt8` or `edgetk::DenseSparseMatMulByRowInt8`.
    """

    integer = True

    def __init__(self, like: SparseFactor) -> None:
        """An empty one of the sizes of `like`."""
        super().__init__(like.lines, like.width, like.nonzeros, like.side, like.grouped)
        del self.values
        self.register_buffer("values", torch.zeros(like.lines, like.nonzeros, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(like.lines))
        self.scale: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, factor: SparseFactor) -> QuantSparseFactor:
        """`factor` with the largest value of each line at code 127."""
        made = cls(factor)
        codes, scale = line_codes(factor.values)
        made.values.copy_(codes)
        made.scale.copy_(scale)
        made.indices.copy_(factor.indices)
        return made.to(factor.values.device)

    def coefficients(self) -> Tensor:
        return dequantize_weight(self.values, self.scale)

    def _stored_values(self) -> tuple[str, tuple[Tensor, ...]]:
        return "Int8", (self.values, self.indices, self.scale)


def line_codes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values (lines, s) as int8 codes and a scale (lines,), symmetric: the largest of a line gets 127."""
    scale = values.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
    return torch.clamp(torch.round(values / scale[:, None]), -127, 127).to(torch.int8), scale


def pair_bits(body: nn.Module) -> tuple[int, int]:
    """Bits of all dense-sparse pairs in `body`: as float32, and as they are, scales included; biases apart."""
    groups = groups_of(body)
    return sum(group.bits() for group in groups), sum(_bits(body, group) for group in groups)


def _bits(body: nn.Module, group: Group) -> int:
    layers = [cast("DenseSparseLinear", body.get_submodule(name)) for name in group.layers]
    total = FLOAT * group.short * group.rank
    if isinstance(layers[0].dictionary, QuantLinear):
        total = INT8 * group.short * group.rank + FLOAT * (group.scales - group.lines)
    for layer in layers:
        value, scale = (INT8, FLOAT) if isinstance(layer.sparse, QuantSparseFactor) else (FLOAT, 0)
        total += layer.sparse.lines * (group.nonzeros * (value + group.index_bits) + scale)
    return total


__all__ = ["INT8", "QuantSparseFactor", "line_codes", "pair_bits"]
