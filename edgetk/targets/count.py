"""Count the work of an ONNX graph: multiply-accumulates, bytes, state and the peak of live activations, at batch 1.

Symbolic dimensions count as 1. Quantized graphs are read as their runtimes run them: weights in their stored width, a
MatMul, Gemm or Conv whose operands both come from DequantizeLinear as integer arithmetic, and a Quantize/Dequantize pair
as part of its neighbours. A Scan is counted by its body, once for each iteration. What cannot be counted is listed in
`Workload.unknown`, never passed over as zero; shapes that had to be assumed are in `Workload.assumed`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from edgetk.core.errors import InputError
from edgetk.core.signature import Signature
from edgetk.core.workload import Buffer, Op, Workload
from edgetk.targets import scan
from edgetk.targets.firing import Activity, Firing
from edgetk.targets.graph import Graph, has_subgraph, read, reads, stored_bytes
from edgetk.targets.kinds import COMPARES, SELECTS, SHAPES, VIEWS
from edgetk.targets.liveness import buffers, peak_bytes
from edgetk.targets.neighbours import groups, is_merged, name_of, requantized, source, strided
from edgetk.targets.neurons import updates
from edgetk.targets.pieces import column, pieces
from edgetk.targets.products import FACTORS, INTEGER, activations, attributes, einsum_macs, factors, macs, rows, taps

#: Standard operators that multiply and accumulate, or hold a graph of their own, and have no rule here.
_NO_RULE = frozenset({"Attention", "LinearAttention", "RotaryEmbedding", "DFT", "STFT", "DeformConv", "Det", "GridSample"})
_QUANTIZED = frozenset({"int8", "uint8", "int4", "uint4", "int2", "uint2", "int16", "uint16"})
_SCALE_AND_ZERO = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
}


@dataclass(frozen=True)
class _Level:
    """The graph itself, or the body of a Scan in it: the prefix of its nodes' names, and how often it runs."""

    graph: Graph
    prefix: str = ""
    calls: int = 1
    parent: _Level | None = None

    def inside(self, node: NodeProto) -> _Level:
        """The body of a Scan that has no problem."""
        calls = self.calls * scan.iterations(self.graph, node)
        return _Level(scan.body(self.graph, node), f"{self.prefix}{name_of(node)}/", calls, self)

    def home(self, name: str) -> tuple[str, str]:
        """Where a constant is stored: two bodies may have constants of one name, and read those of the graph around them."""
        if self.parent is not None and name in self.parent.graph.constants:
            return self.parent.home(name)
        return self.prefix, name


def count(model: ModelProto, signature: Signature | None = None, firing: Firing | None = None) -> Workload:
    """The work of `model` for one inference (one step, where it is a stream).

    Signature gives state and period; without it, every input `x` that has an output `x_out` is state. `firing`, recorded from
    this graph, says which products have spikes at their input and how many. Raises InputError if the graph is not valid
    ONNX or keeps its weights in other files, and for a `firing` of another graph.
    """
    graph = read(model)
    states = tuple(s.name for s in signature.state) if signature else _states(graph)
    recorded = _recorded(graph, firing)
    unknown: list[str] = []
    ops: list[Op] = []
    levels = _walk(_Level(graph), recorded, ops, unknown)
    alive: tuple[Buffer, ...] = ()
    missing = [name for name in (*graph.inputs, *graph.maker) if name and name not in graph.shape]
    if not missing:
        alive = _buffers(_Level(graph), frozenset(graph.roots) | frozenset(states))
    else:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        unknown.append(f"peak of live activations: the shape of {missing[0]}{others} cannot be inferred")
    used = {
        level.home(root): level.graph
        for level in levels
        for node in level.graph.nodes
        for name in reads(node)
        for root in level.graph.roots.get(name, ())
    }
    helpers = {level.home(name) for level in levels for name in _helpers(level.graph)}
    return Workload(
        ops=tuple(ops),
        weight_bytes=sum(holder.constant_bytes(name) for (_, name), holder in used.items()),
        parameters=sum(_parameters(holder, home[1]) for home, holder in used.items() if home not in helpers),
        peak_activation_bytes=peak_bytes(alive),
        state_bytes=sum(stored_bytes(graph.elements(name), graph.dtype[name]) for name in states if name in graph.shape),
        period_s=signature.period_s if signature else _period_s(model),
        unknown=tuple(unknown),
        rates_from=str(firing) if firing else "",
        buffers=alive,
        tensors=len(graph.inputs) + len(graph.outputs),
        assumed=tuple(f"{name} is taken to have the shape that {origin}" for name, origin in graph.assumed.items()),
    )


