"""What a module declares to structured pruning: which channels may go together, and how a body loses them.

A module offers `groups()`; a channel of a group is one row of what makes it, one entry of what scales it, and one column of
the one linear layer that reads it (`taps` columns where it reads a window of frames). Residual streams, which many layers
read, are not groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn

from edgetk.models.layers.lmu import LegendreMemory
from edgetk.models.layers.norm import BatchNorm, Sign


@dataclass(frozen=True)
class Slice:
    """One tensor that has an entry per channel along `dim`: `path` as in `named_parameters` or `named_buffers`.

    `copies`: so many times as many entries, all channels' first ones before all second ones (queries, keys, values in one).
    """

    path: str
    dim: int
    copies: int = 1


@dataclass(frozen=True)
class Group:
    """`size` channels: the tensors that make them (`producers`) and the `nn.Linear` that reads them.

    The reader's columns are tap-major: column k * size + c belongs to channel c, for k < taps. A producer may be a depthwise
    convolution. `runs`: how often its layers compute for an input, where groups of one model differ in that.
    """

    name: str
    size: int
    producers: tuple[Slice, ...]
    reader: str
    taps: int = 1
    runs: int = 1


def rows(path: str, linear: nn.Module, copies: int = 1) -> tuple[Slice, ...]:
    """The rows of a linear layer, with its bias."""
    names = ("weight", "bias") if getattr(linear, "bias", None) is not None else ("weight",)
    return tuple(Slice(f"{path}.{name}", 0, copies) for name in names)


def norm_entries(path: str, norm: nn.Module) -> tuple[Slice, ...]:
    """The per-channel tensors of a batch norm, or of what folding left of it."""
    if isinstance(norm, BatchNorm):
        return tuple(Slice(f"{path}.{name}", 0) for name in ("weight", "bias", "running_mean", "running_var"))
    return (Slice(f"{path}.sign", 0),) if isinstance(norm, Sign) else ()


def is_depthwise(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """True for a plain convolution of each channel by itself."""
    return type(module) is nn.Conv2d and module.groups == module.in_channels == module.out_channels > 1


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
        elif is_depthwise(module):
            module.in_channels = module.out_channels = module.groups = module.weight.shape[0]


def _cut(body: nn.Module, piece: Slice, kept: Tensor) -> None:
    parent_path, _, name = piece.path.rpartition(".")
    parent = body.get_submodule(parent_path)
    old = getattr(parent, name)
    size = old.shape[piece.dim] // piece.copies
    index = torch.cat([kept + copy * size for copy in range(piece.copies)])
    new = old.detach().index_select(piece.dim, index.to(old.device))
    if isinstance(old, nn.Parameter):
        setattr(parent, name, nn.Parameter(new, requires_grad=old.requires_grad))
    else:
        setattr(parent, name, new)


#: ridge of a memory's refit, as a share of the mean diagonal: Legendre coefficients are nearly dependent, and weights that
#: cancel each other would not survive rounding
RIDGE = 1e-5


@dataclass(frozen=True)
class MemoryGroup:
    """A `LegendreMemory` and the linear layer that reads [m; x]; its order can be lowered and the reader refitted.

    `mixer` is the path of the module whose `memory` it is. m_t is linear in the last samples u_t, u_{t-1}, …, so the best
    weights of another order follow from the samples' second moments in closed form.
    """

    name: str
    mixer: str
    reader: str
    order: int

    def memory(self, body: nn.Module) -> LegendreMemory:
        found: LegendreMemory = body.get_submodule(self.mixer).memory  # type: ignore[assignment]
        return found

    def _reader(self, body: nn.Module) -> nn.Linear:
        found: nn.Linear = body.get_submodule(self.reader)  # type: ignore[assignment]
        return found

    @contextmanager
    def observed(self, body: nn.Module, add: Callable[[Tensor], None]) -> Iterator[None]:
        """Within the block, `add` gets rows [u_t … u_{t-L+1}; x_t] (B, T, L + D) of every whole input that runs."""
        memory, windows = self.memory(body), []
        clip = memory.clip

        def record(u: Tensor) -> Tensor:
            length = u.shape[1]
            wide = torch.nn.functional.pad(u.float(), (length - 1, 0))
            windows.append(wide.unfold(1, length, 1).flip(2))
            return clip(u)

        def read(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            lags = windows.pop()
            add(torch.cat([lags, args[0][..., memory.order :]], dim=-1))

        handle = body.get_submodule(self.reader).register_forward_pre_hook(read)
        memory.clip = record  # type: ignore[method-assign]
        try:
            yield
        finally:
            del memory.clip
            handle.remove()

    def refit(self, body: nn.Module, order: int, second: Tensor) -> tuple[Tensor, float]:
        """The reader's best weights (out, order + D) with a memory of `order`, and the share of output variance lost.

        `second` (L + D + 1, L + D + 1): moments of the rows that `observed` gives, with a constant 1 last.
        """
        memory, reader = self.memory(body), self._reader(body)
        weight = reader.weight.detach().double()
        width = weight.shape[1] - memory.order
        length = len(second) - width - 1
        other = LegendreMemory(order, memory.theta, memory.length)
        passing = torch.eye(width + 1, dtype=torch.float64)[:width]
        target = torch.cat(
            [weight[:, : memory.order] @ memory.response(length).double(), weight[:, memory.order :] @ passing], dim=1
        )
        features = torch.block_diag(other.response(length).double(), passing)  # type: ignore[no-untyped-call]
        products = features @ second @ features.T
        products += RIDGE * products.diagonal().mean() * torch.eye(len(products), dtype=torch.float64)
        solved = torch.linalg.solve(products, features @ second @ target.T).T
        mean = second[-1]
        gap = target - solved @ features
        total = ((target @ second) * target).sum() - (target @ mean).square().sum()
        lost = ((gap @ second) * gap).sum()
        return solved.float(), float(lost / total.clamp_min(1e-30))

    def resize(self, body: nn.Module, order: int) -> None:
        """Put a memory of `order` in place and cut the reader's columns to match; the weights come from `refit` or a file."""
        memory, reader = self.memory(body), self._reader(body)
        weight = reader.weight.detach()
        body.get_submodule(self.mixer).memory = LegendreMemory(order, memory.theta, memory.length)
        reader.weight = nn.Parameter(torch.cat([weight[:, :order], weight[:, memory.order :]], dim=1))
        reader.in_features = reader.weight.shape[1]
