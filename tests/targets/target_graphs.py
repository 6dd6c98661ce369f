"""Tiny ONNX graphs for the tests of this room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Shape = Sequence[int | str]


def model(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape | None],
    constants: Mapping[str, np.ndarray] | None = None,
    **more: object,
) -> ModelProto:
    """A model of opset 17 with float32 inputs and outputs."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in inputs.items()],
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in outputs.items()],
        [numpy_helper.from_array(v, k) for k, v in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("edgetk", 1), helper.make_opsetid("other", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **more)


def dense(out: int = 3, batch: int | str = 1) -> ModelProto:
    """y (1, out) = x (1, 5) W (5, out) + b."""
    constants = {"w": np.ones((5, out), np.float32), "b": np.zeros(out, np.float32)}
    return model([helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="fc")], {"x": [batch, 5]}, {"y": None}, constants)


def stream() -> ModelProto:
    """state_a_out (1, 4) = x + 0.5 state_a, y = its MatMul with a (4, 2) matrix."""
    nodes = [
        helper.make_node("Mul", ["state_a", "half"], ["kept"], name="decay"),
        helper.make_node("Add", ["x", "kept"], ["state_a_out"], name="add"),
        helper.make_node("MatMul", ["state_a_out", "w"], ["y"], name="out"),
    ]
    constants = {"half": np.array(0.5, np.float32), "w": np.ones((4, 2), np.float32)}
    return model(nodes, {"x": [1, 4], "state_a": [1, 4]}, {"y": [1, 2], "state_a_out": [1, 4]}, constants)


class Quantized:
    """Writes Q/DQ graphs: collects nodes and constants."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, np.ndarray] = {"s": np.array(0.1, np.float32), "z": np.array(0, np.int8)}

    def pair(self, name: str) -> str:
        """Quantize and dequantize an activation."""
        self.nodes.append(helper.make_node("QuantizeLinear", [name, "s", "z"], [f"{name}_q"], name=f"{name}_q"))
        self.nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", "s", "z"], [f"{name}_dq"], name=f"{name}_dq"))
        return f"{name}_dq"

    def weight(self, name: str, values: np.ndarray) -> str:
        """An int8 constant behind DequantizeLinear."""
        self.constants[name] = values.astype(np.int8)
        self.nodes.append(helper.make_node("DequantizeLinear", [name, "s", "z"], [f"{name}_dq"], name=f"{name}_dq"))
        return f"{name}_dq"

    def add(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output


def ds_cnn() -> ModelProto:
    """The keyword spotter of MLPerf Tiny in int8: a 10x4 convolution, four depthwise-separable blocks of 64, a classifier."""
    q = Quantized()
    x = q.pair("x")
    x = q.pair(q.add("Conv", [x, q.weight("w0", np.ones((64, 1, 10, 4)))], "c0", strides=[2, 2], pads=[4, 1, 5, 1]))
    for i in range(1, 5):
        x = q.pair(q.add("Conv", [x, q.weight(f"d{i}w", np.ones((64, 1, 3, 3)))], f"d{i}", group=64, pads=[1, 1, 1, 1]))
        x = q.pair(q.add("Conv", [x, q.weight(f"p{i}w", np.ones((64, 64, 1, 1)))], f"p{i}"))
    x = q.pair(q.add("GlobalAveragePool", [x], "pool"))
    x = q.add("Flatten", [x], "flat")
    q.add("MatMul", [x, q.weight("fc", np.ones((64, 12)))], "y")
    return model(q.nodes, {"x": [1, 1, 49, 10]}, {"y": [1, 12]}, q.constants)


def auto_encoder() -> ModelProto:
    """The anomaly detector of MLPerf Tiny in int8: 640-128-128-128-128-8-128-128-128-128-640."""
    q = Quantized()
    x = q.pair("x")
    sizes = [640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640]
    for i, (a, b) in enumerate(pairwise(sizes)):
        x = q.pair(q.add("MatMul", [x, q.weight(f"w{i}", np.ones((a, b)))], f"h{i}"))
    q.add("Identity", [x], "y")
    return model(q.nodes, {"x": [1, 640]}, {"y": [1, 640]}, q.constants)