def _walk(level: _Level, recorded: Mapping[str, Activity], ops: list[Op], unknown: list[str]) -> list[_Level]:
    """Append the operators of a graph, then those of the bodies in it, to `ops`; the levels that were visited."""
    neurons = updates(level.graph)
    levels = [level]
    for node in level.graph.nodes:
        reason = _problem(level.graph, node)
        if reason:
            unknown.append(f"{node.op_type} {level.prefix}{name_of(node)}: {reason}")
        op = _op(level.graph, node, counted=reason is None)
        activity = recorded.get(node.output[0])
        ops.append(
            replace(
                op,
                name=level.prefix + op.name,
                source=op.source and level.prefix + op.source,
                macs=op.macs * level.calls,
                elements=op.elements * level.calls,
                activation_bytes=op.activation_bytes * level.calls,
                pieces=op.pieces * level.calls,
                spike_rate=activity.nonzero if activity and activity.spikes else None,
                density=activity.nonzero if activity else None,
                neurons=neurons.get(node.output[0], 0) * level.calls,
                calls=level.calls,
            )
        )
        if scan.is_scan(node) and reason is None:
            levels += _walk(level.inside(node), {}, ops, unknown)
    return levels


def _recorded(graph: Graph, firing: Firing | None) -> Mapping[str, Activity]:
    if firing is None:
        return {}
    made = {node.output[0] for node in graph.nodes if activations(graph, node)}
    for name in firing.products:
        if name not in made:
            raise InputError(
                f"count: firing must be recorded from this graph, got the product {name}, which it lacks; record it again"
            )
    return firing.products


def _buffers(level: _Level, elsewhere: frozenset[str]) -> tuple[Buffer, ...]:
    """Activations of a graph with their lifetimes, what the bodies in it need while they run included."""
    graph = level.graph
    inside = {
        node.output[0]: peak_bytes(_buffers(body, frozenset(body.graph.roots) | scan.elsewhere(node)))
        for node in graph.nodes
        if scan.is_scan(node) and _problem(graph, node) is None and (body := level.inside(node)).graph.is_known
    }
    return buffers(graph.nodes, graph.inputs, graph.outputs, elsewhere, graph.tensor_bytes, inside)


def _problem(graph: Graph, node: NodeProto) -> str | None:
    """Why the work of a node cannot be counted; None if it can."""
    if node.domain not in ("", "ai.onnx"):
        return f"no rule for the domain {node.domain}"
    if scan.is_scan(node):
        return scan.problem(graph, node)
    if node.op_type in _NO_RULE or has_subgraph(node):
        return "no rule for this operator"
    if graph.is_folded(node):
        return None
    for name in (*node.input, *node.output):
        if name and (name not in graph.shape or (name in node.output and name in graph.assumed)):
            return f"the shape of {name} cannot be inferred"
    if node.op_type == "Einsum" and einsum_macs(graph, node) is None:
        return "only einsum of two operands without an ellipsis has a rule"
    return None


def _arithmetic(graph: Graph, node: NodeProto) -> str:
    """The number format a node computes in."""
    if node.op_type in INTEGER:
        return "int8"
    if node.op_type in FACTORS:
        formats = []
        for name in factors(node):
            maker = graph.maker.get(graph.through_views(name))
            formats.append(graph.dtype[maker.input[0]] if maker is not None and maker.op_type == "DequantizeLinear" else "")
        if all(f in ("int8", "uint8") for f in formats):
            return "int8"
        if all(f in _QUANTIZED for f in formats):
            return max(formats, key=lambda f: stored_bytes(8, f)).removeprefix("u")
    compared = node.input if node.op_type in COMPARES else ()
    known = [graph.dtype[name] for name in (*compared, *node.output, *node.input) if name in graph.dtype]
    return known[0] if known else "float32"


