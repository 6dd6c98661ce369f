"""Make a graph fit a target's software stack: operator set, IR version, LayerNormalization, functions, operator list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetk.core.errors import PreconditionError
from edgetk.core.target import Stack
from edgetk.export import functions
from edgetk.export.graph import opset_of

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

#: First operator set with LayerNormalization.
LAYER_NORM = 17

#: Operators that an operator set brought (ONNX changelog).
_NEW: Mapping[int, frozenset[str]] = {
    18: frozenset(
        {"BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad", "Col2Im", "GroupNormalization", "Mish"}
    ),
    17: frozenset({"BlackmanWindow", "DFT", "HammingWindow", "HannWindow", "MelWeightMatrix", "STFT", "SequenceMap"}),
    16: frozenset({"GridSample", "RoiAlign"}),  # RoiAlign is older but meant another grid
    15: frozenset({"Bernoulli", "CastLike", "Optional"}),
    14: frozenset({"HardSwish", "Trilu"}),
}

#: Attributes that an operator set brought, with the value that means what the operator did before.
_ATTRIBUTES: Mapping[int, Mapping[tuple[str, str], Any]] = {
    18: {("Resize", "antialias"): 0, ("Resize", "keep_aspect_ratio_policy"): "stretch"},
    17: {},
    16: {("ScatterND", "reduction"): "none", ("ScatterElements", "reduction"): "none"},
    15: {},
    14: {
        ("Reshape", "allowzero"): 0,
        ("BatchNormalization", "training_mode"): 0,
        ("GRU", "layout"): 0,
        ("LSTM", "layout"): 0,
        ("RNN", "layout"): 0,
    },
}

#: Reductions whose axes moved from attribute to input in operator set 18.
_REDUCTIONS = frozenset(
    f"Reduce{kind}" for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
)


def fit(model: onnx.ModelProto, stack: Stack, name: str) -> onnx.ModelProto:
    """`model` itself if `stack` accepts it, else a converted copy.

    Raises PreconditionError, naming the operators, where a conversion does not exist or `stack` lacks an operator.
    """
    original, model = model, functions.settle(model, stack)
    norms = any(node.op_type == "LayerNormalization" and not node.domain for node in model.graph.node)
    decompose = norms and (not stack.layer_norm or stack.opset < LAYER_NORM)
    if opset_of(model) > stack.opset or decompose:
        if opset_of(model) > 18:
            model = _convert(model, 18, name, stack)
        model = _lower(model, stack, name, decompose)
        if opset_of(model) > stack.opset:
            model = _convert(model, stack.opset, name, stack)
    if model.ir_version > stack.ir_version:
        if model is original:
            import onnx

            model = onnx.ModelProto()
            model.CopyFrom(original)
        model.ir_version = stack.ir_version
    model = functions.attach(model)
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


def _lower(model: onnx.ModelProto, stack: Stack, name: str, decompose: bool) -> onnx.ModelProto:
    """From operator set 18 or below down to `stack.opset`, 13 at the lowest, and LayerNormalization replaced on the way.

    The onnx package's converter knows no way down for Pad, Split or plain Add, so these steps are made here.
    """
    import onnx_ir as ir
    from onnx_ir.passes import common

    whole = ir.from_proto(model)
    version = opset_of(model)
    while version > max(stack.opset, 13) or (decompose and version >= LAYER_NORM):
        if version == LAYER_NORM and decompose:
            for node in list(whole.graph):
                if node.op_type == "LayerNormalization" and not node.domain:
                    _replace_layer_norm(whole.graph, node)
            decompose = False
            continue
        for node in list(ir.traversal.RecursiveGraphIterator(whole.graph)):
            if not node.domain:
                _one_down(node, version, name, stack)
        version -= 1
    whole.graph.opset_imports[""] = version
    common.RemoveUnusedNodesPass()(whole)
    return ir.to_proto(whole)


def _one_down(node: ir.Node, version: int, name: str, stack: Stack) -> None:
    """Make `node`, of operator set `version`, one of the operator set before."""
    if node.op_type in _NEW[version]:
        raise _refuse(name, stack, f"the operator {node.op_type}")
    for (kind, key), before in _ATTRIBUTES[version].items():
        attribute = node.attributes.get(key) if kind == node.op_type else None
        if attribute is not None:
            value = attribute.as_string() if isinstance(before, str) else attribute.as_int()
            if value != before:
                raise _refuse(name, stack, f"{kind} with {key} = {value}")
            del node.attributes[key]
    if version == 18:
        _from_18(node, name, stack)
    elif version == 15 and node.op_type == "Shape" and {"start", "end"} & set(node.attributes):
        _whole_shape(node)


def _from_18(node: ir.Node, name: str, stack: Stack) -> None:
    import onnx_ir as ir

    inputs, attributes = node.inputs, node.attributes
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
        _fixed_split(node, name, stack)
    elif node.op_type == "Pad" and len(inputs) > 3 and inputs[3] is not None:
        raise _refuse(name, stack, "Pad with axes")
    elif node.op_type == "Resize" and "axes" in attributes:
        raise _refuse(name, stack, "Resize with axes")
    elif node.op_type in ("ScatterND", "ScatterElements") and "reduction" in attributes:
        kind = attributes["reduction"].as_string()
        if kind in ("min", "max"):
            raise _refuse(name, stack, f"{node.op_type} with reduction {kind}")


def _whole_shape(node: ir.Node) -> None:
    """Shape of some dimensions as a Slice of the whole Shape."""
    import onnx_ir as ir

    start = node.attributes["start"].as_int() if "start" in node.attributes else 0
    end = node.attributes["end"].as_int() if "end" in node.attributes else 2**31 - 1
    node.attributes.pop("start", None)
    node.attributes.pop("end", None)
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    limits = [_store(graph, f"{node.name}/{label}", [value]) for label, value in (("start", start), ("end", end))]
    whole = node.outputs[0]
    part = ir.node("Slice", [whole, *limits], name=f"{node.name}/Slice")
    result = part.outputs[0]
    result.name, result.shape, result.type = f"{node.name}/Slice_out", whole.shape, whole.type
    ir.convenience.replace_all_uses_with(whole, result)
    part.replace_input_with(0, whole)
    whole.shape = None
    graph.insert_after(node, part)


def _store(graph: ir.Graph, name: str, numbers: list[int]) -> ir.Value:
    import onnx_ir as ir

    tensor = ir.tensor(np.array(numbers, np.int64), name=name)
    value = ir.Value(name=name, shape=ir.Shape([len(numbers)]), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _fixed_split(node: ir.Node, name: str, stack: Stack) -> None:
    """Write out the sizes of a Split into equal parts."""
    import onnx_ir as ir

    whole = node.inputs[0]
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    size = whole.shape[axis] if whole is not None and whole.shape is not None else None
    if not isinstance(size, int):
        raise _refuse(name, stack, "Split of a dimension of unknown size")
    parts = node.attributes["num_outputs"].as_int()
    step = -(-size // parts)
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    value = _store(graph, f"{node.name}/sizes", [step] * (parts - 1) + [size - step * (parts - 1)])
    node.attributes.pop("num_outputs")
    node.resize_inputs(2)
    node.replace_input_with(1, value)


def _constant(value: ir.Value) -> np.ndarray | None:
    return None if value.const_value is None or value.is_graph_input() else value.const_value.numpy()


def _replace_layer_norm(graph: ir.Graph, node: ir.Node) -> None:
    """LayerNormalization as mean, variance and affine (Ba et al. 2016, arXiv:1607.06450, eq. 4)."""
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
