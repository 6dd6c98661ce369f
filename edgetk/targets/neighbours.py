"""What a node is to its neighbours: merged with them, alone behind one of them, or read by a quantization alone."""

from __future__ import annotations

from onnx import NodeProto

from edgetk.targets.graph import Graph
from edgetk.targets.kinds import VIEWS
from edgetk.targets.products import FACTORS, attributes


def name_of(node: NodeProto) -> str:
    """Name of a node: its own, or that of its first output."""
    return str(node.name or node.output[0])


def is_merged(graph: Graph, node: NodeProto) -> bool:
    """True for a Quantize or Dequantize that its runtime makes part of the neighbouring operator."""
    if node.op_type == "QuantizeLinear":
        return graph.stored_dtype(node.input[0]) == graph.dtype[node.output[0]]
    return node.op_type == "DequantizeLinear" and node.output[0] not in graph.outputs


def source(graph: Graph, node: NodeProto) -> str:
    """Name of the one operator whose output only this one reads, seen through views and merged conversions; "" if not one."""
    inputs = dict.fromkeys(name for name in node.input if name and name not in graph.roots)
    found = [name for name in (_alone(graph, value) for value in inputs) if name]
    return found[0] if len(found) == 1 else ""


def _alone(graph: Graph, name: str) -> str:
    while (maker := graph.maker.get(name)) is not None:
        if len(graph.readers.get(name, ())) != 1 or name in graph.outputs:
            return ""
        if maker.op_type not in VIEWS and not is_merged(graph, maker):
            return name_of(maker)
        name = maker.input[0]
    return ""


def strided(graph: Graph, node: NodeProto) -> bool:
    """True for a transposition that moves the last axis, and for a reduction that leaves it as it is."""
    axes = len(graph.shape.get(node.input[0], ())) if node.input else 0
    if node.op_type == "Transpose":
        order = attributes(node).get("perm", list(range(axes))[::-1])
        assert isinstance(order, list)
        return axes > 1 and order[-1] != axes - 1
    if not node.op_type.startswith("Reduce") or node.output[0] not in graph.shape:
        return False
    read, written = graph.shape[node.input[0]], graph.shape[node.output[0]]
    return bool(written) and len(read) > 0 and read[-1] > 1 and written[-1] == read[-1]


def requantized(graph: Graph, node: NodeProto) -> bool:
    """True where all that reads the output of a node, a rectifier aside, is one QuantizeLinear."""
    name = node.output[0]
    while [reader.op_type for reader in graph.readers.get(name, ())] in (["Relu"], ["Clip"]):
        name = graph.readers[name][0].output[0]
    return [reader.op_type for reader in graph.readers.get(name, ())] == ["QuantizeLinear"]


def groups(node: NodeProto) -> int:
    """Into how many parts a convolution cuts its channels; 1 for any other node."""
    group = attributes(node).get("group", 1) if node.op_type in FACTORS else 1
    assert isinstance(group, int)
    return group
