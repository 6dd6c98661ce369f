"""What generated C is made of: memory, expressions over it, and steps that write it, in the order they run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgetk.core.signature import Signature

Place = Literal["arena", "state", "input", "output"]

#: C types of what lies in memory; codes are unsigned, with 128 added to those of int8 tensors
FLOAT, CODE, SHORT = "float", "uint8_t", "int16_t"
WIDTH = {FLOAT: 4, CODE: 1, SHORT: 2, "int8_t": 1, "int32_t": 4}


@dataclass(frozen=True, eq=False)
class Buffer:
    """A named piece of memory: `size` elements of `dtype`."""

    name: str
    place: Place
    dtype: str
    size: int

    @property
    def bytes(self) -> int:
        return self.size * WIDTH[self.dtype]


@dataclass(frozen=True)
class Segment:
    """Elements `start` to `start + size` of a buffer."""

    buffer: Buffer
    start: int
    size: int

    def part(self, start: int, size: int) -> Segment:
        return Segment(self.buffer, self.start + start, size)


@dataclass(frozen=True, eq=False)
class Memory:
    """A tensor that lies in memory: its segments one after another, in row-major order. `flag`: 0 and 1 stand for a bool."""

    segments: tuple[Segment, ...]
    shape: tuple[int, ...]
    flag: bool = False

    @property
    def size(self) -> int:
        return sum(s.size for s in self.segments)


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that the graph stores; `stored` is its constant data where an expression reads it by index."""

    array: np.ndarray
    stored: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def size(self) -> int:
        return int(self.array.size)


@dataclass(frozen=True)
class Grid:
    """Codes of a tensor: value = (code - zero) * scale, code in [low, low + 255], stored from 0 on."""

    scale: float
    zero: int


@dataclass(frozen=True, eq=False)
class Codes:
    """A quantized tensor."""

    memory: Memory
    grid: Grid

    @property
    def shape(self) -> tuple[int, ...]:
        return self.memory.shape

    @property
    def size(self) -> int:
        return self.memory.size


@dataclass(frozen=True, eq=False)
class Weights:
    """Dequantized int8 constants: codes and a scale for each slice along `axis`."""

    codes: np.ndarray
    scale: np.ndarray
    axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.codes.shape)

    @property
    def size(self) -> int:
        return int(self.codes.size)


@dataclass(frozen=True, eq=False)
class Expression:
    """An element-wise operator not yet computed: it is written where it is used, once."""

    op: str
    args: tuple[Operand, ...]
    shape: tuple[int, ...]
    flag: bool = False

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def leaves(self) -> Iterator[Operand]:
        for arg in self.args:
            if isinstance(arg, Expression):
                yield from arg.leaves()
            else:
                yield arg

    def operators(self) -> Iterator[str]:
        yield self.op
        for arg in self.args:
            if isinstance(arg, Expression):
                yield from arg.operators()


Operand = Memory | Constant | Codes | Weights | Expression


@dataclass(frozen=True, eq=False)
class Array:
    """Constant data of the generated code: `values` as C type `dtype`."""

    name: str
    dtype: str
    values: np.ndarray

    @property
    def bytes(self) -> int:
        return int(self.values.size) * WIDTH[self.dtype]


@dataclass(frozen=True, eq=False)
class Loop:
    """target[i] = expression at i, rounded to `grid` where there is one."""

    target: Segment
    expression: Operand
    grid: Grid | None = None


@dataclass(frozen=True, eq=False)
class Copy:
    """target = source."""

    target: Segment
    source: Segment


@dataclass(frozen=True, eq=False)
class Dense:
    """target = (sum over codes of (x - zero) w) * scale + bias: int8 weights in rows of `stride` bytes, zeros behind `inputs`.

    `rows` inputs lie one after another, and so do the results.
    """

    target: Segment
    source: Segment
    zero: int
    stride: int
    weights: Array
    sums: Array
    scale: Array
    bias: Array | None
    scratch: Segment
    rows: int = 1


@dataclass(frozen=True, eq=False)
class FloatDense:
    """target = x W + bias in float32, W (inputs, outputs), summed over the inputs in order; `rows` of them."""

    target: Segment
    source: Segment
    weights: Array
    bias: Array | None
    rows: int = 1


@dataclass(frozen=True, eq=False)
class Convolve:
    """A convolution of (channels, height, width), depthwise or not: codes by int8 weights, or float32 where `scale` is None."""

    target: Segment
    source: Segment
    zero: int
    weights: Array
    scale: Array | None
    bias: Array | None
    size_in: tuple[int, int, int]
    size_out: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    depthwise: bool


