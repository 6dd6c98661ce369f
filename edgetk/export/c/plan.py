"""Which step computes what: quantized products, element-wise loops, activation tables and copies, from a static graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from edgetk.core.signature import Signature
from edgetk.export.c import elementwise, products
from edgetk.export.c.graph import Graph, Node, read, refuse
from edgetk.export.c.names import Names
from edgetk.export.c.steps import (
    CODE, FLOAT, Array, Buffer, Codes, Constant, Copy, Expression, Grid, Loop, Memory, Operand, Place, Segment, Step,
    Weights, dequantized, segments_of,
)  # fmt: skip
from edgetk.export.c.table import tabulate

#: operators that leave the elements where they are
_VIEWS = frozenset({"Squeeze", "Unsqueeze", "Reshape", "Flatten", "Identity", "Dropout"})


@dataclass(frozen=True)
class Plan:
    """A step function: buffers of its interface, its steps in order, and what each state holds at the start of a stream."""

    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    states: tuple[Buffer, ...]
    starts: tuple[np.ndarray, ...]
    steps: tuple[Step, ...]
    macs: dict[str, int]


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
            raise refuse(f"input {index} of {node.kind} must be a constant", f"{node.name}", "keep this layer out of the C export")
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


def plan(model: onnx.ModelProto, signature: Signature) -> Plan:
    """The steps that compute one call of `model`.

    Raises PreconditionError for what generated C cannot express: an operator, a type, a shape.
    """
    planner = Planner(read(model))
    specs = (*signature.inputs, *signature.outputs, *(s.spec for s in signature.state))
    for spec in specs:
        if spec.dtype != "float32":
            raise refuse("inputs, outputs and states must be float32", f"{spec.name} {spec.dtype}", "keep numbers outside float")
    places: list[Place] = ["input"] * len(signature.inputs) + ["state"] * len(signature.state)
    for spec, place in zip((*signature.inputs, *(s.spec for s in signature.state)), places, strict=True):
        shape = spec.concrete()
        planner.values[spec.name] = Memory(
            (planner.buffer(spec.name.removeprefix("state_"), int(np.prod(shape)), place=place),), shape
        )
    own = [planner.values[s.spec.name] for s in signature.state]
    given = [planner.values[s.name] for s in signature.inputs]
    for node in planner.graph.nodes:
        _node(planner, node)
    outputs = [planner.buffer(s.name, int(np.prod(s.concrete())), place="output") for s in signature.outputs]
    results = [planner.operand(s.name) for s in signature.outputs] + [planner.operand(s.output) for s in signature.state]
    targets = [*outputs, *(segments[0] for segments in map(_segments, own))]
    _finish(planner, targets, results)
    states = tuple(segments[0].buffer for segments in map(_segments, own))
    starts = tuple(
        np.resize(np.array(s.init or (0.0,), np.float32), b.size) for s, b in zip(signature.state, states, strict=True)
    )
    made = Plan(
        tuple(segments[0].buffer for segments in map(_segments, given)), tuple(s.buffer for s in outputs),
        states, starts, tuple(planner.steps), planner.macs,
    )  # fmt: skip
    from edgetk.export.c.narrow import narrow

    return narrow(made)


def _segments(value: Operand) -> Sequence[Segment]:
    return list(segments_of(value))


def _node(planner: Planner, node: Node) -> None:
    if node.kind in _RULES:
        value = _RULES[node.kind](planner, node)
    elif node.kind in elementwise.OPERATORS:
        value = _elementwise(planner, node)
    else:
        raise refuse("every operator must have a form in C", f"{node.kind} {node.name}", "leave that layer out or export to onnx")
    planner.values[node.outputs[0]] = value


def _elementwise(planner: Planner, node: Node) -> Operand:
    if (biased := products.biased(planner, node)) is not None:
        return biased
    shape = planner.graph.shapes[node.outputs[0]]
    made = elementwise.build(node, [_operand(planner, name) for name in node.inputs if name], shape)
    if planner.graph.uses[node.outputs[0]] == 1:
        return made
    return planner.memory(made, node.outputs[0])


def _operand(planner: Planner, name: str) -> Operand:
    """A value as an expression can read it: in one segment, larger constants stored."""
    value = planner.operand(name)
    if isinstance(value, Weights):
        value = Constant(dequantized(value))
    if isinstance(value, Memory) and len(value.segments) > 1:
        return Memory((planner.contiguous(value, name),), value.shape, value.flag)
    if isinstance(value, Constant) and value.size > 1:
        return Constant(value.array, planner.array(name, value.array.astype(np.float32), FLOAT))
    return value


def _view(planner: Planner, node: Node) -> Operand:
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
    return Memory(tuple(_joined([home[i] for i in index.reshape(-1)])), tuple(index.shape), value.flag)


def _indices(planner: Planner, node: Node, pick: Callable[[np.ndarray], np.ndarray]) -> Operand:
    """What `pick` does to the positions of the node's first input, done to its elements."""
    value = planner.operand(node.inputs[0])
    places = pick(np.arange(value.size).reshape(value.shape))
    if isinstance(value, Constant):
        return Constant(value.array.reshape(-1)[places])
    if isinstance(value, Codes):
        return Codes(_picked(value.memory, places), value.grid)
    return _picked(planner.memory(value, node.inputs[0]), places)


