"""Operators that multiply and accumulate: their two factors, their multiply-accumulates, and how often they use a weight."""

from __future__ import annotations

import math
from collections.abc import Mapping

from onnx import NodeProto, helper

from edgetk.targets.graph import Graph

#: Where the two factors of a product stand among the inputs.
FACTORS: Mapping[str, tuple[int, int]] = {
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
INTEGER = frozenset({"ConvInteger", "QLinearConv", "MatMulInteger", "QLinearMatMul"})
#: Half of what they multiply, the hidden state, never shows in the graph.
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})


def attributes(node: NodeProto) -> dict[str, object]:
    """Attributes by name, as Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def factors(node: NodeProto) -> list[str]:
    """The inputs that are multiplied with each other."""
    return [node.input[i] for i in FACTORS[node.op_type] if i < len(node.input)]


def macs(graph: Graph, node: NodeProto) -> int:
    """Multiply-accumulates of a node; 0 for one that is no product. The shapes of its tensors must be known."""
    if node.op_type not in FACTORS:
        return 0
    first, second = factors(node)
    a, b = graph.shape[first], graph.shape[second]
    if node.op_type in ("Conv", "ConvInteger", "QLinearConv"):
        return graph.elements(node.output[0]) * math.prod(b[1:])  # weight (M, C / groups, *kernel)
    if node.op_type == "ConvTranspose":
        return math.prod(a) * math.prod(b[1:])  # weight (C, M / groups, *kernel)
    if node.op_type == "Gemm":
        return graph.elements(node.output[0]) * (a[0] if attributes(node).get("transA") else a[1])
    if node.op_type in RECURRENT:
        return a[0] * a[1] * (math.prod(b) + graph.elements(node.input[2]))  # X (T, B, I), every gate each step
    if node.op_type == "Einsum":
        return einsum_macs(graph, node) or 0
    return graph.elements(node.output[0]) * a[-1]


def einsum_macs(graph: Graph, node: NodeProto) -> int | None:
    """Product of all index sizes: the multiplications of a plain two-operand contraction; None for any other."""
    equation = attributes(node).get("equation", b"")
    assert isinstance(equation, bytes)
    terms = equation.decode().replace(" ", "").split("->")[0].split(",")
    if len(terms) != 2 or "." in equation.decode():
        return None
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.input, strict=True):
        sizes.update(zip(term, graph.shape[name], strict=True))
    return math.prod(sizes.values())


def rows(graph: Graph, node: NodeProto) -> int:
    """How many input vectors meet the same weights: MACs per stored weight, 1 for a product of two activations."""
    weights = [name for name in factors(node) if name in graph.roots]
    return max(1, macs(graph, node) // max(1, graph.elements(weights[0]))) if weights else 1


def taps(graph: Graph, node: NodeProto) -> int:
    """Places that a convolution's kernel covers; 1 for any other node."""
    if node.op_type not in ("Conv", "ConvInteger", "QLinearConv"):
        return 1
    return math.prod(graph.shape[factors(node)[1]][2:])


def activations(graph: Graph, node: NodeProto) -> list[str]:
    """The factors of a product that are no constants: one of a layer, two of attention.

    None of a recurrent operator, whose hidden state stays inside it.
    """
    if node.op_type not in FACTORS or node.op_type in RECURRENT or node.domain not in ("", "ai.onnx"):
        return []
    return [name for name in dict.fromkeys(factors(node)) if name not in graph.roots]
