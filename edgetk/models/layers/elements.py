"""What a module declares to pruning by blocks: blocks and their parts, and what each is worth in parameters and products.

A module offers `elements()`: its blocks in order of computation. A block (an attention, a feed-forward network) holds parts
(heads, groups of neurons, steps of a memory's order). Without a block the sum around it stays: `x + block(x)` becomes `x`; a
forward pass asks `gone(block)`. Without a part its channels are zero where they are read; the reader's bias stays.
`edgetk.models.layers.removal` takes them away, for a try or for good.

`steps()`, where a module has it, are the functions whose composition is its whole-input form; `Block.step` counts them, so
that a change needs only the steps from its own on.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from edgetk.core.errors import PreconditionError, closest
from edgetk.models.layers.groups import Group, MemoryGroup

#: neurons of a feed-forward network that are removed together
NEURONS = 256


@dataclass(frozen=True)
class Part:
    """Channels [first, last) of a block's group, or the orders [first, last) of its memory.

    `parameters` go with it; so do `macs` multiply-accumulates of a whole input.
    """

    name: str
    first: int
    last: int
    parameters: int
    macs: int


@dataclass(frozen=True)
class Block:
    """One block.

    kind        "attention", "ffn", "channels" or "memory"
    step       the first of the module's `steps()` that a change of it changes
    parameters, macs   what goes with the whole block; of a whole input
    paths       modules that become `Gone` with it, what makes its output last; (): it cannot go whole, and its last part stays
    parts       in the order in which they are tried; a memory's go in turn, from the highest order down
    group, memory   what the parts are channels, or orders, of
    bias        tensor of `left` numbers that is the output once all parts are gone; "": that is zero, and nothing stays
    hard        module whose softmax may keep its largest probabilities only, not renormalised: as many as its attribute
                `hard: int` says, 0: all; "": none
    """

    name: str
    kind: str
    step: int
    parameters: int
    macs: int
    paths: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    group: Group | None = None
    memory: MemoryGroup | None = None
    bias: str = ""
    hard: str = ""
    left: int = 0

    @property
    def whole(self) -> bool:
        """Whether the block can go as a whole."""
        return bool(self.paths)

    @property
    def in_turn(self) -> bool:
        """Whether a part can only go when those before it are gone."""
        return self.memory is not None

    def order(self, removed: Collection[str]) -> int:
        """The order that its memory has without the parts `removed`."""
        assert self.memory is not None
        return min([self.memory.order, *(p.first for p in self.parts if p.name in removed)])


class Gone(nn.Module):
    """In the place of what was removed. A sum around it leaves it out; in a chain it passes on what it gets."""

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        return x


class Constant(nn.Module):
    """What is left of a block without parts: the bias (C,) of its last layer, whatever it reads."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias.detach().clone())

    def forward(self, *_: Any) -> Tensor:
        return self.bias


def gone(module: nn.Module) -> bool:
    """Whether a block was removed: its sum is to be left out."""
    return isinstance(module, Gone)


def declared(body: nn.Module, neurons: int = NEURONS) -> tuple[Block, ...]:
    """The blocks that a module says can be removed, feed-forward networks in groups of `neurons`.

    Raises PreconditionError where it declares none, or names one twice or a step that it does not have.
    """
    if not hasattr(body, "elements"):
        raise PreconditionError(
            f"elements: the module must declare what can be removed by a method elements(), got {type(body).__name__} "
            "without one; add it (see docs/adding-a-model.md)"
        )
    blocks: tuple[Block, ...] = body.elements(neurons=neurons)  # type: ignore[operator]
    names = [n for b in blocks for n in (b.name, *(p.name for p in b.parts))]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise PreconditionError(f"elements: a name must belong to one element, got {twice[0]} twice; rename one of them")
    steps = len(body.steps()) if hasattr(body, "steps") else 1  # type: ignore[operator]
    for of in blocks:
        if not 0 <= of.step < steps:
            raise PreconditionError(
                f"elements: the step of {of.name} must be in [0, {steps - 1}], one of the module's steps(), "
                f"got {of.step}; correct it"
            )
    return blocks


def plain(module: nn.Module, *names: str) -> bool:
    """Whether all these layers of a module are linear ones that nothing was done to."""
    return all(type(getattr(module, name)) is nn.Linear for name in names)


