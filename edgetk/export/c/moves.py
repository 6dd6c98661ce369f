"""Operators that only move elements: no step is made for them, the parts of memory are named anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgetk.export.c.graph import Node, refuse
from edgetk.export.c.planner import Planner
from edgetk.export.c.steps import Codes, Constant, Expression, Memory, Operand, Segment


def view(planner: Planner, node: Node) -> Operand:
    value, shape = planner.operand(node.inputs[0]), planner.graph.shapes[node.outputs[0]]
    if isinstance(value, Constant):
        return Constant(value.array.reshape(shape))
    if isinstance(value, Codes):
        return Codes(Memory(value.memory.segments, shape), value.grid)
    memory = planner.memory(value, node.inputs[0])
    return Memory(memory.segments, shape, memory.flag)


def _picked(value: Memory, index: np.ndarray) -> Memory:
    """The elements `index` (row-major, of any shape) of a tensor in memory, as segments."""
    home = [s.part(i, 1) for s in value.segments for i in range(s.size)]
    return Memory(tuple(joined([home[i] for i in index.reshape(-1)])), tuple(index.shape), value.flag)


def _indices(planner: Planner, node: Node, pick: Callable[[np.ndarray], np.ndarray]) -> Operand:
    """What `pick` does to the positions of the node's first input, done to its elements."""
    value = planner.operand(node.inputs[0])
    places = pick(np.arange(value.size).reshape(value.shape))
    if isinstance(value, Constant):
        return Constant(value.array.reshape(-1)[places])
    if isinstance(value, Codes):
        return Codes(_picked(value.memory, places), value.grid)
    return _picked(planner.memory(value, node.inputs[0]), places)


def slice_(planner: Planner, node: Node) -> Operand:
    starts, ends = planner.constant(node, 1), planner.constant(node, 2)
    axes = planner.optional(node, 3)
    steps = planner.optional(node, 4)

    def pick(places: np.ndarray) -> np.ndarray:
        for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
            axis = int(axes[i]) if axes is not None else i
            key: list[slice] = [slice(None)] * places.ndim
            key[axis] = slice(
                int(start), int(end) if abs(int(end)) < 1 << 31 else None, int(steps[i]) if steps is not None else 1
            )
            places = places[tuple(key)]
        return places

    return _indices(planner, node, pick)


def gather(planner: Planner, node: Node) -> Operand:
    chosen = planner.constant(node, 1)
    return _indices(planner, node, lambda places: np.take(places, chosen, axis=int(node.attributes.get("axis", 0))))


def transpose(planner: Planner, node: Node) -> Operand:
    return _indices(planner, node, lambda places: np.transpose(places, node.attributes.get("perm")))


def split(planner: Planner, node: Node) -> Operand:
    sizes = planner.constant(node, 1)
    axis = int(node.attributes.get("axis", 0))
    ends = np.cumsum(sizes)
    value = planner.operand(node.inputs[0])
    if isinstance(value, Expression):
        planner.values[node.inputs[0]] = planner.memory(value, node.inputs[0])
    parts = []
    for end, size in zip(ends, sizes, strict=True):
        keep = np.arange(end - size, end)
        parts.append(_indices(planner, node, lambda places, keep=keep: np.take(places, keep, axis=axis)))  # type: ignore[misc]
    for name, part in zip(node.outputs[1:], parts[1:], strict=True):
        planner.values[name] = part
    return parts[0]


def concat(planner: Planner, node: Node) -> Operand:
    shape = planner.graph.shapes[node.outputs[0]]
    axis = int(node.attributes["axis"]) % len(shape)
    if any(size != 1 for size in shape[:axis]):
        raise refuse(
            "Concat must join whole tensors", f"{node.name} along axis {axis} of {list(shape)}", "export the stream form"
        )
    values = [planner.operand(name) for name in node.inputs]
    if all(isinstance(v, Constant) for v in values):
        return Constant(np.concatenate([v.array for v in values if isinstance(v, Constant)], axis=axis))
    if all(isinstance(v, Codes) for v in values):
        grids = {v.grid for v in values if isinstance(v, Codes)}
        if len(grids) == 1:
            segments = tuple(s for v in values if isinstance(v, Codes) for s in v.memory.segments)
            return Codes(Memory(segments, shape), grids.pop())
    memories = [planner.memory(v, name) for v, name in zip(values, node.inputs, strict=True)]
    return Memory(tuple(s for m in memories for s in m.segments), shape, memories[0].flag)


def joined(segments: Sequence[Segment]) -> list[Segment]:
    """The same elements in as few segments as can be."""
    made: list[Segment] = []
    for segment in segments:
        last = made[-1] if made else None
        if last is not None and last.buffer is segment.buffer and last.start + last.size == segment.start:
            made[-1] = Segment(last.buffer, last.start, last.size + segment.size)
        else:
            made.append(segment)
    return made
