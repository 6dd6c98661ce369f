"""Matrix products and convolutions as steps: int8 weights times codes where both are quantized, float32 else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgetk.export.c.graph import Node, refuse
from edgetk.export.c.planner import Planner
from edgetk.export.c.steps import (
    FLOAT,
    Array,
    Codes,
    Constant,
    Convolve,
    Dense,
    FloatDense,
    Memory,
    Operand,
    Segment,
    Weights,
    dequantized,
)  # fmt: skip


def matmul(planner: Planner, node: Node) -> Operand:
    """x W with constant W (inputs, outputs)."""
    return _product(planner, node, transposed=False, bias=None)


def gemm(planner: Planner, node: Node) -> Operand:
    """x W + b, or x W' + b."""
    get = node.attributes.get
    if (get("alpha", 1.0), get("beta", 1.0), get("transA", 0)) != (1.0, 1.0, 0):
        raise refuse("Gemm must be x W + b", f"{node.name} with alpha, beta or transA", "write it as MatMul and Add")
    bias = planner.optional(node, 2)
    return _product(planner, node, transposed=bool(get("transB", 0)), bias=bias)


def _product(planner: Planner, node: Node, transposed: bool, bias: np.ndarray | None) -> Operand:
    x, w = (planner.operand(name) for name in node.inputs[:2])
    shape = planner.graph.shapes[node.outputs[0]]
    if not isinstance(w, Weights | Constant) or len(w.shape) != 2:
        raise refuse("products must have constant weights", f"{node.kind} {node.name}", "export that layer to onnx instead")
    inputs, outputs = reversed(w.shape) if transposed else w.shape
    if x.size != inputs:
        got = f"{node.name} with {x.size // inputs} rows"
        raise refuse("products must have one row a step", got, "export the stream form")
    target = planner.buffer(node.outputs[0], outputs)
    if bias is not None and bias.size != outputs:
        bias = np.broadcast_to(bias, (outputs,))
    if isinstance(x, Codes) and isinstance(w, Weights):
        if w.scale.size > 1 and w.axis != (0 if transposed else 1):
            raise refuse("weights must have a scale per output", f"{node.name} along axis {w.axis}", "quantize per output")
        rows = w.codes if transposed else w.codes.T
        _dense(planner, node, x, rows, w.scale, bias, target)
    else:
        matrix = dequantized(w) if isinstance(w, Weights) else w.array.astype(np.float32)
        _float(planner, node, x, matrix.T if transposed else matrix, bias, target)
    return Memory((target,), shape)


