"""What a module declares to structured pruning: which channels may go together, and how a body loses them.

A module offers `groups()`; a channel of a group is one row of what makes it, one entry of what scales it, and one column of
the one linear layer that reads it (`taps` columns where it reads a window of frames). Residual streams, which many layers
read, are not groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgetk.models.layers.norm import BatchNorm, Sign


@dataclass(frozen=True)
class Slice:
    """One tensor that has an entry per channel along `dim`: `path` as in `named_parameters` or `named_buffers`."""

    path: str
    dim: int


@dataclass(frozen=True)
class Group:
    """`size` channels: the tensors that make them (`producers`) and the `nn.Linear` that reads them.

    The reader's columns are tap-major: column k * size + c belongs to channel c, for k < taps.
    """

    name: str
    size: int
    producers: tuple[Slice, ...]
    reader: str
    taps: int = 1


def rows(path: str, linear: nn.Module) -> tuple[Slice, ...]:
    """The rows of a linear layer, with its bias."""
    return (Slice(f"{path}.weight", 0), *((Slice(f"{path}.bias", 0),) if getattr(linear, "bias", None) is not None else ()))


def norm_entries(path: str, norm: nn.Module) -> tuple[Slice, ...]:
    """The per-channel tensors of a batch norm, or of what folding left of it."""
    if isinstance(norm, BatchNorm):
        return tuple(Slice(f"{path}.{name}", 0) for name in ("weight", "bias", "running_mean", "running_var"))
    return (Slice(f"{path}.sign", 0),) if isinstance(norm, Sign) else ()


def columns(group: Group, keep: Sequence[int]) -> list[int]:
    """The reader's columns of the channels `keep`."""
    return [tap * group.size + c for tap in range(group.taps) for c in keep]


def delete(body: nn.Module, group: Group, keep: Sequence[int]) -> None:
    """Physically remove all channels but `keep` (ascending) from `body`."""
    kept = torch.tensor(list(keep))
    for piece in group.producers:
        _cut(body, piece, kept)
    _cut(body, Slice(f"{group.reader}.weight", 1), torch.tensor(columns(group, keep)))
    for module in body.modules():
        if isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, BatchNorm):
            module.num_features = module.weight.numel()


def _cut(body: nn.Module, piece: Slice, kept: Tensor) -> None:
    parent_path, _, name = piece.path.rpartition(".")
    parent = body.get_submodule(parent_path)
    old = getattr(parent, name)
    new = old.detach().index_select(piece.dim, kept.to(old.device))
    if isinstance(old, nn.Parameter):
        setattr(parent, name, nn.Parameter(new, requires_grad=old.requires_grad))
    else:
        setattr(parent, name, new)
