"""Matrix products and convolutions as steps: int8 weights times codes where both are quantized, float32 else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgetk.export.c.graph import Node, refuse
from edgetk.export.c.operands import FLOAT, Array, Codes, Constant, Memory, Operand, Segment, Weights, dequantized
from edgetk.export.c.planner import Planner
from edgetk.export.c.steps import Convolve, Dense, FloatDense, Product


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
    if isinstance(w, Constant) and len(w.shape) > 2:
        return _per_head(planner, node, x, w)
    if not isinstance(w, Weights | Constant) or len(w.shape) != 2:
        return _both(planner, node, x, w)
    inputs, outputs = reversed(w.shape) if transposed else w.shape
    target = planner.buffer(node.outputs[0], x.size // inputs * outputs)
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
    name, count = _layer(node), x.size // inputs
    planner.count("int8", count * inputs * outputs)
    planner.steps.append(
        Dense(
            target, planner.contiguous(x, name), x.grid.zero, stride,
            planner.array(f"{name}_weights", padded, "int8_t"),
            planner.array(f"{name}_sums", rows.astype(np.int32).sum(axis=1, dtype=np.int32), "int32_t"),
            planner.array(f"{name}_scale", _scales(x, scale, outputs), FLOAT),
            None if bias is None else planner.array(f"{name}_bias", bias.astype(np.float32), FLOAT),
            planner.buffer(f"{name}_scratch", stride, "int16_t"), count,
        )
    )  # fmt: skip


def _scales(x: Codes, scale: np.ndarray, outputs: int) -> np.ndarray:
    """Scale of the input times that of the weights, in float32 as onnxruntime multiplies them."""
    made: np.ndarray = np.float32(x.grid.scale) * np.broadcast_to(scale.reshape(-1).astype(np.float32), (outputs,))
    return made


def _float(planner: Planner, node: Node, x: Operand, matrix: np.ndarray, bias: np.ndarray | None, target: Segment) -> None:
    name, count = _layer(node), x.size // len(matrix)
    planner.count("float32", count * matrix.size)
    planner.steps.append(
        FloatDense(
            target, planner.contiguous(planner.memory(x, node.inputs[0]), name),
            planner.array(f"{name}_weights", np.ascontiguousarray(matrix), FLOAT),
            None if bias is None else planner.array(f"{name}_bias", bias.astype(np.float32), FLOAT), count,
        )
    )  # fmt: skip


def _per_head(planner: Planner, node: Node, x: Operand, w: Constant) -> Operand:
    """A product with a constant matrix for each head: x (…, heads, rows, inputs), w (…, heads, inputs, outputs)."""
    shape = planner.graph.shapes[node.outputs[0]]
    if int(np.prod(w.shape[:-2])) not in (1, int(np.prod(x.shape[:-2]))):
        got = f"{node.name} of {list(x.shape)} and {list(w.shape)}"
        raise refuse("products must have one constant matrix, or one for each head", got, "write it so")
    source, target = (
        planner.contiguous(planner.memory(x, node.inputs[0]), node.inputs[0]),
        planner.buffer(node.outputs[0], int(np.prod(shape))),
    )
    matrices = w.array.reshape(-1, *w.shape[-2:]).astype(np.float32)
    each, made = source.size // len(matrices), target.size // len(matrices)
    planner.count("float32", source.size * w.shape[-1])
    for h, matrix in enumerate(matrices):
        weights = planner.array(f"{_layer(node)}_weights", np.ascontiguousarray(matrix), FLOAT)
        parts = target.part(h * made, made), source.part(h * each, each)
        planner.steps.append(FloatDense(*parts, weights, None, each // w.shape[-2]))
    return Memory((target,), shape)


def _both(planner: Planner, node: Node, a: Operand, b: Operand) -> Operand:
    """A product of two tensors that are both computed, in float32: attention's."""
    shape = planner.graph.shapes[node.outputs[0]]
    alike = node.kind == "MatMul" and len(a.shape) == len(b.shape) > 1 and a.shape[:-2] == b.shape[:-2]
    if not alike or isinstance(a, Constant | Weights) or isinstance(b, Constant | Weights):
        got = f"{node.kind} {node.name} of {list(a.shape)} and {list(b.shape)}"
        raise refuse("products must have constant weights, or two computed tensors of as many axes", got, "write it so")
    rows, inner, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    target, batch = planner.buffer(node.outputs[0], int(np.prod(shape))), a.size // (rows * inner)
    sides = [planner.contiguous(planner.memory(v, n), n) for v, n in zip((a, b), node.inputs, strict=True)]
    planner.count("float32", batch * rows * inner * columns)
    planner.steps.append(Product(target, sides[0], sides[1], batch, rows, inner, columns))
    return Memory((target,), shape)


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
        fits = (
            isinstance(step, Dense | FloatDense)
            and other.size == product.size // step.rows == product.shape[-1]
            and planner.graph.uses[node.inputs[side]] == 1
        )
        if at is None or not isinstance(step, Dense | FloatDense) or step.bias is not None or not fits:
            continue
        sign = np.float32(-1.0 if node.kind == "Sub" else 1.0)
        bias = planner.array(f"{_layer(node)}_bias", (sign * other.array.reshape(-1)).astype(np.float32), FLOAT)
        planner.steps[at] = replace(step, bias=bias)
        return Memory(product.segments, planner.graph.shapes[node.outputs[0]])
    return None


