"""Make a graph fit a target's software stack: operator set, IR version, LayerNormalization, operator list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgetk.core.errors import PreconditionError
from edgetk.core.target import Stack
from edgetk.export.graph import opset_of

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

#: First operator set with LayerNormalization.
LAYER_NORM = 17

#: Operators that operator set 18 brought.
_NEW_IN_18 = frozenset(
    {"BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad", "Col2Im", "GroupNormalization", "Mish"}
)

#: Reductions whose axes moved from attribute to input in operator set 18.
_REDUCTIONS = frozenset(
    f"Reduce{kind}" for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
)


def fit(model: onnx.ModelProto, stack: Stack, name: str) -> onnx.ModelProto:
    """`model` itself if `stack` accepts it, else a converted copy.

    Raises PreconditionError, naming the operators, where a conversion does not exist or `stack` lacks an operator.
    """
    original = model
    norms = any(node.op_type == "LayerNormalization" and not node.domain for node in model.graph.node)
    decompose = norms and (not stack.layer_norm or stack.opset < LAYER_NORM)
    if opset_of(model) > stack.opset or decompose:
        if opset_of(model) > 18:
            model = _convert(model, 18, name, stack)
        if opset_of(model) == 18 and (stack.opset < 18 or decompose):
            model = _to_17(model, name, stack)
        if decompose:
            model = _decompose_layer_norm(model)
        if opset_of(model) > stack.opset:
            model = _convert(model, stack.opset, name, stack)
    if model.ir_version > stack.ir_version:
        if model is original:
            import onnx

            model = onnx.ModelProto()
            model.CopyFrom(original)
        model.ir_version = stack.ir_version
    if unknown := sorted({n.op_type for n in model.graph.node if stack.operators and n.op_type not in stack.operators}):
        raise PreconditionError(
            f"lower: {name} must use operators that {stack.name} has, got {', '.join(unknown)}; "
            "choose another target or replace those layers"
        )
    return model


def _refuse(name: str, stack: Stack, what: str) -> PreconditionError:
    return PreconditionError(
        f"lower: {name} must fit operator set {stack.opset} of {stack.name}, got {what}; "
        "choose a target with a newer stack or replace that operation"
    )


def _convert(model: onnx.ModelProto, version: int, name: str, stack: Stack) -> onnx.ModelProto:
    """The converter that comes with the onnx package."""
    import onnx

    try:
        converted = onnx.version_converter.convert_version(model, version)
    except (RuntimeError, onnx.version_converter.ConvertError) as error:
        reason = str(error).strip().splitlines()[-1].rpartition("failed: ")[2]
        raise _refuse(name, stack, f"an operator without a conversion ({reason})") from error
    if opset_of(converted) != version:
        raise _refuse(name, stack, f"operator set {opset_of(converted)} after conversion")
    return converted


def _to_17(model: onnx.ModelProto, name: str, stack: Stack) -> onnx.ModelProto:
    """Operator set 18 to 17; the onnx package converts reductions but knows no way for Pad and Split."""
    import onnx_ir as ir

    whole = ir.from_proto(model)
    for node in ir.traversal.RecursiveGraphIterator(whole.graph):
        if node.domain:
            continue
        inputs, attributes = node.inputs, node.attributes
        if node.op_type in _NEW_IN_18:
            raise _refuse(name, stack, f"the operator {node.op_type}")
        if node.op_type in _REDUCTIONS:
            if len(inputs) > 1 and inputs[1] is not None:
                axes = _constant(inputs[1])
                if axes is None:
                    raise _refuse(name, stack, f"{node.op_type} with computed axes")
                attributes["axes"] = ir.AttrInt64s("axes", axes.tolist())
            elif "noop_with_empty_axes" in attributes and attributes["noop_with_empty_axes"].as_int():
                raise _refuse(name, stack, f"{node.op_type} without axes")
            attributes.pop("noop_with_empty_axes", None)
            node.resize_inputs(1)
        elif node.op_type == "Split" and "num_outputs" in attributes:
            _fixed_split(whole.graph, node, name, stack)
        elif node.op_type == "Pad" and len(inputs) > 3 and inputs[3] is not None:
            raise _refuse(name, stack, "Pad with axes")
        elif node.op_type == "Resize" and {"antialias", "axes", "keep_aspect_ratio_policy"} & set(attributes):
            raise _refuse(name, stack, "Resize with antialias or axes")
        elif node.op_type in ("ScatterND", "ScatterElements") and "reduction" in attributes:
            kind = attributes["reduction"].as_string()
            if kind in ("min", "max"):
                raise _refuse(name, stack, f"{node.op_type} with reduction {kind}")
    whole.graph.opset_imports[""] = 17
    from onnx_ir.passes import common

    common.RemoveUnusedNodesPass()(whole)
    return ir.to_proto(whole)


def _fixed_split(graph: ir.Graph, node: ir.Node, name: str, stack: Stack) -> None:
    """Write out the sizes of a Split into equal parts."""
    import onnx_ir as ir

    whole = node.inputs[0]
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    size = whole.shape[axis] if whole is not None and whole.shape is not None else None
    if not isinstance(size, int):
        raise _refuse(name, stack, "Split of a dimension of unknown size")
    parts = node.attributes["num_outputs"].as_int()
    step = -(-size // parts)
    key = f"{node.name}/sizes"
    tensor = ir.tensor(np.array([step] * (parts - 1) + [size - step * (parts - 1)], np.int64), name=key)
    value = ir.Value(name=key, shape=ir.Shape([parts]), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    node.attributes.pop("num_outputs")
    node.resize_inputs(2)
    node.replace_input_with(1, value)


def _constant(value: ir.Value) -> np.ndarray | None:
    return None if value.const_value is None or value.is_graph_input() else value.const_value.numpy()


def _decompose_layer_norm(model: onnx.ModelProto) -> onnx.ModelProto:
    """LayerNormalization as mean, variance and affine (Ba et al. 2016, arXiv:1607.06450, eq. 4)."""
    import onnx_ir as ir

    whole = ir.from_proto(model)
    for node in list(whole.graph):
        if node.op_type == "LayerNormalization" and not node.domain:
            _replace_layer_norm(whole.graph, node)
    return ir.to_proto(whole)


def _replace_layer_norm(graph: ir.Graph, node: ir.Node) -> None:
    import onnx_ir as ir

    x, weight = node.inputs[0], node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    attributes = node.attributes
    axis = attributes["axis"].as_int() if "axis" in attributes else -1
    epsilon = attributes["epsilon"].as_float() if "epsilon" in attributes else 1e-5
    assert x is not None
    assert x.shape is not None, "shapes are inferred before"
    axes = list(range(axis, 0)) if axis < 0 else list(range(axis - len(x.shape), 0))
    prefix = node.name or node.outputs[0].name
    new: list[ir.Node] = []

    def op(kind: str, *inputs: ir.Value | None, **attrs: list[int] | int) -> ir.Value:
        label = f"{prefix}/{kind}_{len(new)}"
        made = ir.node(kind, list(inputs), attributes=dict(attrs), name=label)
        made.outputs[0].name = f"{label}_out"
        new.append(made)
        return made.outputs[0]

    key = f"{prefix}/epsilon"
    tensor = ir.tensor(np.float32(epsilon), name=key)
    small = ir.Value(name=key, shape=ir.Shape([]), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(small)
    centred = op("Sub", x, op("ReduceMean", x, axes=axes, keepdims=1))
    variance = op("ReduceMean", op("Mul", centred, centred), axes=axes, keepdims=1)
    y = op("Mul", op("Div", centred, op("Sqrt", op("Add", variance, small))), weight)
    if bias is not None:
        y = op("Add", y, bias)
    old = node.outputs[0]
    y.name, y.shape, y.type = old.name, old.shape, old.type
    ir.convenience.replace_nodes_and_values(graph, node, [node], new, [old], [y])


__all__ = ["fit"]
