"""A plan with its memory laid out: what the generated program stores, and how many bytes of flash and RAM it takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgetk.export.c.arena import Arena, lay_out
from edgetk.export.c.operands import WIDTH, Array, Buffer
from edgetk.export.c.steps import Convolve, Dense, Plan, arrays

#: bytes of the records that describe a layer, on a 32-bit processor: four pointers and four numbers; twelve numbers
LAYER_BYTES, SHAPE_BYTES = 32, 48


@dataclass(frozen=True)
class Program:
    """A plan with its memory laid out, ready to be written as the C program `name`."""

    name: str
    plan: Plan

    @cached_property
    def arena(self) -> Arena:
        return lay_out(self.plan.steps)

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """All constant data; each array is whole words, so that nothing lies between them."""
        starts = [
            Array(f"start_{b.name}", b.dtype, np.resize(v, -(-b.bytes // 4) * 4 // WIDTH[b.dtype]))
            for b, v in zip(self.plan.states, self.plan.starts, strict=True)
            if mixed(v)
        ]
        found = {a.name: a for step in self.plan.steps for a in arrays(step)} | {a.name: a for a in starts}
        return tuple(sorted(found.values(), key=lambda a: (-WIDTH[a.dtype], a.name)))

    @property
    def places(self) -> list[tuple[Buffer, int]]:
        """The states in the order of their struct, each with its offset in bytes: wide elements first, so without holes."""
        ordered, offset = [], 0
        for buffer in sorted(self.plan.states, key=lambda b: -WIDTH[b.dtype]):
            ordered.append((buffer, offset))
            offset += buffer.bytes
        return ordered

    @property
    def state_bytes(self) -> int:
        return -(-sum(b.bytes for b in self.plan.states) // 4) * 4

    @property
    def arena_bytes(self) -> int:
        return self.arena.size

    @property
    def constant_bytes(self) -> int:
        """Constant data in flash, the records of the layers included; not the code."""
        layers = sum(isinstance(s, Dense) for s in self.plan.steps) * LAYER_BYTES
        shapes = sum(isinstance(s, Convolve) for s in self.plan.steps) * SHAPE_BYTES
        return sum(a.bytes for a in self.arrays) + layers + shapes

    @property
    def macs(self) -> int:
        return sum(self.plan.macs.values())


def mixed(values: np.ndarray) -> bool:
    return bool(np.any(values != values[0]))