def _moved(graph: Graph, node: NodeProto) -> list[str]:
    """The tensors a node reads and writes; a selection reads as much as it writes, a Scan moves what its body moves."""
    outputs = [n for n in node.output if n]
    if node.op_type in VIEWS or scan.is_scan(node) or is_merged(graph, node):
        return []
    if node.op_type in SHAPES:
        return outputs
    if node.op_type in SELECTS:
        return [*node.input[1:], *outputs, *outputs]
    return [*dict.fromkeys(node.input), *outputs]


def _op(graph: Graph, node: NodeProto, counted: bool) -> Op:
    kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
    dtype = _arithmetic(graph, node)
    if graph.is_folded(node) and not has_subgraph(node):
        return Op(kind, name_of(node), 0, 0, 0, 0, dtype)  # folded when the graph is loaded
    constant = frozenset().union(*(graph.roots.get(i, frozenset()) for i in node.input))
    sparsity = 0.0
    if node.op_type in FACTORS:
        sparsity = max((_sparsity(graph, name) for name in factors(node)), default=0.0)
    return Op(
        kind,
        name_of(node),
        macs=macs(graph, node) if counted else 0,
        elements=0 if scan.is_scan(node) else sum(graph.elements(o) for o in node.output if o in graph.shape),
        weight_bytes=sum(graph.constant_bytes(c) for c in constant),
        activation_bytes=sum(graph.tensor_bytes(n) for n in _moved(graph, node) if n in graph.shape and n not in graph.roots),
        dtype=dtype,
        sparsity=sparsity,
        rows=rows(graph, node) if counted and node.op_type in FACTORS else 1,
        groups=groups(node),
        source=source(graph, node),
        requantized=node.op_type in FACTORS and requantized(graph, node),
        strided=strided(graph, node),
        pieces=pieces(graph, node),
        column=column(graph, node),
        taps=taps(graph, node) if counted else 1,
    )


def _sparsity(graph: Graph, name: str) -> float:
    """Share of weights that stand for zero; for stored integers, of those equal to their zero point."""
    if name not in graph.roots:
        return 0.0
    source = graph.through_views(name)
    maker = graph.maker.get(source)
    if maker is not None and maker.op_type == "ScatterElements":  # written into zeros: the body of a sparse product
        blank = graph.maker.get(maker.input[0])
        if blank is not None and blank.op_type == "ConstantOfShape" and not attributes(blank):
            return 1.0 - graph.elements(maker.input[2]) / graph.elements(source)
    zero: object = 0
    if maker is not None and maker.op_type == "DequantizeLinear":
        source = maker.input[0]
        points = numpy_helper.to_array(graph.constants[maker.input[2]]) if len(maker.input) > 2 else np.zeros(())
        if points.ndim == 0:
            zero = points
        elif points.any():
            axis = attributes(maker).get("axis", 1)
            assert isinstance(axis, int)
            zero = np.expand_dims(points, [d for d in range(len(graph.shape[source])) if d != axis % len(graph.shape[source])])
    if source not in graph.constants:
        return 0.0
    values = numpy_helper.to_array(graph.constants[source])
    return float(np.mean(values == zero)) if values.size else 0.0


def _helpers(graph: Graph) -> frozenset[str]:
    """The stored tensors that are scales and zero points."""
    return frozenset(
        root
        for node in graph.nodes
        for index in _SCALE_AND_ZERO.get(node.op_type, ())
        if index < len(node.input)
        for root in graph.roots.get(node.input[index], ())
    )


def _parameters(graph: Graph, name: str) -> int:
    """How many of a model's numbers a stored tensor holds: none where it is a shape, a mask or a scalar."""
    dims = graph.constants[name].dims
    return math.prod(dims) if dims and graph.dtype[name] not in ("int64", "bool") else 0


def _states(graph: Graph) -> tuple[str, ...]:
    return tuple(name for name in graph.inputs if f"{name}_out" in graph.outputs)


def _period_s(model: ModelProto) -> float | None:
    for entry in model.metadata_props:
        if entry.key == "period_s" and entry.value:
            try:
                return float(entry.value)
            except ValueError as error:
                text = f"count: period_s in the metadata must be a number, got {entry.value!r}; export it again"
                raise InputError(text) from error
    return None
