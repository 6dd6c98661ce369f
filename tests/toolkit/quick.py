"""The tiny model as hand-made graphs: what `lower` gives for it, without torch's exporter and its seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from edgetk.core.bundle import Bundle, Form
from edgetk.core.contracts import Lowered
from edgetk.core.signature import TensorSpec
from edgetk.core.target import Target
from edgetk.testing import TinyNet
from edgetk.toolkit.tiny import FRAMES, KEEP


def lower(bundle: Bundle, target: Target, forms: Sequence[str] | None = None) -> list[Lowered]:
    """Both forms of a tiny bundle, or its graph."""
    if not bundle.is_torch:
        return [Lowered("stream" if bundle.signature.is_streaming else "clip", bundle.body, bundle.signature, "float32", None)]
    assert isinstance(bundle.body, TinyNet)
    graphs = {"clip": clip_graph, "stream": stream_graph}
    return [Lowered(f.name, graphs[f.name](bundle), f.signature, "float32", _reference(f)) for f in bundle.forms()]


def _reference(form: Form) -> Callable[..., tuple[np.ndarray, ...]]:
    def run(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        with torch.no_grad():
            return tuple(y.numpy() for y in form.call(*map(torch.from_numpy, inputs)))

    return run


def clip_graph(bundle: Bundle) -> onnx.ModelProto:
    """scores = W_2 Σ_t w_t relu(W_1 x_t + b_1) / T + b_2, with w_t the weight of frame t in the sum of memories."""
    assert bundle.clip is not None
    shares = np.array([sum(KEEP ** (s - t) for s in range(t, FRAMES)) / FRAMES for t in range(FRAMES)], np.float32)
    nodes = [
        helper.make_node("MatMul", ["features", "w1"], ["a"]),
        helper.make_node("Add", ["a", "b1"], ["b"]),
        helper.make_node("Relu", ["b"], ["h"]),
        helper.make_node("Mul", ["h", "shares"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axis"], ["m"], keepdims=0),
        helper.make_node("Gemm", ["m", "w2", "b2"], ["scores"]),
    ]
    extra = {"shares": shares[:, None], "axis": np.array([1])}
    return _graph(bundle, nodes, bundle.clip.inputs, bundle.clip.outputs, extra)


def stream_graph(bundle: Bundle) -> onnx.ModelProto:
    """One step; the sum is shaped (1, 1, K) at the end."""
    m, total, count = (s.name for s in bundle.signature.state)
    nodes = [
        helper.make_node("Squeeze", ["features", "axis"], ["x"]),
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Add", ["a", "b1"], ["b"]),
        helper.make_node("Relu", ["b"], ["h"]),
        helper.make_node("Mul", [m, "keep"], ["kept"]),
        helper.make_node("Add", ["kept", "h"], [f"{m}_out"]),
        helper.make_node("Add", [total, f"{m}_out"], [f"{total}_out"]),
        helper.make_node("Add", [count, "one"], [f"{count}_out"]),
        helper.make_node("Div", [f"{total}_out", f"{count}_out"], ["mean"]),
        helper.make_node("Gemm", ["mean", "w2", "b2"], ["y"]),
        helper.make_node("Unsqueeze", ["y", "axis"], ["scores"]),
    ]
    states = [s.spec for s in bundle.signature.state]
    ends = [replace(s.spec, name=s.output) for s in bundle.signature.state]
    extra = {"axis": np.array([1]), "keep": np.array(KEEP, np.float32), "one": np.array(1.0, np.float32)}
    inputs, outputs = bundle.signature.inputs, bundle.signature.outputs
    return _graph(bundle, nodes, [*inputs, *states], [*outputs, *ends], extra)


def _graph(
    bundle: Bundle, nodes: list[Any], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], extra: dict[str, Any]
) -> onnx.ModelProto:
    net = bundle.body
    arrays = {
        "w1": net.encode.weight.detach().numpy().T.copy(),
        "b1": net.encode.bias.detach().numpy().copy(),
        "w2": net.decide.weight.detach().numpy().T.copy(),
        "b2": net.decide.bias.detach().numpy().copy(),
        **extra,
    }
    for node in nodes:
        node.name = node.output[0]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(s.name, TensorProto.FLOAT, s.shape) for s in inputs],
        [helper.make_tensor_value_info(s.name, TensorProto.FLOAT, s.shape) for s in outputs],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
