"""What is known while the nodes of a graph are gone through in order: values so far, steps so far, constant data."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgetk.export.c.graph import Graph, Node, refuse
from edgetk.export.c.names import Names
from edgetk.export.c.operands import (
    FLOAT,
    Array,
    Buffer,
    Codes,
    Constant,
    Memory,
    Operand,
    Place,
    Segment,
    Weights,
    dequantized,
)
from edgetk.export.c.steps import Copy, Loop, Step


@dataclass
class Planner:
    """What is known while the nodes of a graph are gone through in order."""

    graph: Graph
    names: Names = field(default_factory=Names)
    values: dict[str, Operand] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    arrays: dict[tuple[str, bytes], Array] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)

    def operand(self, name: str) -> Operand:
        return self.values[name] if name in self.values else Constant(self.graph.constants[name])

    def constant(self, node: Node, index: int) -> np.ndarray:
        """Input `index` of a node, which must be a constant."""
        name = node.inputs[index]
        if name not in self.graph.constants:
            raise refuse(
                f"input {index} of {node.kind} must be a constant", f"{node.name}", "keep this layer out of the C export"
            )
        return self.graph.constants[name]

    def optional(self, node: Node, index: int) -> np.ndarray | None:
        return self.constant(node, index) if len(node.inputs) > index and node.inputs[index] else None

    def array(self, name: str, values: np.ndarray, dtype: str) -> Array:
        """Constant data under a free name; equal data is stored once."""
        key = (dtype, values.tobytes())
        if key not in self.arrays:
            self.arrays[key] = Array(self.names.free(name), dtype, values)
        return self.arrays[key]

    def buffer(self, name: str, size: int, dtype: str = FLOAT, place: Place = "arena") -> Segment:
        return Segment(Buffer(self.names.free(name), place, dtype, size), 0, size)

    def expressible(self, name: str) -> Operand:
        """A value as an expression can read it: in one segment, larger constants stored."""
        value = self.operand(name)
        if isinstance(value, Weights):
            value = Constant(dequantized(value))
        if isinstance(value, Memory) and len(value.segments) > 1:
            return Memory((self.contiguous(value, name),), value.shape, value.flag)
        if isinstance(value, Constant) and value.size > 1:
            return Constant(value.array, self.array(name, value.array.astype(np.float32), FLOAT))
        return value

    def count(self, kind: str, macs: int) -> None:
        self.macs[kind] = self.macs.get(kind, 0) + macs

    def memory(self, value: Operand, name: str) -> Memory:
        """The value as float32 (or flags) in memory, computed now if it was not yet."""
        if isinstance(value, Memory):
            return value
        place = self.buffer(name, value.size)
        self.steps.append(Loop(place, value))
        return Memory((place,), value.shape, getattr(value, "flag", False))

    def contiguous(self, value: Operand, name: str) -> Segment:
        """The value's only segment; several ones are copied together."""
        memory = value.memory if isinstance(value, Codes) else self.memory(value, name)
        return memory.segments[0] if len(memory.segments) == 1 else self.together(memory, name)

    def together(self, memory: Memory, name: str) -> Segment:
        """A copy of all segments, one after another."""
        place = self.buffer(name, memory.size, memory.segments[0].buffer.dtype)
        start = 0
        for segment in memory.segments:
            self.steps.append(Copy(place.part(start, segment.size), segment))
            start += segment.size
        return place
