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
    """The graph of `model`, at batch 1 where its batch is free.

    Raises PreconditionError: subgraphs, functions of other domains, shapes that are not numbers.
    """
    inferred = shape_inference.infer_shapes(_single(model), strict_mode=False, data_prop=True)
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


def _single(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with 1 for a first axis that is free; what was known of shapes inside is found out anew."""
    free = [
        v
        for v in model.graph.input
        if v.type.tensor_type.shape.dim and not v.type.tensor_type.shape.dim[0].HasField("dim_value")
    ]
    if not free:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in (*copy.graph.input, *copy.graph.output):
        if value.type.tensor_type.shape.dim:
            first = value.type.tensor_type.shape.dim[0]
            first.dim_value = first.dim_value or 1
    return copy
