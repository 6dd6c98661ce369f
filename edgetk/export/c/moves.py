"""Operators that only move elements: no step is made for them, the parts of memory are named anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgetk.export.c.graph import Node, refuse
from edgetk.export.c.operands import Codes, Constant, Expression, Memory, Operand, Segment
from edgetk.export.c.planner import Planner
from edgetk.export.c.steps import Strided


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


#: parts of memory that a tensor may lie in before it is moved together, where its order is regular, and else
FEW_PARTS, MOST_PARTS = 16, 1024


def _indices(planner: Planner, node: Node, pick: Callable[[np.ndarray], np.ndarray]) -> Operand:
    """What `pick` does to the positions of the node's first input, done to its elements."""
    value = planner.operand(node.inputs[0])
    places = pick(np.arange(value.size).reshape(value.shape))
    if isinstance(value, Constant):
        return Constant(value.array.reshape(-1)[places])
    if isinstance(value, Codes):
        return Codes(_moved(planner, value.memory, places, node), value.grid)
    return _moved(planner, planner.memory(value, node.inputs[0]), places, node)


def _moved(planner: Planner, value: Memory, places: np.ndarray, node: Node) -> Memory:
    """The elements `places`: named anew where they lie in few parts, else copied in their new order."""
    flat = places.reshape(-1)
    parts = 1 + int(np.count_nonzero(np.diff(flat) != 1))
    found = _affine(places) if parts > FEW_PARTS else None
    if found is None and parts <= MOST_PARTS:
        return _picked(value, places)
    if found is None:
        raise refuse("elements must be moved in a regular order", f"{node.kind} {node.name}", "write it another way")
    start, sizes, steps = found
    source = planner.contiguous(value, node.inputs[0])
    target = planner.buffer(node.outputs[0], flat.size, source.buffer.dtype)
    last = start + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    to_steps = tuple(int(np.prod(sizes[i + 1 :])) for i in range(len(sizes)))
    planner.steps.append(Strided(target, source.part(start, last + 1 - start), sizes, steps, to_steps))
    return Memory((target,), tuple(places.shape), value.flag)


def _affine(places: np.ndarray) -> tuple[int, tuple[int, ...], tuple[int, ...]] | None:
    """First position, sizes and steps of positions that are a sum over the axes; axes that go together are one."""
    start = int(places.reshape(-1)[0])
    sizes: list[int] = []
    steps: list[int] = []
    grid = np.full((1,) * places.ndim, start)
    for axis, size in enumerate(places.shape):
        first = places[tuple(slice(None) if a == axis else slice(0, 1) for a in range(places.ndim))].reshape(-1)
        step = int(first[1] - first[0]) if size > 1 else 0
        grid = grid + (step * np.arange(size)).reshape([-1 if a == axis else 1 for a in range(places.ndim)])
        if size == 1:
            continue
        if steps and steps[-1] == step * size:
            sizes[-1], steps[-1] = sizes[-1] * size, step
        else:
            sizes.append(size)
            steps.append(step)
    if not np.array_equal(grid, places) or min(steps, default=0) < 0:
        return None
    return start, tuple(sizes), tuple(steps)


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


def shape(planner: Planner, node: Node) -> Operand:
    """The sizes of a tensor, which are constants here."""
    return Constant(np.array(planner.graph.shapes[node.inputs[0]], np.int64))


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
    values = [planner.operand(name) for name in node.inputs]
    if all(isinstance(v, Constant) for v in values):
        return Constant(np.concatenate([v.array for v in values if isinstance(v, Constant)], axis=axis))
    if any(size != 1 for size in shape[:axis]):
        return _side_by_side(planner, node, values, shape, axis)
    if all(isinstance(v, Codes) for v in values):
        grids = {v.grid for v in values if isinstance(v, Codes)}
        if len(grids) == 1:
            segments = tuple(s for v in values if isinstance(v, Codes) for s in v.memory.segments)
            return Codes(Memory(segments, shape), grids.pop())
    memories = [planner.memory(v, name) for v, name in zip(values, node.inputs, strict=True)]
    return Memory(tuple(s for m in memories for s in m.segments), shape, memories[0].flag)


def _side_by_side(planner: Planner, node: Node, values: Sequence[Operand], shape: tuple[int, ...], axis: int) -> Memory:
    """Tensors joined along an axis that is not their first: each is copied into its columns of every row."""
    outer, row = int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))
    memories = [planner.memory(v, name) for v, name in zip(values, node.inputs, strict=True)]
    target, start = planner.buffer(node.outputs[0], outer * row), 0
    for memory, name in zip(memories, node.inputs, strict=True):
        width = memory.size // outer
        part = target.part(start, (outer - 1) * row + width)
        planner.steps.append(Strided(part, planner.contiguous(memory, name), (outer, width), (width, 1), (row, 1)))
        start += width
    return Memory((target,), shape, memories[0].flag)


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
