"""Graphs that generated C is tried on, how onnxruntime runs them as streams, and where the compilers are."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetk.core import registry
from edgetk.core.runtime_options import session_options
from edgetk.core.signature import Signature
from edgetk.export import c_run, parity
from edgetk.export.c.plan import plan
from edgetk.export.c.program import Program
from edgetk.export.graph import signature_of
from edgetk.export.to_c import sources, stream

MODEL = Path(__file__).parent.parent / "data" / "lmuformer_xs_int8_stream.onnx"
BOARD = Path(__file__).parent / "board"

needs_cc = pytest.mark.skipif(
    shutil.which("make") is None or shutil.which("cc") is None, reason="needs make and a C compiler (apt-get install gcc make)"
)


def needs(*tools: str) -> Any:
    """Skip where one of the programs is absent."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)} (Debian has them)")


def program(model: onnx.ModelProto, name: str = "net") -> Program:
    return Program(name, plan(model, signature_of(model)))


def write(made: Program, folder: Path) -> Path:
    """The sources of a program in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in sources(made).items():
        (folder / file).write_text(text)
    return folder


def reference(
    model: onnx.ModelProto, inputs: Sequence[np.ndarray], signature: Signature | None = None
) -> tuple[np.ndarray, ...]:
    """Outputs of onnxruntime, all its optimisations on, for whole streams (n, steps, *shape)."""
    session = ort.InferenceSession(model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"])
    signature = signature or signature_of(model)

    def call(*x: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(session.run(list(signature.output_names), dict(zip(signature.input_names, x, strict=True))))

    outputs = parity.stream(call, signature, tuple(inputs), parity.flush_steps(signature))[: len(signature.outputs)]
    return tuple(y.reshape(*y.shape[:2], -1) for y in outputs)


def build(folder: Path) -> c_run.Library:
    """The library of the sources in `folder`; compiled with -O1, which is faster to do, and any warning is an error."""
    subprocess.run(["make", "-s", "-C", str(folder), "CFLAGS=-O1 -Werror"], check=True)
    return c_run.load(next(folder.glob("lib*.so")))


def run(model: onnx.ModelProto, inputs: Sequence[np.ndarray], folder: Path) -> tuple[np.ndarray, ...]:
    """Outputs of the generated C, built for this machine."""
    return stream(build(write(program(model), folder)), inputs, parity.flush_steps(signature_of(model)))


def clips(n: int) -> np.ndarray:
    """Features of real clips of the embedded sample: (n, frames, 1, 1, bands) float32."""
    data = registry.load("task", "speech-commands").open(None, None)
    features: np.ndarray = data.calibration(n).numpy().astype(np.float32)
    return np.ascontiguousarray(features[:, :, None, None, :])


class Maker:
    """A small graph, node by node."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def value(self, array: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def input(self, name: str, *shape: int) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def output(self, name: str, *shape: int) -> str:
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def node(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        name = out or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"{kind}_{len(self.nodes)}", **attributes))
        return name

    def rounded(self, x: str, scale: float, zero: int, dtype: Any = np.uint8) -> str:
        """x to 8-bit codes and back."""
        step, offset = self.value(scale), self.value(zero, dtype)
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, step, offset), step, offset)

    def weights(self, codes: np.ndarray, scale: np.ndarray, axis: int) -> str:
        zero = self.value(np.zeros(scale.shape), np.int8)
        return self.node("DequantizeLinear", self.value(codes, np.int8), self.value(scale), zero, axis=axis)

    def model(self, opset: int = 17) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "net", self.inputs, self.outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model
