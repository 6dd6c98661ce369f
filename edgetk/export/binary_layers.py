"""What in a graph is binary: attention on codes and weights of two values, with bits, operations by kind, and what runs it.

Operations of binary attention are those of its body (`edgetk.export.functions`): with codes of -1 and +1 the two products
are additions and subtractions, where a runtime computes them so. Stock runtimes multiply.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetk.models.layers.operators import DOMAIN

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class BinaryLayer:
    """One layer. Counts are of one inference with a batch of 1.

    kind              "attention on codes" or "binary weights"
    shape             attention: heads x tokens x bits of the codes, and the width of a head; weights: as stored
    values            binary values: of the codes, which are computed anew for each input, or of the weights
    stored_bytes      on disk: nothing for codes, a byte for each weight
    packed_bytes      with a bit for each value: of the codes in memory, or of the weights on disk
    additions         of +/- values instead of products with codes or weights, where a runtime adds
    multiplications   that are left: with beta, with scales
    divisions         by the sum of the weights
    """

    name: str
    kind: str
    shape: str
    values: int
    stored_bytes: int
    packed_bytes: int
    additions: int
    multiplications: int
    divisions: int


#: runtime -> how it runs each kind
RUNS_AS = {
    "onnxruntime": {
        "attention on codes": "its body of standard operators: float32 products",
        "binary weights": "int8 dequantized when the model is loaded: float32 products",
    },
    "onnxruntime with edgetk's operator library": {
        "attention on codes": "the native kernel: codes of packed bits, additions",
        "binary weights": "int8 dequantized when the model is loaded: float32 products",
    },
    "TensorRT": {
        "attention on codes": "its body, inlined by the parser: float products",
        "binary weights": "constants folded when the engine is built: float products",
    },
}


def binary_layers(model: onnx.ModelProto) -> tuple[BinaryLayer, ...]:
    """The binary layers of `model`, in the graph's order: attention first. Empty where it has none."""
    return (*_attention(model), *_weights(model))


def _attention(model: onnx.ModelProto) -> Iterable[BinaryLayer]:
    nodes = [n for n in model.graph.node if n.domain == DOMAIN and n.op_type == "BinaryLinearAttention"]
    if not nodes:
        return
    shapes = _shapes(model)
    for node in nodes:
        _, heads, tokens, bits = shapes[node.input[0]]
        dim = shapes[node.input[2]][-1]
        rows = heads * tokens
        products = 2 * rows * bits * dim  # codes^T v, codes (codes^T v)
        sums = rows * bits + rows * bits  # the sum of all codes, and each code with it
        yield BinaryLayer(
            name=node.name or node.output[0],
            kind="attention on codes",
            shape=f"{heads} heads x {tokens} tokens x {bits} bits, values of {dim}",
            values=rows * bits,
            stored_bytes=0,
            packed_bytes=rows * math.ceil(bits / 8),
            additions=products + sums + rows * dim + rows,  # beta * own, and tokens * beta
            multiplications=rows * dim,
            divisions=rows * dim,
        )


def _weights(model: onnx.ModelProto) -> Iterable[BinaryLayer]:
    """Stored int8 tensors of nothing but -1 and +1 that a DequantizeLinear reads, with the product that they are in."""
    from onnx import TensorProto, numpy_helper

    stored = {t.name: t for t in model.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) >= 2}
    readers = {name: node for node in model.graph.node for name in node.input}
    for node in model.graph.node:
        tensor = stored.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if tensor is None or not bool((np.abs(numpy_helper.to_array(tensor)) == 1).all()):
            continue
        product = readers[node.output[0]]
        while product.op_type == "Transpose":
            product = readers[product.output[0]]
        values, output = math.prod(tensor.dims), _shapes(model)[product.output[0]]
        channels = tensor.dims[0] if product.op_type == "Conv" else output[-1]
        yield BinaryLayer(
            name=node.input[0],
            kind="binary weights",
            shape=" x ".join(map(str, tensor.dims)),
            values=values,
            stored_bytes=values,
            packed_bytes=math.ceil(values / 8),
            additions=math.prod(output) * (values // channels),
            multiplications=math.prod(output),
            divisions=0,
        )


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Every known shape of the graph with its functions inlined and a batch of 1."""
    from onnx import inliner, shape_inference

    copy = inliner.inline_local_functions(model)
    for value in copy.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = 1
    graph = shape_inference.infer_shapes(copy, data_prop=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {v.name: tuple(d.dim_value or 1 for d in v.type.tensor_type.shape.dim) for v in values}


__all__ = ["RUNS_AS", "BinaryLayer", "binary_layers"]