def _dense(
    planner: Planner, node: Node, x: Codes, rows: np.ndarray, scale: np.ndarray, bias: np.ndarray | None, target: Segment
) -> None:
    outputs, inputs = rows.shape
    stride = -(-inputs // 4) * 4
    padded = np.zeros((outputs, stride), np.int8)
    padded[:, :inputs] = rows
    name = _layer(node)
    planner.count("int8", inputs * outputs)
    planner.steps.append(
        Dense(
            target, planner.contiguous(x, name), x.grid.zero, stride,
            planner.array(f"{name}_weights", padded, "int8_t"),
            planner.array(f"{name}_sums", rows.astype(np.int32).sum(axis=1, dtype=np.int32), "int32_t"),
            planner.array(f"{name}_scale", _scales(x, scale, outputs), FLOAT),
            None if bias is None else planner.array(f"{name}_bias", bias.astype(np.float32), FLOAT),
            planner.buffer(f"{name}_scratch", stride, "int16_t"),
        )
    )  # fmt: skip


def _scales(x: Codes, scale: np.ndarray, outputs: int) -> np.ndarray:
    """Scale of the input times that of the weights, in float32 as onnxruntime multiplies them."""
    made: np.ndarray = np.float32(x.grid.scale) * np.broadcast_to(scale.reshape(-1).astype(np.float32), (outputs,))
    return made


def _float(planner: Planner, node: Node, x: Operand, matrix: np.ndarray, bias: np.ndarray | None, target: Segment) -> None:
    name = _layer(node)
    planner.count("float32", matrix.size)
    planner.steps.append(
        FloatDense(
            target, planner.contiguous(planner.memory(x, node.inputs[0]), name),
            planner.array(f"{name}_weights", np.ascontiguousarray(matrix), FLOAT),
            None if bias is None else planner.array(f"{name}_bias", bias.astype(np.float32), FLOAT),
        )
    )  # fmt: skip


def _layer(node: Node) -> str:
    return node.name.split("/")[0] if "/" in node.name else node.name


def biased(planner: Planner, node: Node) -> Operand | None:
    """A product plus or minus a constant as the product with a bias; None for anything else."""
    if node.kind not in ("Add", "Sub") or len(node.inputs) != 2:
        return None
    for side in (0, 1) if node.kind == "Add" else (0,):
        product, other = planner.operand(node.inputs[side]), planner.operand(node.inputs[1 - side])
        if not isinstance(product, Memory) or not isinstance(other, Constant) or len(product.segments) != 1:
            continue
        at = next((i for i, s in enumerate(planner.steps) if s.target == product.segments[0]), None)
        step = planner.steps[at] if at is not None else None
        fits = other.size == product.size and planner.graph.uses[node.inputs[side]] == 1
        if at is None or not isinstance(step, Dense | FloatDense) or step.bias is not None or not fits:
            continue
        sign = np.float32(-1.0 if node.kind == "Sub" else 1.0)
        bias = planner.array(f"{_layer(node)}_bias", (sign * other.array.reshape(-1)).astype(np.float32), FLOAT)
        planner.steps[at] = replace(step, bias=bias)
        return Memory(product.segments, planner.graph.shapes[node.outputs[0]])
    return None


def _words(codes: np.ndarray) -> np.ndarray:
    """Filled up with zeros to whole words."""
    return np.pad(codes.reshape(-1), (0, -codes.size % 4))


def convolution(planner: Planner, node: Node) -> Operand:
    """A two-dimensional convolution of codes by int8 weights, dense or depthwise."""
    x, w = (planner.operand(name) for name in node.inputs[:2])
    if not isinstance(x, Codes) or not isinstance(w, Weights) or w.codes.ndim != 4 or x.shape[0] != 1:
        raise refuse("convolutions must be quantized, over pictures, at batch 1", node.name, "quantize it, or export to onnx")
    get = node.attributes.get
    shape = planner.graph.shapes[node.outputs[0]]
    groups, channels = int(get("group", 1)), x.shape[1]
    pads = list(get("pads", [0, 0, 0, 0]))
    auto = get("auto_pad", b"NOTSET")
    if auto not in (b"NOTSET", "NOTSET") or tuple(get("dilations", (1, 1))) != (1, 1):
        raise refuse("convolutions must have explicit pads and no dilation", node.name, "write the pads out")
    if groups not in (1, channels) or (groups > 1 and w.codes.shape[0] != channels):
        raise refuse("convolutions must be dense or depthwise", f"{node.name} with {groups} groups", "split it into layers")
    bias = planner.operand(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None and not isinstance(bias, Constant):
        raise refuse("a bias must be a constant", node.name, "fold it first")
    outputs, name = w.codes.shape[0], _layer(node)
    target = planner.buffer(node.outputs[0], int(np.prod(shape)))
    planner.count("int8", int(np.prod(shape)) * int(np.prod(w.codes.shape[1:])))
    stored: Array | None = None
    if bias is not None:
        stored = planner.array(f"{name}_bias", bias.array.astype(np.float32).reshape(-1), FLOAT)
    planner.steps.append(
        Convolve(
            target, planner.contiguous(x, name), x.grid.zero, planner.array(f"{name}_weights", _words(w.codes), "int8_t"),
            planner.array(f"{name}_scale", _scales(x, w.scale, outputs), FLOAT), stored,
            (channels, x.shape[2], x.shape[3]), (shape[1], shape[2], shape[3]), (w.codes.shape[2], w.codes.shape[3]),
            (int(get("strides", (1, 1))[0]), int(get("strides", (1, 1))[1])), (int(pads[0]), int(pads[1])), groups > 1,
        )
    )  # fmt: skip
    return Memory((target,), shape)
