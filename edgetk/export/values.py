"""Looking at and adding values of an onnx-ir graph: constants, what made a value, new initializers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array that a value always holds, None where it depends on the input."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def store(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A new initializer, under `name` or the next free one."""
    import onnx_ir as ir

    free, count = name, 0
    while free in graph.initializers:
        count += 1
        free = f"{name}_{count}"
    tensor = ir.tensor(np.asarray(array, order="C"), name=free)
    value = ir.Value(name=free, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that makes a value, if it is an `op_type` of the standard operators."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type and node.domain == "" else None
