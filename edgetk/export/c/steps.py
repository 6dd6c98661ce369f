"""What generated C is made of: steps that write memory, in the order they run, and the plan of a whole step function."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgetk.core.signature import Signature
from edgetk.export.c.operands import Array, Buffer, Constant, Expression, Grid, Operand, Segment, segments_of


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