def _slice(planner: Planner, node: Node) -> Operand:
    starts, ends = planner.constant(node, 1), planner.constant(node, 2)
    axes = planner.optional(node, 3)
    steps = planner.optional(node, 4)

    def pick(places: np.ndarray) -> np.ndarray:
        for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
            axis = int(axes[i]) if axes is not None else i
            key: list[slice] = [slice(None)] * places.ndim
            key[axis] = slice(int(start), int(end) if abs(int(end)) < 1 << 31 else None, int(steps[i]) if steps is not None else 1)
            places = places[tuple(key)]
        return places

    return _indices(planner, node, pick)


def _gather(planner: Planner, node: Node) -> Operand:
    chosen = planner.constant(node, 1)
    return _indices(planner, node, lambda places: np.take(places, chosen, axis=int(node.attributes.get("axis", 0))))


def _transpose(planner: Planner, node: Node) -> Operand:
    return _indices(planner, node, lambda places: np.transpose(places, node.attributes.get("perm")))


def _split(planner: Planner, node: Node) -> Operand:
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


def _concat(planner: Planner, node: Node) -> Operand:
    shape = planner.graph.shapes[node.outputs[0]]
    axis = int(node.attributes["axis"]) % len(shape)
    if any(size != 1 for size in shape[:axis]):
        raise refuse("Concat must join whole tensors", f"{node.name} along axis {axis} of {list(shape)}", "export the stream form")
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


def _quantize(planner: Planner, node: Node) -> Operand:
    value, grid = planner.operand(node.inputs[0]), _grid(planner, node)
    place = planner.buffer(node.outputs[0], value.size, CODE)
    codes = Codes(Memory((place,), value.shape), grid)
    if isinstance(value, Expression) and (table := _table(planner, value, grid, place, node)) is not None:
        planner.steps.append(table)
        return codes
    if isinstance(value, Memory):
        start = 0
        for segment in value.segments:
            part = Memory((segment,), (segment.size,))
            planner.steps.append(Loop(place.part(start, segment.size), part, grid))
            start += segment.size
        return codes
    planner.steps.append(Loop(place, value, grid))
    return codes


def _table(planner: Planner, value: Expression, grid: Grid, place: Segment, node: Node) -> Step | None:
    """An activation table for an expression of one tensor with an operator that C has no arithmetic for."""
    if not elementwise.TRANSCENDENTAL & set(value.operators()):
        return None
    source = elementwise.only_variable(value)
    table = tabulate(elementwise.function(value), grid) if source is not None else None
    if source is None or table is None:
        return None
    from edgetk.export.c.steps import Lookup

    name = planner.names.free(node.outputs[0] + "_table")
    return Lookup(
        place, planner.contiguous(source, name), table.low, table.per_unit,
        planner.array(f"{name}_edges", table.edges, FLOAT), planner.array(f"{name}_codes", table.codes, CODE),
    )  # fmt: skip


