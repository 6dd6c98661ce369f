"""The body of a Scan as a graph of its own, and how often it runs."""

from __future__ import annotations

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from edgetk.targets import graph as graphs
from edgetk.targets.graph import Graph
from edgetk.targets.products import attributes

#: The first operator set whose Scan has no batch axis of its own.
FIRST_OPSET = 9


def is_scan(node: NodeProto) -> bool:
    """True for the Scan of the standard operators."""
    return node.op_type == "Scan" and node.domain in ("", "ai.onnx")


def problem(graph: Graph, node: NodeProto) -> str | None:
    """Why the body of a Scan cannot be counted; None if it can."""
    if any(o.domain in ("", "ai.onnx") and o.version < FIRST_OPSET for o in graph.opsets):
        return f"only the Scan of operator set {FIRST_OPSET} and later has a rule"
    for name in graphs.reads(node):
        if name not in graph.shape or name not in graph.dtype:
            return f"the shape of {name} cannot be inferred"
    return None


def iterations(graph: Graph, node: NodeProto) -> int:
    """How many slices its sequences have; the shapes of its inputs must be known."""
    name, axis = _sequences(node)[0]
    return graph.shape[name][axis]


def body(graph: Graph, node: NodeProto) -> Graph:
    """The tables of one iteration: its inputs are the carried states and one slice of each sequence.

    Tensors of the graph around it keep their names; those that are constant there are constant here.
    """
    inner = GraphProto()
    inner.CopyFrom(graphs.subgraphs(node)[0])
    graphs.forget_shapes(inner)
    first = states(node)
    shapes = [graph.shape[name] for name in node.input[:first]]
    for name, axis in _sequences(node):
        sizes = list(graph.shape[name])
        del sizes[axis]
        shapes.append(tuple(sizes))
    for value, name, shape in zip(inner.input, node.input, shapes, strict=True):
        value.CopyFrom(helper.make_tensor_value_info(value.name, _element_type(graph, name), shape))
    constant: dict[str, frozenset[str]] = {}
    for name in graphs.captured(node):
        if name in graph.roots:
            constant[name] = graph.roots[name]
        if name in graph.constants:
            inner.initializer.add().CopyFrom(graph.constants[name])
            inner.initializer[-1].name = name
        else:
            inner.input.append(helper.make_tensor_value_info(name, _element_type(graph, name), graph.shape[name]))
    model = ModelProto(graph=inner, opset_import=graph.opsets, ir_version=8)
    found = graphs.tables(model, constant)
    for name in frozenset().union(*constant.values()):
        found.constants.setdefault(name, graph.constants[name])
        found.dtype.setdefault(name, graph.dtype[name])
    return found


def elsewhere(node: NodeProto) -> frozenset[str]:
    """Tensors of the body that have their room in the graph around it: slices of sequences, read or written, and captured."""
    inner = graphs.subgraphs(node)[0]
    first = states(node)
    slices = (*inner.input[first:], *inner.output[first:])
    return frozenset(value.name for value in slices) | frozenset(graphs.captured(node))


def states(node: NodeProto) -> int:
    """How many of its inputs, and outputs, are carried on; the others are sequences."""
    return len(node.input) - len(_sequences(node))


def _sequences(node: NodeProto) -> list[tuple[str, int]]:
    """The inputs that are cut into slices, and along which axis."""
    given = attributes(node)
    n = given["num_scan_inputs"]
    axes = given.get("scan_input_axes") or [0] * n  # type: ignore[operator]
    return list(zip(node.input[len(node.input) - n :], axes, strict=True))  # type: ignore[operator, call-overload]


def _element_type(graph: Graph, name: str) -> int:
    text = {"float32": "float", "float64": "double"}.get(graph.dtype[name], graph.dtype[name])
    return int(TensorProto.DataType.Value(text.upper()))
