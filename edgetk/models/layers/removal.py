"""Takes declared elements out of a module: with masks that come off again, or for good.

`Masks` swaps and zeroes what is removed and copies only what changes; `delete` makes tensors smaller and puts `Gone` in the
places of whole blocks. Both compute the same (tests/models/test_elements.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from edgetk.models.layers import groups
from edgetk.models.layers.elements import Block, Constant, Gone, channels_left, find, tensor
from edgetk.models.layers.groups import columns


class Masks:
    """A body with elements switched off and on again.

    `refit` gives for a memory's name and a lower order the weights (out, order + D) of its reader.
    """

    def __init__(
        self,
        body: nn.Module,
        blocks: Sequence[Block],
        refit: Mapping[str, Callable[[int], Tensor]] = MappingProxyType({}),
    ) -> None:
        self._body, self._blocks, self._refit = body, tuple(blocks), refit
        self._undo: list[Callable[[], None]] = []

    @torch.no_grad()
    def set(self, removed: Collection[str], hard: Mapping[str, int] = MappingProxyType({})) -> None:
        """From now on the elements `removed` are off and no others; `hard`: attentions' names -> probabilities they keep."""
        for undo in reversed(self._undo):
            undo()
        self._undo = []
        for of in self._blocks:
            if of.name in removed:
                for path in of.paths:
                    self._swap(path, Gone())
                continue
            if of.memory is not None and of.order(removed) < of.memory.order:
                self._lower(of, of.order(removed))
            elif of.group is not None and any(p.name in removed for p in of.parts):
                self._zero(of, removed)
            if of.name in hard:
                self._harden(of.hard, hard[of.name])

    def _swap(self, path: str, new: nn.Module) -> None:
        old = self._body.get_submodule(path)
        self._body.set_submodule(path, new)
        self._undo.append(lambda: self._body.set_submodule(path, old))

    def _zero(self, of: Block, removed: Collection[str]) -> None:
        assert of.group is not None
        staying = set(channels_left(of, removed))
        away = columns(of.group, [c for c in range(of.group.size) if c not in staying])
        weight, index = tensor(self._body, f"{of.group.reader}.weight"), torch.tensor(away)
        index = index.to(weight.device)
        before = weight[:, index].clone()
        weight[:, index] = 0.0
        self._undo.append(lambda: _put(weight, index, before))

    def _lower(self, of: Block, order: int) -> None:
        memory = of.memory
        assert memory is not None
        mixer: Any = self._body.get_submodule(memory.mixer)
        reader: Any = self._body.get_submodule(memory.reader)
        old, weight, width = mixer.memory, reader.weight, reader.in_features

        def undo() -> None:
            mixer.memory, reader.weight, reader.in_features = old, weight, width

        self._undo.append(undo)
        memory.resize(self._body, order)
        mixer.memory.to(weight.device)
        reader.weight.copy_(self._refit[of.name](order))

    def _harden(self, path: str, count: int) -> None:
        attention: Any = self._body.get_submodule(path)
        before = attention.hard
        attention.hard = count
        self._undo.append(lambda: setattr(attention, "hard", before))


@torch.no_grad()
def delete(
    body: nn.Module,
    blocks: Sequence[Block],
    removed: Collection[str],
    hard: Mapping[str, int] = MappingProxyType({}),
    refit: Mapping[str, Callable[[int], Tensor]] = MappingProxyType({}),
) -> None:
    """Physically remove elements from `body`; `hard` and `refit` as `Masks` takes them.

    A memory's reader keeps its weights of the lower orders where nothing refits it: what comes from a file replaces them.
    """
    find(blocks, [*removed, *hard])
    for of in blocks:
        if of.memory is not None and (order := of.order(removed)) < of.memory.order:
            weight = refit[of.name](order) if of.name in refit else None
            of.memory.resize(body, order)
            if weight is not None:
                tensor(body, f"{of.memory.reader}.weight").copy_(weight)
    for of in blocks:
        if of.name in removed:
            for path in of.paths:
                body.set_submodule(path, Gone())
            continue
        if of.name in hard:
            attention: Any = body.get_submodule(of.hard)
            attention.hard = hard[of.name]
        if of.group is not None and any(p.name in removed for p in of.parts):
            _cut(body, of, channels_left(of, removed))


def _cut(body: nn.Module, of: Block, left: list[int]) -> None:
    assert of.group is not None
    if left:
        groups.delete(body, of.group, left)
        return
    *chain, last = of.paths
    bias = tensor(body, of.bias) if of.bias else None
    for path in chain:
        body.set_submodule(path, Gone())
    body.set_submodule(last, Gone() if bias is None else Constant(bias))


def _put(weight: Tensor, index: Tensor, before: Tensor) -> None:
    with torch.no_grad():
        weight[:, index] = before


__all__ = ["Masks", "delete"]
