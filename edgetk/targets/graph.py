"""An ONNX graph as look-up tables: shapes, types, who makes and who reads a tensor, and what is constant.

Functions are inlined, symbolic dimensions of the inputs become 1, and shapes are inferred anew from there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, inliner, numpy_helper, shape_inference

from edgetk.core.errors import InputError
from edgetk.targets.kinds import VIEWS


def _dtype(data_type: int) -> str:
    name: str = TensorProto.DataType.Name(data_type).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def stored_bytes(elements: int, dtype: str) -> int:
    """Bytes of so many packed elements: two int4 in a byte."""
    digits = "".join(c for c in dtype.split("e")[0] if c.isdigit())
    return math.ceil(elements * int(digits) / 8) if digits else elements  # bool is one byte


@dataclass
class Graph:
    """Look-up tables of one graph; `dtype` holds names such as "float32"."""

    nodes: list[NodeProto]
    shape: dict[str, tuple[int, ...]]
    dtype: dict[str, str]
    maker: dict[str, NodeProto]
    readers: dict[str, list[NodeProto]]
    constants: dict[str, TensorProto]
    #: constant tensor -> the stored tensors it is computed from
    roots: dict[str, frozenset[str]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def elements(self, name: str) -> int:
        return math.prod(self.shape[name])

    def through_views(self, name: str) -> str:
        """The tensor that `name` is another shape or order of."""
        while (node := self.maker.get(name)) is not None and node.op_type in (*VIEWS, "Transpose"):
            name = node.input[0]
        return name

    def stored_dtype(self, name: str) -> str:
        """The width a tensor has in memory where the runtime merges Quantize and Dequantize into their neighbours."""
        maker = self.maker.get(name)
        if maker is not None and maker.op_type == "DequantizeLinear" and name not in self.outputs:
            return self.dtype[maker.input[0]]
        readers = self.readers.get(name, [])
        if readers and name not in (*self.inputs, *self.outputs) and all(r.op_type == "QuantizeLinear" for r in readers):
            return self.dtype[readers[0].output[0]]
        return self.dtype[name]

    def is_folded(self, node: NodeProto) -> bool:
        """True where a runtime computes the node once, when it loads the graph."""
        return all(o in self.roots for o in node.output if o)

    def constant_bytes(self, name: str) -> int:
        return stored_bytes(math.prod(self.constants[name].dims), self.dtype[name])

    def tensor_bytes(self, name: str) -> int:
        return stored_bytes(self.elements(name), self.stored_dtype(name))


def read(model: ModelProto) -> Graph:
    """The tables of `model`. Raises InputError if it is not valid ONNX or keeps weights in other files."""
    if any(t.data_location == TensorProto.EXTERNAL for t in model.graph.initializer):
        raise InputError("count: all weights must be in the model, got some in other files; save it as a single file")
    copy = ModelProto()
    copy.CopyFrom(model)
    try:
        copy = inliner.inline_local_functions(copy)
        _fix_dimensions(copy)
        graph = shape_inference.infer_shapes(copy, data_prop=True).graph
    except Exception as error:  # onnx raises several unrelated types for a graph that is not valid
        raise InputError(
            f"count: the graph must be valid ONNX, got {type(error).__name__}: {error}; export it again"
        ) from error
    constants = {t.name: t for t in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant" and not node.domain:
            constants[node.output[0]] = _constant(node)
        else:
            nodes.append(node)
    shape = {name: tuple(t.dims) for name, t in constants.items()}
    dtype = {name: _dtype(t.data_type) for name, t in constants.items()}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if value.name not in shape and tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shape[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
        if tensor.elem_type:
            dtype.setdefault(value.name, _dtype(tensor.elem_type))
    maker = {name: node for node in nodes for name in node.output if name}
    readers: dict[str, list[NodeProto]] = {}
    roots = {name: frozenset({name}) for name in constants}
    for node in nodes:
        inputs = [i for i in node.input if i]
        for name in dict.fromkeys(inputs):
            readers.setdefault(name, []).append(node)
        if inputs and all(i in roots for i in inputs) and not has_subgraph(node):
            roots.update({o: frozenset().union(*(roots[i] for i in inputs)) for o in node.output if o})
    return Graph(
        nodes,
        shape,
        dtype,
        maker,
        readers,
        constants,
        roots,
        tuple(i.name for i in graph.input if i.name not in constants),
        tuple(o.name for o in graph.output),
    )


def _fix_dimensions(model: ModelProto) -> None:
    """Set every symbolic dimension of the inputs to 1 and forget the shapes that were derived from them."""
    initial = {t.name for t in model.graph.initializer}
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value") and value.name not in initial:
                dim.dim_value = 1
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")


def _constant(node: NodeProto) -> TensorProto:
    (attribute,) = node.attribute
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return value
    kind = {"value_float": "float32", "value_floats": "float32", "value_int": "int64", "value_ints": "int64"}
    if attribute.name not in kind:
        raise InputError(f"count: a Constant must hold a tensor or numbers, got {attribute.name}; export it again")
    return numpy_helper.from_array(np.asarray(value, dtype=kind[attribute.name]))


def has_subgraph(node: NodeProto) -> bool:
    """True for If, Loop, Scan and the like."""
    return any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute)