def block(
    body: nn.Module,
    name: str,
    kind: str,
    step: int,
    group: Group | None = None,
    width: int = 0,
    runs: int = 1,
    more_macs: int = 0,
    paths: Sequence[str] = (),
    bias: str = "",
    hard: str = "",
) -> Block:
    """A block of `body` with all numbers counted: parts of `width` channels of `group` each (the last may have fewer).

    Every weight is used `runs` times for a whole input; `more_macs` is what the block computes besides, shared by its parts.
    """
    owned = [p for path in paths for p in body.get_submodule(path).parameters()]
    parameters = sum(p.numel() for p in owned)
    macs = runs * sum(p.numel() for p in owned if p.dim() > 1) + more_macs
    parts = []
    if group is not None:
        tensors = [tensor(body, path) for path in (*(piece.path for piece in group.producers), f"{group.reader}.weight")]
        every = sum(t.numel() for t in tensors)
        weights = sum(t.numel() for t in tensors if t.dim() > 1)
        if not paths:
            parameters, macs = every, runs * weights + more_macs
        for index, first in enumerate(range(0, group.size, width)):
            count = min(width, group.size - first)
            own = runs * weights * count // group.size + more_macs * count // group.size
            parts.append(Part(f"{name}.{index}", first, first + count, every * count // group.size, own))
    left = tensor(body, bias).numel() if bias else 0
    return Block(name, kind, step, parameters, macs, tuple(paths), tuple(parts), group, None, bias, hard, left)


def memory_block(body: nn.Module, memory: MemoryGroup, step: int, steps: int = 8, runs: int = 1) -> Block:
    """A memory whose order may fall by `steps` equal steps, down to the lowest."""
    reader: Any = body.get_submodule(memory.reader)
    bounds = [memory.order * i // steps for i in range(1, steps + 1)]
    parts = []
    for index, (low, high) in enumerate(sorted(itertools.pairwise(bounds), reverse=True)):
        squares = high * (high + 1) - low * (low + 1)
        parameters = (high - low) * reader.out_features
        parts.append(Part(f"{memory.name}.{index}", low, high, parameters, runs * (squares + parameters)))
    reading = memory.order * reader.out_features
    macs = runs * (memory.order * (memory.order + 1) + reading)
    return Block(memory.name, "memory", step, reading, macs, parts=tuple(parts), memory=memory)


def find(blocks: Sequence[Block], names: Collection[str]) -> None:
    """Raise PreconditionError for a name that is neither a block nor a part."""
    known = {b.name for b in blocks} | {p.name for b in blocks for p in b.parts}
    for name in names:
        if name not in known:
            raise PreconditionError(f"elements: a name must be one of the model's, got {name!r}; {closest(name, known)}")


def channels_left(of: Block, removed: Collection[str]) -> list[int]:
    """The channels of a block's group that stay, ascending."""
    assert of.group is not None
    away = {c for p in of.parts if p.name in removed for c in range(p.first, p.last)}
    return [c for c in range(of.group.size) if c not in away]


def tensor(body: nn.Module, path: str) -> Tensor:
    """A parameter or buffer of `body` by its dotted name."""
    parent, _, name = path.rpartition(".")
    found: Tensor = getattr(body.get_submodule(parent), name)
    return found


def parameters_of(blocks: Sequence[Block], removed: Collection[str]) -> int:
    """Parameters that go with the elements `removed`; those that two of them share are counted twice (`LMUFormer`'s only)."""
    return sum(n for n, _ in _costs(blocks, removed))


def macs_of(blocks: Sequence[Block], removed: Collection[str]) -> int:
    """Multiply-accumulates of a whole input that go with the elements `removed`."""
    return sum(n for _, n in _costs(blocks, removed))


def _costs(blocks: Sequence[Block], removed: Collection[str]) -> Iterator[tuple[int, int]]:
    for of in blocks:
        if of.name in removed:
            yield of.parameters, of.macs
        elif of.whole and of.parts and {p.name for p in of.parts} <= set(removed):
            yield of.parameters - of.left, of.macs
        else:
            yield from ((p.parameters, p.macs) for p in of.parts if p.name in removed)


__all__ = [
    "NEURONS",
    "Block",
    "Constant",
    "Gone",
    "Part",
    "block",
    "channels_left",
    "declared",
    "find",
    "gone",
    "macs_of",
    "memory_block",
    "parameters_of",
    "plain",
    "tensor",
]
