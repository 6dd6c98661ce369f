"""Quantization as TensorRT reads it: symmetric int8 with zero point 0, float biases, and pairs of Q and DQ before version 10.

A change here never changes what the graph computes: where that is not possible, it refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgetk.core.errors import PreconditionError
from edgetk.export.tensorrt_versions import Version
from edgetk.export.values import constant, producer, store

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"


def fit(model: onnx.ModelProto, version: Version, name: str) -> onnx.ModelProto:
    """`model` itself where it holds no Q/DQ, else a copy that TensorRT `version` reads.

    Raises PreconditionError where codes are not symmetric int8 and cannot be written so exactly.
    """
    if not any(node.op_type in (_Q, _DQ) for node in model.graph.node):
        return model
    import onnx_ir as ir

    whole = ir.from_proto(model)
    graph = whole.graph
    for node in list(graph):
        if node.op_type in (_Q, _DQ) and not node.domain and not _float_bias(graph, node):
            _symmetric(graph, node, name)
    if not version.has_integer_weights:
        for node in list(graph):
            if node.op_type == _Q and not node.domain:
                _close(graph, node)
        _move_floats(graph)
        for node in list(graph):
            if node.op_type == _DQ and not node.domain and producer(node.inputs[0], _Q) is None:
                _open(graph, node)
    from edgetk.export.clean import sweep

    sweep(whole)
    return ir.to_proto(whole)


def _label(node: ir.Node) -> str:
    """The node's name, or that of what it makes."""
    return node.name or node.outputs[0].name or node.op_type


def _codes(node: ir.Node) -> np.ndarray | None:
    return constant(node.inputs[0])


def _zero(node: ir.Node) -> np.ndarray | None:
    return constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None


def _float_bias(graph: ir.Graph, node: ir.Node) -> bool:
    """An int32 constant, such as a quantized bias, becomes the float32 numbers it stands for."""
    codes = _codes(node) if node.op_type == _DQ else None
    if codes is None or codes.dtype != np.int32:
        return False
    _replace(graph, node, _values(node, codes))
    return True


def _values(node: ir.Node, codes: np.ndarray) -> np.ndarray:
    """What DequantizeLinear makes of constant codes: (codes - zero point) * scale along its axis."""
    scale, zero = constant(node.inputs[1]), _zero(node)
    assert scale is not None, "scales are constants in every graph that lower accepts"
    shape = [1] * codes.ndim
    if scale.size > 1:
        shape[(node.attributes["axis"].as_int() if "axis" in node.attributes else 1) % codes.ndim] = -1
        scale, zero = scale.reshape(shape), None if zero is None else zero.reshape(shape)
    shifted = codes.astype(np.float32) - (0 if zero is None else zero.astype(np.float32))
    values: np.ndarray = (shifted * scale).astype(np.float32)
    return values


def _replace(graph: ir.Graph, node: ir.Node, array: np.ndarray) -> None:
    import onnx_ir as ir

    made = store(graph, f"{_label(node)}/float", array)
    ir.convenience.replace_all_uses_with(node.outputs[0], made)
    graph.remove(node, safe=True)


def _symmetric(graph: ir.Graph, node: ir.Node, name: str) -> None:
    """Check one Q or DQ; uint8 around 128 is int8 around 0, exactly, and is written so."""
    zero, codes = _zero(node), _codes(node)
    if zero is not None:
        kind = zero.dtype
    elif node.op_type == _Q:
        kind = np.dtype("uint8")
    else:
        stored = node.inputs[0].dtype if node.inputs[0] is not None else None
        kind = codes.dtype if codes is not None else np.dtype(stored.numpy() if stored is not None else "int8")
    point = np.zeros(1, kind) if zero is None else zero
    if kind == np.int8 and (point == 0).all():
        return
    movable = node.op_type == _DQ or all(use.node.op_type == _DQ for use in node.outputs[0].uses())
    if kind != np.uint8 or not (point == 128).all() or not movable:
        raise PreconditionError(
            f"tensorrt: {name} must be quantized to int8 with zero point 0, got {kind} with zero point "
            f"{point.flat[0]} in {_label(node)}; quantize with activation = 'int8'"
        )
    if node.op_type == _DQ and codes is not None:
        node.replace_input_with(0, store(graph, f"{_label(node)}/codes", (codes.astype(np.int16) - 128).astype(np.int8)))
    node.replace_input_with(2, store(graph, f"{_label(node)}/zero", np.zeros(np.shape(point), np.int8)))
    if node.op_type == _Q:
        import onnx_ir as ir

        node.outputs[0].type = ir.TensorType(ir.DataType.INT8)


def _twin(node: ir.Node, kind: str, source: ir.Value, label: str) -> ir.Node:
    """A Q or DQ of the same scale, zero point and axis as `node`."""
    import onnx_ir as ir

    attributes = {"axis": node.attributes["axis"].as_int()} if "axis" in node.attributes else {}
    made = ir.node(kind, [source, *node.inputs[1:]], attributes=attributes, name=f"{_label(node)}/{label}")
    result = made.outputs[0]
    result.name, result.shape = f"{made.name}_out", source.shape
    result.type = ir.TensorType(ir.DataType.INT8 if kind == _Q else ir.DataType.FLOAT)
    return made


def _close(graph: ir.Graph, node: ir.Node) -> None:
    """Put a DQ right behind a Q whose codes are moved about before they are dequantized."""
    codes = node.outputs[0]
    movers = [use for use in codes.uses() if use.node.op_type != _DQ]
    if movers:
        made = _twin(node, _DQ, codes, "dequantized")
        graph.insert_after(node, made)
        for use in movers:
            use.node.replace_input_with(use.idx, made.outputs[0])


def _move_floats(graph: ir.Graph) -> None:
    """What moved codes moves numbers now."""
    import onnx_ir as ir

    for node in graph:
        if node.op_type not in (_Q, _DQ):
            for value in node.outputs:
                if value.dtype == ir.DataType.INT8:
                    value.type = ir.TensorType(ir.DataType.FLOAT)


def _open(graph: ir.Graph, node: ir.Node) -> None:
    """Put a Q in front of a DQ: of a stored weight, as floats; or of numbers that are codes times the scale already."""
    codes = _codes(node)
    source = store(graph, f"{_label(node)}/weight", _values(node, codes)) if codes is not None else node.inputs[0]
    assert source is not None
    if len(node.inputs) < 3:  # a Q without a zero point would give uint8
        scale = constant(node.inputs[1])
        assert scale is not None
        node.resize_inputs(3)
        node.replace_input_with(2, store(graph, f"{_label(node)}/zero", np.zeros(scale.shape, np.int8)))
    made = _twin(node, _Q, source, "quantized")
    graph.insert_before(node, made)
    node.replace_input_with(0, made.outputs[0])


__all__ = ["fit"]
