"""What generated C computes with: pieces of memory, constants, and expressions over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

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
