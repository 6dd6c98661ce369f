"""Which step computes what: quantized products, element-wise loops, activation tables and copies, from a static graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from edgetk.core.signature import Signature, TensorSpec
from edgetk.export.c import elementwise, hashed, moves, products, rounding, rows
from edgetk.export.c.graph import Node, read, refuse
from edgetk.export.c.narrow import narrow
from edgetk.export.c.operands import Codes, Constant, Expression, Memory, Operand, Place, Segment, Weights, segments_of
from edgetk.export.c.planner import Planner
from edgetk.export.c.steps import Copy, Loop, Plan
from edgetk.export.graph import fingerprint

#: operators that leave the elements where they are
_VIEWS = frozenset({"Squeeze", "Unsqueeze", "Reshape", "Flatten", "Identity", "Dropout"})

_RULES: dict[str, Callable[[Planner, Node], Operand]] = {
    **dict.fromkeys(_VIEWS, moves.view),
    "Shape": moves.shape,
    "Slice": moves.slice_,
    "Gather": moves.gather,
    "Transpose": moves.transpose,
    "Split": moves.split,
    "Concat": moves.concat,
    "QuantizeLinear": rounding.quantize,
    "DequantizeLinear": rounding.dequantize,
    "MatMul": products.matmul,
    "Gemm": products.gemm,
    "Conv": products.convolution,
    "LayerNormalization": rows.layer_norm,
    "Softmax": rows.softmax,
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceL2"), rows.reduce),
    "edgetk.LookupLinear": hashed.lookup,
    "edgetk.LookupLinearFloat": hashed.lookup,
    "edgetk.BinaryLinearAttention": hashed.binary_attention,
}


def plan(model: onnx.ModelProto, signature: Signature) -> Plan:
    """The steps that compute one call of `model`.

    Raises PreconditionError for what generated C cannot express: an operator, a type, a shape.
    """
    planner = Planner(read(model))
    carried = [s.spec for s in signature.state]
    for spec in (*signature.inputs, *signature.outputs, *carried):
        if spec.dtype != "float32":
            got = f"{spec.name} {spec.dtype}"
            raise refuse("inputs, outputs and states must be float32", got, "keep numbers outside float")
    given = [_declare(planner, spec, "input") for spec in signature.inputs]
    states = [_declare(planner, spec, "state") for spec in carried]
    for node in planner.graph.nodes:
        planner.values[node.outputs[0]] = _value(planner, node)
    outputs = [planner.buffer(s.name, _size(s), place="output") for s in signature.outputs]
    names = [*(s.name for s in signature.outputs), *(s.output for s in signature.state)]
    _finish(planner, [*outputs, *states], [planner.operand(name) for name in names])
    starts = (np.resize(np.array(s.init or (0.0,), np.float32), _size(s.spec)) for s in signature.state)
    return narrow(
        Plan(
            signature=signature,
            graph_sha256=fingerprint(model),
            inputs=tuple(s.buffer for s in given),
            outputs=tuple(s.buffer for s in outputs),
            states=tuple(s.buffer for s in states),
            starts=tuple(starts),
            steps=tuple(planner.steps),
            macs=planner.macs,
        )
    )


def _size(spec: TensorSpec) -> int:
    return int(np.prod(spec.concrete()))


def _declare(planner: Planner, spec: TensorSpec, place: Place) -> Segment:
    segment = planner.buffer(spec.name.removeprefix("state_"), _size(spec), place=place)
    planner.values[spec.name] = Memory((segment,), spec.concrete())
    return segment


def _value(planner: Planner, node: Node) -> Operand:
    if node.kind in _RULES:
        return _RULES[node.kind](planner, node)
    if node.kind in elementwise.OPERATORS:
        return _elementwise(planner, node)
    got = f"{node.kind} {node.name}"
    raise refuse("every operator must have a form in C", got, "leave that layer out or export to onnx")


def _elementwise(planner: Planner, node: Node) -> Operand:
    if (biased := products.biased(planner, node)) is not None:
        return biased
    shape = planner.graph.shapes[node.outputs[0]]
    args = [planner.expressible(name) for name in node.inputs if name]
    for i, arg in enumerate(args):
        again = node.kind == "Pow" or 1 < arg.size < int(np.prod(shape))  # read more than once: computed before
        if again and isinstance(arg, Expression):
            args[i] = planner.memory(arg, node.inputs[i])
    made = elementwise.build(node, args, shape)
    if planner.graph.uses[node.outputs[0]] == 1:
        return made
    return planner.memory(made, node.outputs[0])


def _finish(planner: Planner, targets: Sequence[Segment], results: Sequence[Operand]) -> None:
    """Write outputs and states, in an order in which nobody reads a state that was overwritten."""
    ready: list[Memory | Expression] = []
    for target, value in zip(targets, results, strict=True):
        foreign = [s for s in segments_of(value) if s.buffer.place == "state" and s.buffer is not target.buffer]
        if (isinstance(value, Expression) and (foreign or not elementwise.in_place(value, target))) or isinstance(
            value, Codes | Constant | Weights
        ):
            value = planner.memory(value, target.buffer.name)
        elif isinstance(value, Memory) and (foreign or not _moves_down(value)):
            value = Memory((planner.together(value, target.buffer.name),), value.shape)
        ready.append(value)
    for target, value in zip(targets, ready, strict=True):
        if isinstance(value, Expression):
            planner.steps.append(Loop(target, value))
            continue
        start = 0
        for segment in moves.joined(value.segments):
            planner.steps.append(Copy(target.part(start, segment.size), segment))
            start += segment.size


def _moves_down(value: Memory) -> bool:
    """Whether copying segment by segment never overwrites what a later one reads, in a state of its own."""
    start = 0
    for segment in value.segments:
        if segment.buffer.place == "state" and segment.start < start:
            return False
        start += segment.size
    return True