@dataclass(frozen=True, eq=False)
class Lookup:
    """target[i] = codes[cell + (x[i] >= edges[cell])], cell = (x[i] - low) * per_unit: an activation and its rounding."""

    target: Segment
    source: Segment
    low: float
    per_unit: float
    edges: Array
    codes: Array


@dataclass(frozen=True, eq=False)
class Strided:
    """target[to + i . to_steps] = source[start + i . steps] for all i below `sizes`: parts of tensors, other orders of axes."""

    target: Segment
    source: Segment
    sizes: tuple[int, ...]
    steps: tuple[int, ...]
    to_steps: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Product:
    """target = a b of two tensors that are both computed: (batch, rows, inner) times (batch, inner, columns), float32."""

    target: Segment
    source: Segment
    other: Segment
    batch: int
    rows: int
    inner: int
    columns: int


@dataclass(frozen=True, eq=False)
class Rows:
    """Each of `rows` rows of x made anew: "layer_norm" (with `weights` and `bias`) or "softmax"."""

    kind: Literal["layer_norm", "softmax"]
    target: Segment
    source: Segment
    rows: int
    weights: Array | None = None
    bias: Array | None = None
    epsilon: float = 0.0


@dataclass(frozen=True, eq=False)
class Reduce:
    """target (outer, inner) = the sum, mean or Euclidean length over the middle axis of x (outer, count, inner)."""

    kind: Literal["sum", "mean", "l2"]
    target: Segment
    source: Segment
    outer: int
    count: int
    inner: int


@dataclass(frozen=True, eq=False)
class TableRows:
    """A memory layer: each of `rows` inputs picks a row of each table by its signs, and adds them up with a weight.

    `tables` (K, 2^bits, outputs): int8 with `scale` (outputs,), or float32 without one. `scratch`: which rows, and their codes.
    """

    target: Segment
    source: Segment
    tables: Array
    scale: Array | None
    bias: Array
    scratch: Segment
    rows: int
    bits: int
    weighting: str
    temperature: float


@dataclass(frozen=True, eq=False)
class BinaryAttention:
    """Linear attention on codes of -1, 0 and +1: queries and keys (heads, tokens, bits), values (heads, tokens, width)."""

    target: Segment
    source: Segment
    other: Segment
    values: Segment
    scratch: Segment
    heads: int
    tokens: int
    bits: int
    own_token: bool


Step = Loop | Copy | Dense | FloatDense | Convolve | Lookup | Strided | Product | Rows | Reduce | TableRows | BinaryAttention


@dataclass(frozen=True)
class Plan:
    """A step function: buffers of its interface, its steps in order, and what each state holds at the start of a stream.

    `signature` and `graph_sha256` say which graph it computes.
    """

    signature: Signature
    graph_sha256: str
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    states: tuple[Buffer, ...]
    starts: tuple[np.ndarray, ...]
    steps: tuple[Step, ...]
    macs: dict[str, int]


def segments_of(value: Operand) -> Iterator[Segment]:
    """All memory that an operand reads."""
    if isinstance(value, Memory):
        yield from value.segments
    elif isinstance(value, Codes):
        yield from value.memory.segments
    elif isinstance(value, Expression):
        for leaf in value.leaves():
            yield from segments_of(leaf)


def dequantized(weights: Weights) -> np.ndarray:
    """The float32 values of int8 constants."""
    shape = [1] * weights.codes.ndim
    if weights.scale.size > 1:
        shape[weights.axis] = -1
    values: np.ndarray = weights.codes.astype(np.float32) * weights.scale.reshape(shape)
    return values


def reads(step: Step) -> Iterator[Segment]:
    """All memory that a step reads, its scratch included."""
    if isinstance(step, Loop):
        yield from segments_of(step.expression)
        return
    for field in ("source", "other", "values", "scratch"):
        segment = getattr(step, field, None)
        if isinstance(segment, Segment):
            yield segment


def arrays(step: Step) -> Iterator[Array]:
    """The constant data of a step."""
    if isinstance(step, Loop) and isinstance(step.expression, Expression):
        for leaf in step.expression.leaves():
            if isinstance(leaf, Constant) and leaf.stored is not None:
                yield leaf.stored
    for field in ("weights", "sums", "scale", "bias", "edges", "codes", "tables"):
        array = getattr(step, field, None)
        if isinstance(array, Array):
            yield array
