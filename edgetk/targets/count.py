"""Count the work of an ONNX graph: multiply-accumulates, bytes, state and the peak of live activations, at batch 1.

Symbolic dimensions count as 1. Quantized graphs are read as their runtimes run them: weights in their stored width, a
MatMul, Gemm or Conv whose operands both come from DequantizeLinear as integer arithmetic, and a Quantize/Dequantize pair
as part of its neighbours. What cannot be counted is listed in `Workload.unknown`, never passed over as zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, numpy_helper

from edgetk.core.errors import InputError
from edgetk.core.signature import Signature
from edgetk.core.workload import Op, Workload
from edgetk.targets.graph import Graph, has_subgraph, read, stored_bytes
from edgetk.targets.kinds import SELECTS, SHAPES, VIEWS
from edgetk.targets.liveness import peak_bytes

#: Where the two factors of a product stand among the inputs.
_FACTORS: Mapping[str, tuple[int, int]] = {
    "Conv": (0, 1),
    "ConvInteger": (0, 1),
    "ConvTranspose": (0, 1),
    "QLinearConv": (0, 3),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3),
    "Einsum": (0, 1),
    "LSTM": (0, 1),
    "GRU": (0, 1),
    "RNN": (0, 1),
}
_INTEGER = frozenset({"ConvInteger", "QLinearConv", "MatMulInteger", "QLinearMatMul"})
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


def count(model: ModelProto, signature: Signature | None = None) -> Workload:
    """The work of `model` for one inference (one step, where it is a stream).

    Signature gives state and period; without it, every input `x` that has an output `x_out` is state. Raises InputError if
    the graph is not valid ONNX or keeps its weights in other files.
    """
    graph = read(model)
    states = tuple(s.name for s in signature.state) if signature else _states(graph)
    unknown: list[str] = []
    ops = []
    for node in graph.nodes:
        label = f"{node.op_type} {node.name or node.output[0]}"
        reason = _problem(graph, node)
        if reason:
            unknown.append(f"{label}: {reason}")
        ops.append(_op(graph, node, counted=reason is None))
    peak = 0
    missing = [name for name in (*graph.inputs, *graph.maker) if name and name not in graph.shape]
    if not missing:
        peak = peak_bytes(
            graph.nodes, graph.inputs, graph.outputs, frozenset(graph.roots) | frozenset(states), graph.tensor_bytes
        )
    else:
        unknown.append(f"peak of live activations: the shape of {missing[0]} and {len(missing) - 1} more cannot be inferred")
    used = frozenset().union(*(graph.roots[i] for node in graph.nodes for i in node.input if i in graph.roots))
    return Workload(
        ops=tuple(ops),
        weight_bytes=sum(graph.constant_bytes(name) for name in used),
        parameters=sum(math.prod(graph.constants[name].dims) for name in _parameters(graph, used)),
        peak_activation_bytes=peak,
        state_bytes=sum(stored_bytes(graph.elements(name), graph.dtype[name]) for name in states if name in graph.shape),
        period_s=signature.period_s if signature else _period_s(model),
        unknown=tuple(unknown),
    )


def _attributes(node: NodeProto) -> dict[str, object]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _problem(graph: Graph, node: NodeProto) -> str | None:
    """Why the work of a node cannot be counted; None if it can."""
    if node.domain not in ("", "ai.onnx"):
        return f"no rule for the domain {node.domain}"
    if node.op_type in _NO_RULE or has_subgraph(node):
        return "no rule for this operator"
    if graph.is_folded(node):
        return None
    for name in (*node.input, *node.output):
        if name and name not in graph.shape:
            return f"the shape of {name} cannot be inferred"
    if node.op_type == "Einsum" and _einsum_macs(graph, node) is None:
        return "only einsum of two operands without an ellipsis has a rule"
    return None


def _factors(node: NodeProto) -> list[str]:
    """The inputs that are multiplied with each other."""
    return [node.input[i] for i in _FACTORS[node.op_type] if i < len(node.input)]


def _macs(graph: Graph, node: NodeProto) -> int:
    if node.op_type not in _FACTORS:
        return 0
    first, second = _factors(node)
    a, b = graph.shape[first], graph.shape[second]
    if node.op_type in ("Conv", "ConvInteger", "QLinearConv"):
        return graph.elements(node.output[0]) * math.prod(b[1:])  # weight (M, C / groups, *kernel)
    if node.op_type == "ConvTranspose":
        return math.prod(a) * math.prod(b[1:])  # weight (C, M / groups, *kernel)
    if node.op_type == "Gemm":
        return graph.elements(node.output[0]) * (a[0] if _attributes(node).get("transA") else a[1])
    if node.op_type in ("LSTM", "GRU", "RNN"):
        return a[0] * a[1] * (math.prod(b) + graph.elements(node.input[2]))  # X (T, B, I), every gate each step
    if node.op_type == "Einsum":
        return _einsum_macs(graph, node) or 0
    return graph.elements(node.output[0]) * a[-1]


def _einsum_macs(graph: Graph, node: NodeProto) -> int | None:
    """Product of all index sizes: the multiplications of a plain two-operand contraction."""
    equation = _attributes(node).get("equation", b"")
    assert isinstance(equation, bytes)
    terms = equation.decode().replace(" ", "").split("->")[0].split(",")
    if len(terms) != 2 or "." in equation.decode():
        return None
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.input, strict=True):
        sizes.update(zip(term, graph.shape[name], strict=True))
    return math.prod(sizes.values())


def _arithmetic(graph: Graph, node: NodeProto) -> str:
    """The number format a node computes in."""
    if node.op_type in _INTEGER:
        return "int8"
    if node.op_type in _FACTORS:
        factors = []
        for name in _factors(node):
            maker = graph.maker.get(graph.through_views(name))
            factors.append(graph.dtype[maker.input[0]] if maker is not None and maker.op_type == "DequantizeLinear" else "")
        if all(f in ("int8", "uint8") for f in factors):
            return "int8"
        if all(f in _QUANTIZED for f in factors):
            return max(factors, key=lambda f: stored_bytes(8, f)).removeprefix("u")
    known = [graph.dtype[name] for name in (*node.output, *node.input) if name in graph.dtype]
    return known[0] if known else "float32"


def _is_merged(graph: Graph, node: NodeProto) -> bool:
    """True for a Quantize or Dequantize that its runtime makes part of the neighbouring operator."""
    if node.op_type == "QuantizeLinear":
        return graph.stored_dtype(node.input[0]) == graph.dtype[node.output[0]]
    return node.op_type == "DequantizeLinear" and node.output[0] not in graph.outputs


def _moved(graph: Graph, node: NodeProto) -> list[str]:
    """The tensors a node reads and writes; a selection reads as much as it writes."""
    outputs = [n for n in node.output if n]
    if node.op_type in VIEWS or _is_merged(graph, node):
        return []
    if node.op_type in SHAPES:
        return outputs
    if node.op_type in SELECTS:
        return [*node.input[1:], *outputs, *outputs]
    return [*dict.fromkeys(node.input), *outputs]


def _op(graph: Graph, node: NodeProto, counted: bool) -> Op:
    name = node.name or node.output[0]
    kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
    dtype = _arithmetic(graph, node)
    if graph.is_folded(node) and not has_subgraph(node):
        return Op(kind, name, 0, 0, 0, 0, dtype)  # folded when the graph is loaded
    constant = frozenset().union(*(graph.roots.get(i, frozenset()) for i in node.input))
    sparsity = 0.0
    if node.op_type in _FACTORS:
        sparsity = max((_sparsity(graph, name) for name in _factors(node)), default=0.0)
    return Op(
        kind,
        name,
        macs=_macs(graph, node) if counted else 0,
        elements=sum(graph.elements(o) for o in node.output if o in graph.shape),
        weight_bytes=sum(graph.constant_bytes(c) for c in constant),
        activation_bytes=sum(graph.tensor_bytes(n) for n in _moved(graph, node) if n in graph.shape and n not in graph.roots),
        dtype=dtype,
        sparsity=sparsity,
    )


def _sparsity(graph: Graph, name: str) -> float:
    """Share of weights that stand for zero; for stored integers, of those equal to their zero point."""
    if name not in graph.roots:
        return 0.0
    source = graph.through_views(name)
    maker = graph.maker.get(source)
    zero: object = 0
    if maker is not None and maker.op_type == "DequantizeLinear":
        source = maker.input[0]
        points = numpy_helper.to_array(graph.constants[maker.input[2]]) if len(maker.input) > 2 else np.zeros(())
        if points.ndim == 0:
            zero = points
        elif points.any():
            axis = _attributes(maker).get("axis", 1)
            assert isinstance(axis, int)
            zero = np.expand_dims(points, [d for d in range(len(graph.shape[source])) if d != axis % len(graph.shape[source])])
    if source not in graph.constants:
        return 0.0
    values = numpy_helper.to_array(graph.constants[source])
    return float(np.mean(values == zero)) if values.size else 0.0


def _parameters(graph: Graph, used: frozenset[str]) -> frozenset[str]:
    """The stored tensors that are a model's numbers: not scales, zero points, shapes or scalars."""
    helpers = {
        root
        for node in graph.nodes
        for index in _SCALE_AND_ZERO.get(node.op_type, ())
        if index < len(node.input)
        for root in graph.roots.get(node.input[index], ())
    }
    return frozenset(n for n in used - helpers if graph.constants[n].dims and graph.dtype[n] not in ("int64", "bool"))


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
