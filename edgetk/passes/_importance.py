"""How much channels, heads, groups of neurons and blocks matter, without a search: by their weights, or by the loss.

Sources: magnitude, the l2 form of Li et al. 2017, arXiv:1608.08710; Taylor, Molchanov et al. 2019, arXiv:1906.10771 (first
order, with a gate on what is removed):

    magnitude   sum of w^2 over the matrices of what goes: the squared l2 norm
    taylor      root of the mean over examples of (sum of g w)^2, over the weights that read it, with g the gradient of the
                example's loss

The second sum is the derivative of the loss by a gate on the channel, for the layer that reads it is linear. Biases and norms
count in neither. Both are compared by what an element costs: importance per parameter.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import TrainingData
from edgetk.core.errors import PreconditionError
from edgetk.models.layers.elements import Block, parameters_of
from edgetk.models.layers.groups import Group
from edgetk.passes._fisher import gradients
from edgetk.passes._least_squares import Point


def require_gradients(bundle: Bundle, criterion: str, who: str) -> None:
    """Raise PreconditionError where a criterion needs what is not there."""
    if criterion == "taylor" and not isinstance(bundle.data, TrainingData):
        raise PreconditionError(
            f"{who}: taylor needs training data, for its gradients, got none for {bundle.name}; use magnitude or give --data"
        )


def channels(bundle: Bundle, groups: Sequence[Group], criterion: str, examples: int) -> dict[str, Tensor]:
    """Importance (size,) of every channel of every group, float64."""
    if criterion == "magnitude":
        return {group.name: _squares(bundle.module, group) for group in groups}
    total = {group.name: torch.zeros(group.size, dtype=torch.float64) for group in groups}
    count = 0
    for products in _gated(bundle, [group.reader for group in groups], examples):
        count += 1
        for group, product in zip(groups, products, strict=True):
            total[group.name] += _by_channel(product, group).square()
    return {name: (sums / count).sqrt() for name, sums in total.items()}


def elements(bundle: Bundle, blocks: Sequence[Block], criterion: str, examples: int) -> dict[str, float]:
    """Importance of the blocks and parts that have channels, by name. That of a block is not the sum of its parts'."""
    known = [b for b in blocks if b.group is not None]
    groups = [b.group for b in known if b.group is not None]
    found: dict[str, float] = {}
    if criterion == "magnitude":
        for block, group in zip(known, groups, strict=True):
            squares = _squares(bundle.module, group)
            found[block.name] = float(squares.sum())
            found |= {p.name: float(squares[p.first : p.last].sum()) for p in block.parts}
        return found
    count = 0
    for products in _gated(bundle, [group.reader for group in groups], examples):
        count += 1
        for block, group, product in zip(known, groups, products, strict=True):
            gates = _by_channel(product, group)
            found[block.name] = found.get(block.name, 0.0) + float(gates.sum().square())
            for part in block.parts:
                found[part.name] = found.get(part.name, 0.0) + float(gates[part.first : part.last].sum().square())
    return {name: (total / count) ** 0.5 for name, total in found.items()}


def ranked(scores: Tensor, smallest: int) -> list[Point]:
    """Channels in the order in which they go, least important first, as an elimination has it; `smallest` stay at least."""
    order = scores.argsort(stable=True).tolist()
    first = len(order) - smallest
    whole = Point(tuple(range(len(order))), 0.0)
    return [whole, Point(tuple(sorted(order[first:])), 0.0, tuple(order[:first]))]


def least(blocks: Sequence[Block], scores: Mapping[str, float], share: float) -> frozenset[str]:
    """The elements that go first, by importance per parameter, until no other fits into `share` of all their parameters."""
    budget = share * sum(b.parameters for b in blocks)
    entries = []
    for block in blocks:
        sizes = {p.name: p.parameters for p in block.parts} | ({block.name: block.parameters} if block.whole else {})
        entries += [(scores[name] / max(size, 1), name, block) for name, size in sizes.items() if name in scores]
    removed: frozenset[str] = frozenset()
    for _, name, block in sorted(entries, key=lambda e: e[0]):
        if block.name in removed:
            continue
        parts = {p.name for p in block.parts}
        candidate = removed - parts | {name} if name == block.name else removed | {name}
        last = not block.whole and parts <= candidate  # of what cannot go whole
        if not last and parameters_of(blocks, candidate) <= budget:
            removed = candidate
    return removed


def _squares(body: nn.Module, group: Group) -> Tensor:
    """Sums (size,) of the squared weights of each channel: what makes it and what reads it."""
    total = torch.zeros(group.size, dtype=torch.float64)
    for piece in group.producers:
        tensor: Tensor = operator.attrgetter(piece.path)(body)
        if tensor.dim() > 1:
            lines = tensor.detach().double().movedim(piece.dim, 0).flatten(1).square().sum(1)
            total += lines.view(piece.copies, group.size).sum(0)
    reader: Tensor = operator.attrgetter(f"{group.reader}.weight")(body)
    return total + _by_channel(reader.detach().double().square().sum(0), group)


def _by_channel(columns: Tensor, group: Group) -> Tensor:
    """Numbers (taps * size,) of a reader's columns, summed for each channel: (size,)."""
    return columns.view(group.taps, group.size).sum(0)


def _gated(bundle: Bundle, readers: Collection[str], examples: int) -> list[list[Tensor]]:
    """For each example the sums (columns,) over outputs of gradient times weight, for each reader, float64."""
    weights = [operator.attrgetter(f"{name}.weight")(bundle.module) for name in readers]
    return [
        [(g.double() * w.detach().double()).sum(0) for g, w in zip(found, weights, strict=True)]
        for found in gradients(bundle, weights, examples)
    ]


__all__ = ["channels", "elements", "least", "ranked", "require_gradients"]
