"""Writes the graphs of the micro-benchmark suite: chains in which each operator reads what the one before it made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from edgetk.core.signature import Signature, StateSpec, TensorSpec

Shape = tuple[int, ...]
SEED = 0
#: how many times an operator stands in its chain
COPIES = 6
#: shapes that most chains are written for, from a vector to what the second cache of most processors cannot hold
SIZES: tuple[Shape, ...] = ((1, 64), (1, 40, 100), (1, 100, 320), (1, 300, 400), (1, 800, 600))
#: short rows, for what handles rows one by one
SHORT: tuple[Shape, ...] = ((1, 900, 40), (1, 250, 56), (1, 60, 24), (4, 300, 72), (6, 50, 48))


@dataclass(frozen=True)
class Case:
    """One graph of the suite."""

    name: str
    model: ModelProto
    signature: Signature


def case(
    name: str,
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape | None],
    constants: Mapping[str, np.ndarray] | None = None,
    states: Mapping[str, Shape] | None = None,
) -> Case:
    """A graph of opset 17 with float32 inputs and outputs; a shape of None is left to be inferred.

    `states` are further inputs, each fed with what the output of its name and "_out" gave before.
    Where the first axis is 1 and more than one follow, it is a batch of any size, as in exported models.
    """
    kept = dict(states or {})
    graph = helper.make_graph(
        list(nodes),
        "case",
        [floats(k, _batched(v)) for k, v in {**inputs, **kept}.items()],
        [floats(k, _batched(v)) for k, v in {**outputs, **{f"{k}_out": v for k, v in kept.items()}}.items()],
        [numpy_helper.from_array(v, k) for k, v in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    specs = tuple(TensorSpec(k, _batched(v) or ()) for k, v in inputs.items())
    carried = tuple(StateSpec(TensorSpec(k, v)) for k, v in kept.items())
    return Case(name, model, Signature(specs, tuple(TensorSpec(k, v or ()) for k, v in outputs.items()), carried))


def floats(name: str, shape: Sequence[int | str] | None) -> ValueInfoProto:
    """A float32 input or output."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _batched(shape: Shape | None) -> tuple[int | str, ...] | None:
    return ("batch", *shape[1:]) if shape and len(shape) > 2 and shape[0] == 1 else shape


@dataclass
class Chain:
    """A graph that is being written; `last` is the tensor that the next operator reads."""

    shape: Shape
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    last: str = "x"
    states: dict[str, Shape] = field(default_factory=dict)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(SEED))

    def add(self, kind: str, *others: str, outputs: int = 1, **attributes: Any) -> str:
        """Append an operator that reads the last tensor and `others`; its first output."""
        name = f"n{len(self.nodes)}"
        names = [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, [self.last, *others], names, name=name, **attributes))
        self.last = names[0]
        return names[0]

    def constant(self, values: np.ndarray | float) -> str:
        """The name of a stored tensor; a number is stored as float32."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(values, np.float32) if isinstance(values, float) else np.asarray(values)
        return name

    def integers(self, *values: int) -> str:
        """The name of a stored int64 vector."""
        return self.constant(np.array(values, np.int64))

    def vector(self, value: float, width: int = 0) -> str:
        """The name of a constant as long as the last axis of the input, or of another length."""
        return self.constant(np.full(width or self.shape[-1], value, np.float32))

    def weights(self, *shape: int) -> np.ndarray:
        """Random weights that keep the size of what passes through them."""
        scale = max(1.0, float(np.prod(shape[1:]))) ** -0.5
        values: np.ndarray = (self.random.standard_normal(shape) * scale).astype(np.float32)
        return values

    def shift(self) -> None:
        """An addition that keeps neighbours apart."""
        self.add("Add", self.constant(0.01))

    def state(self, *shape: int) -> str:
        """The name of an input that carries on what `keep` gives it."""
        name = f"state{len(self.states)}"
        self.states[name] = shape
        return name

    def keep(self, name: str) -> None:
        """The last operator's output is the next value of that state."""
        self.nodes[-1].output[0] = self.last = f"{name}_out"

    def gelu(self) -> None:
        """x / 2 (1 + erf(x / sqrt 2)), written out as exporters do."""
        value = self.last
        self.add("Div", self.constant(2**0.5))
        self.add("Erf")
        self.add("Add", self.constant(1.0))
        self.add("Mul", value)
        self.add("Mul", self.constant(0.5))

    def reshape(self, *shape: int) -> None:
        """Another shape of the last tensor; a first axis of 1 is the batch, and stays what it is."""
        self.add("Reshape", self.integers(*(0 if i == 0 and n == 1 else n for i, n in enumerate(shape))))

    def slice(self, start: int, end: int, axis: int = -1) -> None:
        self.add("Slice", *(self.integers(value) for value in (start, end, axis)))

    def quantize(self) -> tuple[str, str]:
        """QuantizeLinear to uint8; the names of its scale and zero point."""
        names = self.constant(0.02), self.constant(np.array(128, np.uint8))
        self.add("QuantizeLinear", *names)
        return names

    def quantized(self, weight: np.ndarray, axis: int) -> str:
        """The last tensor through Quantize and Dequantize, and an int8 weight behind Dequantize: as in a quantized layer.

        The largest code of a column is 127, as `quantize` makes it: for small codes onnxruntime may take a faster kernel.
        """
        self.add("DequantizeLinear", *self.quantize())
        others = tuple(i for i in range(weight.ndim) if i != axis)
        steps = (np.abs(weight).max(others) / 127).astype(np.float32)
        along = steps.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
        stored = self.constant(np.round(weight / along).astype(np.int8))
        scales = self.constant(steps)
        zeros = self.constant(np.zeros(weight.shape[axis], np.int8))
        name = f"{stored}_w"
        self.nodes.append(helper.make_node("DequantizeLinear", [stored, scales, zeros], [name], name=name, axis=axis))
        return name

    def case(self, name: str, more: Mapping[str, Shape] | None = None) -> Case:
        """The finished graph; `more` are inputs beside x."""
        return case(name, self.nodes, {"x": self.shape, **(more or {})}, {self.last: None}, self.constants, self.states)


#: adds an operator to a chain
Write = Callable[[Chain], object]


def repeated(name: str, size: Shape, write: Write) -> Case:
    """A chain of COPIES times what `write` adds, on an input of that shape."""
    chain = Chain(size)
    for _ in range(COPIES):
        write(chain)
        chain.shift()
    return chain.case(f"{name} {'x'.join(map(str, size))}")
