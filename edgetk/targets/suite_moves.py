"""Micro-benchmarks of what only moves numbers: slices, joins, transposes, rows of tables."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from onnx import TensorProto

from edgetk.targets.suite_chain import COPIES, SHORT, SIZES, Case, Chain, Shape, repeated

_TRANSPOSED: tuple[tuple[Shape, Shape], ...] = (
    ((1, 40, 100), (0, 2, 1)),
    ((1, 100, 320), (0, 2, 1)),
    ((1, 50, 4, 16), (0, 2, 1, 3)),
    ((1, 150, 5, 32), (0, 2, 1, 3)),
    ((1, 4, 64, 40), (0, 2, 3, 1)),
    ((1, 900, 96), (0, 2, 1)),
    ((1, 256, 256), (0, 2, 1)),
    ((1, 64, 512), (0, 2, 1)),
    ((1, 1024, 192), (0, 2, 1)),
    ((1, 400, 8, 48), (0, 2, 1, 3)),
    ((1, 2000, 100), (0, 2, 1)),
    ((1, 900, 40), (0, 2, 1)),
    ((1, 40, 900), (0, 2, 1)),
    ((1, 72, 300), (0, 2, 1)),
    ((1, 128, 512), (0, 2, 1)),
    ((1, 48, 1024), (0, 2, 1)),
    ((1, 60, 6, 40), (0, 2, 3, 1)),
    ((1, 5, 70, 40), (0, 1, 3, 2)),
    ((1, 300, 2, 40), (0, 2, 1, 3)),
    ((1, 30, 3, 24), (0, 2, 1, 3)),
    ((1, 3, 40, 28), (0, 2, 1, 3)),
    ((1, 500, 12, 8), (0, 2, 1, 3)),
    ((1, 1024, 112), (0, 2, 1)),
    ((1, 200, 1024), (0, 2, 1)),
    ((1, 32, 2048), (0, 2, 1)),
    ((1, 512, 160), (0, 2, 1)),
    ((1, 1500, 64), (0, 2, 1)),
    ((1, 640, 3, 32), (0, 2, 3, 1)),
)
#: tokens that choose rows of a table as wide as they are
_CHOSEN: tuple[Shape, ...] = ((1, 12, 48), (1, 50, 96), (1, 300, 40), (1, 700, 280))
#: rows of a table
_ROWS = 64
#: tokens, width and rows of a table that does not fit the nearest cache
_TABLES = (
    (200, 40, 2000),
    (300, 96, 3000),
    (400, 64, 20_000),
    (500, 112, 12_000),
    (100, 256, 8000),
    (900, 250, 500),
    (1600, 120, 900),
    (500, 400, 300),
)


def moves() -> Iterator[Case]:
    """Slices, joins, shapes, rows of tables near and far, and transposes."""
    for size in SIZES:
        yield repeated("Concat", size, _halves)
        yield _grown(size)
        yield _shortened(size)
        yield repeated("Split", size, _split)
        yield repeated("Reshape", size, _regroup)
        yield repeated("Shape", size, _shape)
    for size in SIZES[1:3]:
        yield repeated("Pad", size, _pad)
        yield repeated("Expand", size, _expand)
        yield repeated("Gather", size, _gather)
    for size in _CHOSEN:
        yield repeated("ArgMax", size, _largest)
        yield repeated("Gather of rows", size, _rows)
    for tokens, width, rows in _TABLES:
        yield repeated("Gather of rows", (1, tokens, width), partial(_far_rows, rows=rows))
    for size in SHORT:
        yield repeated("Split", size, _split)
        yield repeated("Concat", size, _halves)
    for size, order in _TRANSPOSED:
        yield repeated("Transpose", size, partial(_transpose, order=order))


def _halves(chain: Chain) -> None:
    whole = chain.last
    chain.slice(0, chain.shape[-1] // 2)
    chain.add("Concat", whole, axis=-1)
    chain.slice(0, chain.shape[-1])


def _grown(size: Shape) -> Case:
    """Frames that are put in front of others, as the edges of windows are."""
    chain = Chain(size)
    edge = chain.constant(np.zeros((*size[:-2], 1, size[-1]), np.float32))
    for _ in range(COPIES):
        behind, chain.last = chain.last, edge
        chain.add("Concat", behind, axis=len(size) - 2)
        chain.shift()
    return chain.case(f"frames in front {'x'.join(map(str, size))}")


def _shortened(size: Shape) -> Case:
    """Windows of frames: a slice that is one shorter each time; of a single frame, of its numbers."""
    chain, axis = Chain(size), len(size) - 2 if size[-2] > COPIES else len(size) - 1
    for index in range(COPIES):
        chain.slice(1, size[axis] - index, axis)
        chain.shift()
    return chain.case(f"Slice {'x'.join(map(str, size))}")


def _split(chain: Chain) -> None:
    first = chain.add("Split", outputs=2, axis=-1)
    chain.add("Concat", f"{first.rpartition('_')[0]}_1", axis=-1)


def _regroup(chain: Chain) -> None:
    chain.reshape(-1, chain.shape[-1] // 2)
    chain.shift()
    chain.add("Reshape", chain.integers(*chain.shape))


def _pad(chain: Chain) -> None:
    chain.add("Pad", chain.integers(0, 1, 0, 0, 0, 0))
    chain.slice(1, chain.shape[1] + 1, 1)


def _expand(chain: Chain) -> None:
    chain.slice(0, 1, 1)
    chain.add("Expand", chain.integers(*chain.shape))


def _shape(chain: Chain) -> None:
    """The shape of a tensor cut, joined and laid on it again, as exporters write what depends on the batch."""
    value = chain.last
    chain.add("Shape")
    chain.slice(0, len(chain.shape) - 1, 0)
    chain.add("Concat", chain.integers(chain.shape[-1]), axis=0)
    shape, chain.last = chain.last, value
    chain.add("Reshape", shape)


def _gather(chain: Chain) -> None:
    chain.add("Gather", chain.constant(np.array(0, np.int64)), axis=1)
    chain.add("Unsqueeze", chain.integers(1))
    chain.add("Add", "x")


def _largest(chain: Chain) -> None:
    chain.add("ArgMax", axis=-1, keepdims=1)
    chain.add("Cast", to=TensorProto.FLOAT)
    chain.add("Add", "x")


def _rows(chain: Chain) -> None:
    """Each token takes the row that its largest number, of the first ones, names."""
    table = chain.constant(chain.weights(_ROWS, chain.shape[-1]))
    chain.slice(0, min(_ROWS, chain.shape[-1]))
    chosen = chain.add("ArgMax", axis=-1, keepdims=0)
    chain.last = table
    chain.add("Gather", chosen, axis=0)
    chain.add("Add", "x")


def _far_rows(chain: Chain, rows: int) -> None:
    """Each token takes a row that its first number names, of a table of its own."""
    table = chain.constant(chain.weights(rows, chain.shape[-1]))
    chain.slice(0, 1)
    chain.add("Squeeze", chain.integers(-1))
    chain.add("Mul", chain.constant(0.3 * rows))
    chain.add("Abs")
    chain.add("Min", chain.constant(float(rows - 1)))
    chosen = chain.add("Cast", to=TensorProto.INT64)
    chain.last = table
    chain.add("Gather", chosen, axis=0)
    chain.add("Add", "x")


def _transpose(chain: Chain, order: Shape) -> None:
    chain.add("Transpose", perm=list(order))
    chain.reshape(*chain.shape)
