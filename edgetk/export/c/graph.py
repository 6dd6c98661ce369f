"""A static ONNX graph as nodes, constants and shapes, or one clear sentence on why it cannot become C."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from edgetk.core.errors import PreconditionError


@dataclass(frozen=True)
class Node:
    """An operator with its attributes as Python values; `uses` says how often its first output is read."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """Nodes in order, constants by name, shapes of all values, and how often each value is read."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    uses: Mapping[str, int]


def refuse(what: str, got: str, instead: str) -> PreconditionError:
    """The error of a graph that generated C cannot express."""
    return PreconditionError(f"c: {what}, got {got}; {instead}")


def read(model: onnx.ModelProto) -> Graph:
    """The graph of `model`. Raises PreconditionError: subgraphs, functions of other domains, shapes that are not numbers."""
    inferred = shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    graph = inferred.graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    shapes: dict[str, tuple[int, ...]] = {name: tuple(array.shape) for name, array in constants.items()}
    for value in (*graph.value_info, *graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if all(d.HasField("dim_value") for d in dims):
            shapes[value.name] = tuple(d.dim_value for d in dims)
    nodes, uses = [], Counter(value.name for value in graph.output)
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        if kind == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
            shapes[node.output[0]] = tuple(constants[node.output[0]].shape)
            continue
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
            raise refuse("a graph must have no graphs inside", f"{kind} {node.name}", "export the stream form")
        for output in node.output:
            if output and output not in shapes:
                raise refuse("all shapes must be known numbers", f"{kind} {node.name}", "export the stream form")
        nodes.append(Node(kind, node.name or node.output[0], tuple(node.input), tuple(node.output), attributes))
        uses.update(name for name in node.input if name)
    return Graph(tuple(nodes), constants, shapes, uses)
