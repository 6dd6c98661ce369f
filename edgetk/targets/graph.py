"""An ONNX graph as look-up tables: shapes, types, who makes and who reads a tensor, and what is constant.

Functions are inlined, symbolic dimensions of the inputs become 1, and shapes are inferred anew from there. A shape that
cannot be inferred, behind an operator that ONNX does not know, is the one the file declares, else that of the first input.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    ValueInfoProto,
    inliner,
    numpy_helper,
    shape_inference,
)

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
    opsets: tuple[OperatorSetIdProto, ...] = ()
    #: tensor whose shape could not be inferred -> where the one in `shape` is from
    assumed: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        """True where the shapes of all tensors could be inferred."""
        return all(name in self.shape for name in (*self.inputs, *self.maker) if name)

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


def inlined(model: ModelProto) -> ModelProto:
    """A copy of `model` without functions. Raises InputError if it is not valid ONNX or keeps weights in other files."""
    if any(t.data_location == TensorProto.EXTERNAL for t in model.graph.initializer):
        raise InputError("count: all weights must be in the model, got some in other files; save it as a single file")
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # onnx raises several unrelated types for a graph that is not valid
        raise _not_valid(error) from error


def read(model: ModelProto) -> Graph:
    """The tables of `model`. Raises InputError if it is not valid ONNX or keeps weights in other files."""
    copy = inlined(model)
    told = {value.name: value for value in (*copy.graph.value_info, *copy.graph.output) if _has_shape(value)}
    told = {name: ValueInfoProto.FromString(value.SerializeToString()) for name, value in told.items()}
    _fix_dimensions(copy)
    found = tables(copy)
    assumed: dict[str, str] = {}
    while new := _assumptions(found, told, assumed):
        for value, origin in new:
            _declare(copy.graph, value)
            assumed[value.name] = origin
        found = tables(copy)
    return replace(found, assumed=assumed)


def _has_shape(value: ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.HasField("shape"))


def _assumptions(graph: Graph, told: Mapping[str, ValueInfoProto], done: Mapping[str, str]) -> list[tuple[ValueInfoProto, str]]:
    """Shapes, with their origin, for the outputs of the first node whose inputs are known and outputs are not; else nothing."""
    for node in graph.nodes:
        names = [name for name in node.output if name and name not in graph.shape and name not in done]
        first = next((name for name in node.input if name), None)
        if names and first is not None and all(name in graph.shape for name in reads(node)):
            return [_assumption(graph, name, first, told.get(name)) for name in names]
    return []


def _assumption(graph: Graph, name: str, first: str, told: ValueInfoProto | None) -> tuple[ValueInfoProto, str]:
    """The shape that the file declares, symbolic dimensions 1, else that of `first`; and the type, as far as it is known."""
    shape, origin, given = list(graph.shape[first]), f"{first} has", 0
    if told is not None:
        tensor = told.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else 1 for d in tensor.shape.dim]
        origin, given = "the file declares", tensor.elem_type
    dtype = graph.dtype.get(name) or (_dtype(given) if given else graph.dtype.get(first, "float32"))
    kind = next(k for k in TensorProto.DataType.values() if _dtype(k) == dtype)
    return onnx.helper.make_tensor_value_info(name, kind, shape), origin


def _declare(graph: GraphProto, value: ValueInfoProto) -> None:
    for output in graph.output:
        if output.name == value.name:
            output.type.CopyFrom(value.type)
            return
    graph.value_info.append(value)


def tables(model: ModelProto, constant: Mapping[str, frozenset[str]] | None = None) -> Graph:
    """The tables of a model without functions whose inputs have fixed shapes, after inferring all others.

    `constant` names inputs that hold constants all the same, with the stored tensors they are computed from.
    """
    try:
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:
        raise _not_valid(error) from error
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
    roots = {name: frozenset({name}) for name in constants} | dict(constant or {})
    for node in nodes:
        for name in dict.fromkeys(reads(node)):
            readers.setdefault(name, []).append(node)
        inputs = [i for i in node.input if i]
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
        tuple(i.name for i in graph.input if i.name not in roots),
        tuple(o.name for o in graph.output),
        tuple(model.opset_import),
    )


def _not_valid(error: Exception) -> InputError:
    return InputError(f"count: the graph must be valid ONNX, got {type(error).__name__}: {error}; export it again")


def _fix_dimensions(model: ModelProto) -> None:
    """Set every symbolic dimension of the inputs to 1 and forget the shapes that were derived from them."""
    initial = {t.name for t in model.graph.initializer}
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value") and value.name not in initial:
                dim.dim_value = 1
    forget_shapes(model.graph)


def forget_shapes(graph: GraphProto) -> None:
    """Drop all shapes but those of the graph's own inputs, bodies of control flow included."""
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    for node in graph.node:
        for body in subgraphs(node):
            for value in body.input:
                value.type.tensor_type.ClearField("shape")
            forget_shapes(body)


def _constant(node: NodeProto) -> TensorProto:
    (attribute,) = node.attribute
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return value
    kind = {"value_float": "float32", "value_floats": "float32", "value_int": "int64", "value_ints": "int64"}
    if attribute.name not in kind:
        raise InputError(f"count: a Constant must hold a tensor or numbers, got {attribute.name}; export it again")
    return numpy_helper.from_array(np.asarray(value, dtype=kind[attribute.name]))


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """The bodies of If, Loop, Scan and the like."""
    return [g for a in node.attribute for g in ([a.g] if a.type == onnx.AttributeProto.GRAPH else a.graphs)]


def has_subgraph(node: NodeProto) -> bool:
    """True for If, Loop, Scan and the like."""
    return bool(subgraphs(node))


def captured(node: NodeProto) -> tuple[str, ...]:
    """Tensors that the bodies of a node read from the graph around it."""
    return tuple(dict.fromkeys(name for body in subgraphs(node) for name in _free(body)))


def _free(body: GraphProto) -> Iterable[str]:
    own = {value.name for value in body.input} | {t.name for t in body.initializer}
    for node in body.node:
        yield from (name for name in reads(node) if name not in own)
        own.update(node.output)
    yield from (value.name for value in body.output if value.name not in own)


def reads(node: NodeProto) -> Sequence[str]:
    """All tensors a node needs: its inputs, and what its bodies read from the graph around it."""
    return [name for name in (*node.input, *captured(node)) if name]
