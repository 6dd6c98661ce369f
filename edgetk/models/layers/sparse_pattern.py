"""N:M sparsity of linear layers: of every M consecutive weights of an output, at most N are not zero.

Source: Mishra et al. 2021, arXiv:2104.08378 (2:4, as sparse tensor cores read it). The layer stays an `nn.Linear` with zeros in
its weights and says what it keeps to in an attribute; so quantization and export need to know nothing about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

#: the attribute of a layer: (N, M)
ATTRIBUTE = "keeps_n_of_m"


def largest_of(scores: Tensor, n: int, m: int) -> Tensor:
    """True for the `n` largest scores (out, in) of each `m` consecutive ones of a row, of equal ones the first.

    Where `in` is no multiple of `m` the last ones are a group of their own, of which `n` stay too.
    """
    missing = -scores.shape[1] % m
    padded = torch.nn.functional.pad(scores, (0, missing), value=float("-inf"))
    blocks = padded.view(len(scores), -1, m)
    order = blocks.argsort(dim=-1, descending=True, stable=True)[..., :n]
    kept = torch.zeros_like(blocks, dtype=torch.bool).scatter_(-1, order, True)
    return kept.flatten(1)[:, : scores.shape[1]]


def mark(layer: nn.Linear, n: int, m: int) -> None:
    """From now on the layer keeps to n:m; its weights do so after `project`."""
    setattr(layer, ATTRIBUTE, (n, m))


def pattern(layer: nn.Module) -> tuple[int, int] | None:
    """(N, M) of a layer that was marked, else None."""
    found: tuple[int, int] | None = getattr(layer, ATTRIBUTE, None)
    return found


@torch.no_grad()
def project(body: nn.Module) -> None:
    """Weights of marked layers beside the N largest of each M become zero: nothing where there are no more than N."""
    for layer in body.modules():
        found = pattern(layer)
        if found is not None and isinstance(layer, nn.Linear):
            layer.weight.mul_(largest_of(layer.weight.abs(), *found))


@contextmanager
def held(body: nn.Module) -> Iterator[None]:
    """Within the block training leaves zeros of marked layers zero: they get no gradient, and zero does not decay."""
    handles = []
    for layer in body.modules():
        if pattern(layer) is not None and isinstance(layer, nn.Linear) and layer.weight.requires_grad:
            kept = layer.weight.detach() != 0
            hook = partial(torch.mul, kept)
            handles.append(layer.weight.register_hook(hook))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


__all__ = ["ATTRIBUTE", "held", "largest_of", "mark", "pattern", "project"]
