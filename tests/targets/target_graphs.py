"""Tiny ONNX graphs for the tests of this room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgetk.core.signature import Signature, StateSpec, TensorSpec

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


def neuron(prefix: str, drive: str, membrane: str, spikes: str, after: str) -> list[NodeProto]:
    """h = (v + x) / 2; spikes where h >= threshold; the membrane after: rest there, else h. Constants: half, <prefix>_t, _r."""
    names = {key: f"{prefix}_{key}" for key in ("sum", "h", "fires")}
    return [
        helper.make_node("Add", [membrane, drive], [names["sum"]], name=names["sum"]),
        helper.make_node("Mul", [names["sum"], "half"], [names["h"]], name=names["h"]),
        helper.make_node("GreaterOrEqual", [names["h"], f"{prefix}_t"], [names["fires"]], name=names["fires"]),
        helper.make_node("Cast", [names["fires"]], [spikes], name=f"{prefix}_spikes", to=TensorProto.FLOAT),
        helper.make_node("Where", [names["fires"], f"{prefix}_r", names["h"]], [after], name=f"{prefix}_reset"),
    ]


def neuron_constants(prefix: str, width: int) -> dict[str, np.ndarray]:
    """Threshold 1, rest 0."""
    return {
        "half": np.array(0.5, np.float32),
        f"{prefix}_t": np.ones(width, np.float32),
        f"{prefix}_r": np.zeros(width, np.float32),
    }


#: what layer "a" of the network below multiplies: input 0 drives neurons 0 and 3, input 1 neuron 1, input 2 neuron 2
SPIKING_WEIGHTS = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]], np.float32)


def spiking(integer: bool = False) -> ModelProto:
    """A step of two spiking layers: a (3 -> 4) on real inputs, b on the window of the last two spikes of a (8 -> 2).

    With `integer`, layer b has int8 weights and its window goes through a Quantize/Dequantize pair of scale 1.
    """
    constants = {**neuron_constants("a", 4), **neuron_constants("b", 2), "a_w": SPIKING_WEIGHTS}
    window, weight, pairs = "window", "b_w", []
    if integer:
        constants |= {"one": np.array(1, np.float32), "zero": np.array(0, np.int8), "b_w": np.ones((8, 2), np.int8)}
        pairs = [
            helper.make_node("QuantizeLinear", ["window", "one", "zero"], ["window_q"], name="window_q"),
            helper.make_node("DequantizeLinear", ["window_q", "one", "zero"], ["window_dq"], name="window_dq"),
            helper.make_node("DequantizeLinear", ["b_w", "one", "zero"], ["b_w_dq"], name="b_w_dq"),
        ]
        window, weight = "window_dq", "b_w_dq"
    else:
        constants["b_w"] = np.ones((8, 2), np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "a_w"], ["a_drive"], name="a"),
        *neuron("a", "a_drive", "state_a", "a_spikes", "state_a_out"),
        helper.make_node("Concat", ["state_past", "a_spikes"], ["window"], name="window", axis=1),
        helper.make_node("Identity", ["a_spikes"], ["state_past_out"], name="keep"),
        *pairs,
        helper.make_node("MatMul", [window, weight], ["b_drive"], name="b"),
        *neuron("b", "b_drive", "state_b", "y", "state_b_out"),
    ]
    states = {"state_a": [1, 4], "state_past": [1, 4], "state_b": [1, 2]}
    outputs = {"y": [1, 2], **{f"{name}_out": shape for name, shape in states.items()}}
    return model(nodes, {"x": [1, 3], **states}, outputs, constants)


def spiking_signature() -> Signature:
    """Of the network above."""
    states = tuple(
        StateSpec(TensorSpec(name, (1, width))) for name, width in (("state_a", 4), ("state_past", 4), ("state_b", 2))
    )
    return Signature((TensorSpec("x", (1, 3)),), (TensorSpec("y", (1, 2)),), states, period_s=0.01)


#: two steps of one stream, (1, 2, 1, 3), worked out by hand:
#: a is driven by 2 0 0 2, fires 1 0 0 1 (window 0000 1001), then by 0 2 1 0, fires 0 1 0 0 (window 1001 0100)
SPIKING_INPUT = np.array([[[[2, 0, 0]], [[0, 2, 1]]]], np.float32)


def scanned(steps: int, width: int) -> ModelProto:
    """A clip of neurons over time as a Scan whose body multiplies, too: x (steps, width) -> y (steps, width)."""
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x_t", "w"], ["drive"], name="product"), *neuron("n", "drive", "v", "y_t", "v_next")],
        "body",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", width]) for n in ("v", "x_t")],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", width]) for n in ("v_next", "y_t")],
    )
    node = helper.make_node("Scan", ["v0", "x"], ["v_last", "y"], name="scan", body=body, num_scan_inputs=1)
    constants = {**neuron_constants("n", width), "w": np.eye(width, dtype=np.float32)}
    inputs = {"v0": ["B", width], "x": [steps, "B", width]}
    return model([node], inputs, {"v_last": None, "y": None}, constants)


def unrolled(steps: int, width: int, last: bool = True) -> ModelProto:
    """The same without a Scan, with an input and an output for each step; without `last`, the last membrane is dead."""
    nodes = []
    for t in range(steps):
        nodes.append(helper.make_node("MatMul", [f"x{t}", "w"], [f"drive{t}"], name=f"product{t}"))
        for node in neuron("n", f"drive{t}", f"v{t}", f"y{t}", f"v{t + 1}"):
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name in ("n_sum", "n_h", "n_fires"):
                        names[i] = f"{name}{t}"
            node.name += str(t)
            nodes.append(node)
    if not last:
        nodes.pop()
    constants = {**neuron_constants("n", width), "w": np.eye(width, dtype=np.float32)}
    inputs = {"v0": [1, width], **{f"x{t}": [1, width] for t in range(steps)}}
    outputs = {f"y{t}": None for t in range(steps)} | ({f"v{steps}": None} if last else {})
    return model(nodes, inputs, outputs, constants)