def words(codes: np.ndarray) -> np.ndarray:
    """Filled up with zeros to whole words."""
    return np.pad(codes.reshape(-1), (0, -codes.size % 4))


def convolution(planner: Planner, node: Node) -> Operand:
    """A two-dimensional convolution, dense or depthwise: of codes by int8 weights, or in float32."""
    x, w = (planner.operand(name) for name in node.inputs[:2])
    if not isinstance(w, Weights | Constant) or len(w.shape) != 4 or x.shape[0] != 1:
        raise refuse("convolutions must be over pictures, at batch 1, with constant weights", node.name, "export it to onnx")
    in_codes = isinstance(x, Codes) and isinstance(w, Weights)
    get = node.attributes.get
    shape = planner.graph.shapes[node.outputs[0]]
    groups, channels = int(get("group", 1)), x.shape[1]
    pads = list(get("pads", [0, 0, 0, 0]))
    auto = get("auto_pad", b"NOTSET")
    if auto not in (b"NOTSET", "NOTSET") or tuple(get("dilations", (1, 1))) != (1, 1):
        raise refuse("convolutions must have explicit pads and no dilation", node.name, "write the pads out")
    if groups not in (1, channels) or (groups > 1 and w.shape[0] != channels):
        raise refuse("convolutions must be dense or depthwise", f"{node.name} with {groups} groups", "split it into layers")
    bias = planner.operand(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None and not isinstance(bias, Constant):
        raise refuse("a bias must be a constant", node.name, "fold it first")
    outputs, name = w.shape[0], _layer(node)
    target = planner.buffer(node.outputs[0], int(np.prod(shape)))
    planner.count("int8" if in_codes else "float32", int(np.prod(shape)) * int(np.prod(w.shape[1:])))
    stored: Array | None = None
    if bias is not None:
        stored = planner.array(f"{name}_bias", bias.array.astype(np.float32).reshape(-1), FLOAT)
    if isinstance(x, Codes) and isinstance(w, Weights):
        source, zero, weights = (
            planner.contiguous(x, name),
            x.grid.zero,
            planner.array(f"{name}_weights", words(w.codes), "int8_t"),
        )
        scale: Array | None = planner.array(f"{name}_scale", _scales(x, w.scale, outputs), FLOAT)
    else:
        values = dequantized(w) if isinstance(w, Weights) else w.array.astype(np.float32)
        source, zero, scale = planner.contiguous(planner.memory(x, node.inputs[0]), name), 0, None
        weights = planner.array(f"{name}_weights", values, FLOAT)
    planner.steps.append(
        Convolve(
            target, source, zero, weights, scale, stored,
            (channels, x.shape[2], x.shape[3]), (shape[1], shape[2], shape[3]), (w.shape[2], w.shape[3]),
            (int(get("strides", (1, 1))[0]), int(get("strides", (1, 1))[1])), (int(pads[0]), int(pads[1])), groups > 1,
        )
    )  # fmt: skip
    return Memory((target,), shape)