def _grid(planner: Planner, node: Node) -> Grid:
    """Scale and zero point per tensor; codes of int8 tensors are stored with 128 added."""
    scale = planner.constant(node, 1)
    zero = planner.optional(node, 2)
    zero = np.zeros(1, np.uint8) if zero is None else zero
    if scale.size != 1 or zero.dtype not in (np.uint8, np.int8):
        got = f"{node.name} with {scale.size} scales of {zero.dtype}"
        raise refuse("activations must be quantized per tensor to 8 bits", got, "quantize them per tensor")
    return Grid(float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]) + (128 if zero.dtype == np.int8 else 0))


def _dequantize(planner: Planner, node: Node) -> Operand:
    value = planner.operand(node.inputs[0])
    if isinstance(value, Codes):
        if value.grid != _grid(planner, node):
            raise refuse("codes must be read on the grid they were written on", node.name, "quantize again between the two")
        return value
    assert isinstance(value, Constant)
    scale, zero = planner.constant(node, 1), planner.optional(node, 2)
    if value.array.dtype != np.int8 or (zero is not None and np.any(zero)):
        if value.array.dtype == np.int32:  # a bias of a convolution
            return Constant(value.array.astype(np.float32) * scale.astype(np.float32))
        raise refuse("weights must be int8 with zero point 0", f"{node.name} {value.array.dtype}", "quantize them symmetrically")
    return Weights(value.array, scale.astype(np.float32), int(node.attributes.get("axis", 1)) % max(value.array.ndim, 1))


def _finish(planner: Planner, targets: Sequence[Segment], results: Sequence[Operand]) -> None:
    """Write outputs and states, in an order in which nobody reads a state that was overwritten."""
    ready: list[Memory | Expression] = []
    for target, value in zip(targets, results, strict=True):
        foreign = [s for s in segments_of(value) if s.buffer.place == "state" and s.buffer is not target.buffer]
        if isinstance(value, Expression) and (foreign or not elementwise.in_place(value, target)):
            value = planner.memory(value, target.buffer.name)
        elif isinstance(value, Codes | Constant | Weights):
            value = planner.memory(value, target.buffer.name)
        elif isinstance(value, Memory) and (foreign or not _moves_down(value)):
            value = Memory((planner.together(value, target.buffer.name),), value.shape)
        ready.append(value)
    for target, value in zip(targets, ready, strict=True):
        if isinstance(value, Expression):
            planner.steps.append(Loop(target, value))
            continue
        start = 0
        for segment in _joined(value.segments):
            planner.steps.append(Copy(target.part(start, segment.size), segment))
            start += segment.size


def _joined(segments: Sequence[Segment]) -> list[Segment]:
    """The same elements in as few segments as can be."""
    made: list[Segment] = []
    for segment in segments:
        last = made[-1] if made else None
        if last is not None and last.buffer is segment.buffer and last.start + last.size == segment.start:
            made[-1] = Segment(last.buffer, last.start, last.size + segment.size)
        else:
            made.append(segment)
    return made


def _moves_down(value: Memory) -> bool:
    """Whether copying segment by segment never overwrites what a later one reads, in a state of its own."""
    start = 0
    for segment in value.segments:
        if segment.buffer.place == "state" and segment.start < start:
            return False
        start += segment.size
    return True


_RULES: dict[str, Callable[[Planner, Node], Operand]] = {
    **dict.fromkeys(_VIEWS, _view),
    "Slice": _slice,
    "Gather": _gather,
    "Transpose": _transpose,
    "Split": _split,
    "Concat": _concat,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "MatMul": products.matmul,
    "Gemm": products.gemm,
    "Conv": products.convolution,
}
