"""Weighted sums of table rows, y_n = sum_k w_nk T_k[i_nk], and gradients that need no row for every token and table at once.

Source: MemoryFormer, arXiv:2411.12992, eq. 9 to 12. The tables' gradient is dense, or a sparse tensor of the rows that were
read (`torch.optim.SparseAdam` takes it).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

#: numbers that may be gathered at once while gradients are computed
CHUNK = 2**24


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, tables: Tensor, flat: Tensor, sparse: bool) -> Tensor:
        ctx.save_for_backward(weight, tables, flat)
        ctx.sparse = sparse
        return F.embedding_bag(flat, tables.flatten(0, 1), mode="sum", per_sample_weights=weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, tables, flat = ctx.saved_tensors
        (grad,) = grads
        of_weight, of_tables = ctx.needs_input_grad[:2]
        rows = tables.flatten(0, 1)
        grad_weight = torch.empty_like(weight) if of_weight else None
        places, target = flat, None
        if of_tables and ctx.sparse:
            used, places = torch.unique(flat, return_inverse=True)
            target = rows.new_zeros(len(used), rows.shape[1])
        elif of_tables:
            target = torch.zeros_like(rows)
        step = max(1, CHUNK // max(1, grad.numel()))
        for first in range(0, flat.shape[1], step):
            part = slice(first, first + step)
            if grad_weight is not None:
                grad_weight[:, part] = torch.bmm(rows[flat[:, part]], grad[:, :, None])[:, :, 0]
            if target is not None:
                scaled = weight[:, part, None] * grad[:, None, :]
                target.index_add_(0, places[:, part].flatten(), scaled.flatten(0, 1))
        grad_tables = None
        if target is not None and ctx.sparse:
            height = tables.shape[1]
            where = torch.stack([used // height, used % height])
            grad_tables = torch.sparse_coo_tensor(where, target, tables.shape, check_invariants=False, is_coalesced=True)
        elif target is not None:
            grad_tables = target.view_as(tables)
        return grad_weight, grad_tables, None, None


def lookup(index: Tensor, weight: Tensor, tables: Tensor, sparse: bool = False) -> Tensor:
    """index (…, K) int64 and weight (…, K), tables (K, R, h) -> (…, h); `sparse`: the tables' gradient holds the rows read."""
    count, height, outputs = tables.shape
    flat = (index + height * torch.arange(count, device=index.device)).reshape(-1, count)
    each = weight.reshape(-1, count)
    y: Tensor
    if tables.device.type == "cpu" and not sparse:  # torch's own gradients gather no rows here, and are 5 to 8 times faster
        y = F.embedding_bag(flat, tables.flatten(0, 1), mode="sum", per_sample_weights=each)
    else:
        y = _Lookup.apply(each, tables, flat, sparse)  # type: ignore[no-untyped-call]
    return y.view(*index.shape[:-1], outputs)


def gathered(index: Tensor, weight: Tensor, tables: Tensor) -> Tensor:
    """The same by a gather and a product, as an exported graph computes it."""
    count, height, _ = tables.shape
    rows = tables.flatten(0, 1)[index + height * torch.arange(count, device=index.device)]
    return (weight.unsqueeze(-2) @ rows).squeeze(-2)


__all__ = ["gathered", "lookup"]
