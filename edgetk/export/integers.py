"""Quantized products in the form that onnxruntime's integer kernels are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgetk.export.values import constant, producer, store

if TYPE_CHECKING:
    import onnx_ir as ir


def integer_kernels(model: ir.Model) -> None:
    """Write quantized products the way onnxruntime makes integer kernels of, in place.

    Convolutions: the bias as int32 with scale s_x * s_w (Jacob et al. 2018, eq. 11), half an accumulator step of rounding.
    Gemm: as MatMul and a subtraction of -b. Seen with onnxruntime 1.32 on x86: Gemm -> Relu (and MatMul -> Add, which it turns
    into Gemm first) is fused as a float product before quantization is looked at, and its weights are dequantized at every
    call; nothing is fused with the subtraction, so the product becomes MatMulIntegerToFloat. Four times faster for one frame.
    """
    for node in list(model.graph):
        if node.op_type == "Conv" and len(node.inputs) > 2:
            _quantize_bias(model.graph, node, 2, node)
        elif node.op_type == "Gemm" and _quantized(node):
            _split_gemm(model.graph, node)
        elif node.op_type == "Add":
            _subtract_bias(model.graph, node)


def own_zero_points(graph: ir.Graph) -> None:
    """Each int8 weight gets a zero point of its own, in place.

    ONNX Runtime's way to exact products on x86 processors without VNNI (`session.x64quantprecision`) refuses shared ones.
    """
    seen = set()
    for node in list(graph):
        codes = constant(node.inputs[0]) if node.op_type == "DequantizeLinear" and len(node.inputs) > 2 else None
        zero = constant(node.inputs[2]) if codes is not None and codes.dtype == np.int8 else None
        if zero is None:
            continue
        name = node.inputs[2].name  # type: ignore[union-attr]
        if name in seen:
            node.replace_input_with(2, store(graph, f"{node.name}.zero_point", zero))
        seen.add(name)


def _quantized(product: ir.Node) -> bool:
    return all(producer(value, "DequantizeLinear") for value in product.inputs[:2])


def _subtract_bias(graph: ir.Graph, add: ir.Node) -> None:
    """quantized MatMul + b becomes the product minus -b."""
    import onnx_ir as ir

    for side in (0, 1):
        product, bias = producer(add.inputs[1 - side], "MatMul"), constant(add.inputs[side])
        if product is None or bias is None or not _quantized(product) or len(product.outputs[0].uses()) != 1:
            continue
        old = add.inputs[side]
        assert old is not None
        node = ir.node("Sub", [product.outputs[0], store(graph, f"{old.name}_negative", -bias)], name=add.name)
        node.outputs[0].type, node.outputs[0].shape = add.outputs[0].type, add.outputs[0].shape
        ir.convenience.replace_nodes_and_values(graph, add, [add], [node], [add.outputs[0]], [node.outputs[0]])
        return


def _split_gemm(graph: ir.Graph, gemm: ir.Node) -> None:
    import onnx_ir as ir

    options = {name: gemm.attributes[name] for name in ("alpha", "beta", "transA", "transB") if name in gemm.attributes}
    weight = producer(gemm.inputs[1], "DequantizeLinear")
    codes = constant(weight.inputs[0]) if weight is not None else None
    bias = constant(gemm.inputs[2]) if len(gemm.inputs) > 2 else None
    plain = all(options[n].as_float() == 1.0 for n in ("alpha", "beta") if n in options)
    straight = "transA" not in options or options["transA"].as_int() == 0
    if weight is None or codes is None or not plain or not straight or (len(gemm.inputs) > 2 and bias is None):
        return
    nodes = []
    flip = "transB" in options and options["transB"].as_int() == 1
    right = weight.outputs[0]
    if flip:
        axis = weight.attributes["axis"].as_int() % 2 if "axis" in weight.attributes else 1
        attributes = {"axis": 1 - axis} if "axis" in weight.attributes else {}
        source = weight.inputs[0]
        assert source is not None
        stored = store(graph, f"{source.name}_transposed", codes.T)
        flipped = ir.node("DequantizeLinear", [stored, *weight.inputs[1:]], attributes=attributes, name=weight.name)
        right = flipped.outputs[0]
        right.name, right.type, right.shape = (
            f"{weight.outputs[0].name}_transposed",
            weight.outputs[0].type,
            ir.Shape(codes.T.shape),
        )
        nodes.append(flipped)
    product = ir.node("MatMul", [gemm.inputs[0], right], name=(gemm.name or "").replace("Gemm", "MatMul"))
    nodes.append(product)
    if bias is None:
        bias = np.zeros(codes.shape[0] if flip else codes.shape[-1], np.float32)
    negative = store(graph, f"{gemm.name}.bias_negative", -bias)
    product.outputs[0].name = f"{product.name}_product"
    nodes.append(ir.node("Sub", [product.outputs[0], negative], name=(gemm.name or "").replace("Gemm", "Sub")))
    last, result = nodes[-1].outputs[0], gemm.outputs[0]
    for node in nodes:
        node.outputs[0].type = result.type
    product.outputs[0].shape = last.shape = result.shape
    ir.convenience.replace_nodes_and_values(graph, gemm, [gemm], nodes, [result], [last])


def _quantize_bias(graph: ir.Graph, node: ir.Node, index: int, product: ir.Node) -> None:
    """Replace the constant input `index` of `node` where both inputs of `product` are dequantized by known scales."""
    import onnx_ir as ir

    bias = constant(node.inputs[index])
    steps = [
        constant(dequantize.inputs[1]) if (dequantize := producer(value, "DequantizeLinear")) is not None else None
        for value in product.inputs[:2]
    ]
    old = node.inputs[index]
    if old is None or bias is None or bias.dtype != np.float32 or bias.ndim != 1 or steps[0] is None or steps[1] is None:
        return
    scale = np.broadcast_to((steps[0] * steps[1]).astype(np.float32).reshape(-1), bias.shape)
    codes = np.round(bias / scale)
    if steps[0].size != 1 or np.abs(codes).max(initial=0) > 2**31 - 1:
        return
    name = old.name or "bias"
    values = [
        store(graph, f"{name}_int32", codes.astype(np.int32)),
        store(graph, f"{name}_scale", scale),
        store(graph, f"{name}_zero_point", np.zeros(bias.shape, np.int32)),
    ]
    new = ir.node("DequantizeLinear", values, attributes={"axis": 0}, name=f"{name}/DequantizeLinear")
    result = new.outputs[0]
    result.name, result.shape, result.type = f"{name}_dequantized", old.shape, old.type
    graph.insert_before(product, new)
    node.replace_input_with(index, result)
    if not old.uses():
        del graph.initializers[name]
