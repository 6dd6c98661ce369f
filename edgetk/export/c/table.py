"""Activation tables: a function of one number and the rounding of its result, as codes and the places where they change."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edgetk.export.c.operands import Grid

Function = Callable[[np.ndarray], np.ndarray]

#: arguments searched for changes, and how many of them at once
REACH, POINTS = 4096.0, 1 << 20
MAX_CELLS = 1 << 14


class Table(NamedTuple):
    """code(x) = codes[cell + (x >= edges[cell])] with cell = min(max((x - low) * per_unit, 0), len(edges) - 1)."""

    low: float
    per_unit: float
    edges: np.ndarray
    codes: np.ndarray


def tabulate(function: Function, grid: Grid) -> Table | None:
    """The table of round(function(x) / scale) + zero, clamped to a byte, exact for every float32 x but for the rounding of
    `function` itself; None where the codes change too fast or never come to rest within +-4096.

    `function` maps float64 arrays to float64 arrays.
    """

    def code(x: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.clip(np.rint(function(x.astype(np.float64)) / grid.scale) + grid.zero, 0, 255).astype(np.int64)
        return found

    with np.errstate(over="ignore", under="ignore"):
        edges, values = _changes(code)
        if edges.size == 0 or edges.size > MAX_CELLS // 2 or not np.array_equal(np.abs(np.diff(values)), np.ones(edges.size)):
            return None
        return _cells(edges, values)


def _changes(code: Function) -> tuple[np.ndarray, np.ndarray]:
    """The float32 arguments at which the code becomes another one, and the codes from the lowest on."""
    fine = np.linspace(-64.0, 64.0, POINTS + 1)
    wide = np.concatenate([np.linspace(-REACH, -64.0, 1 << 16)[:-1], fine, np.linspace(64.0, REACH, 1 << 16)[1:]])
    points = wide.astype(np.float32)
    values = code(points)
    at = np.flatnonzero(values[1:] != values[:-1])
    below, above, first = points[at], points[at + 1], values[at]
    while True:
        middle = (below.astype(np.float64) + above.astype(np.float64)) / 2
        half = middle.astype(np.float32)
        undecided = (half > below) & (half < above)
        if not undecided.any():
            break
        same = code(half) == first
        below = np.where(undecided & same, half, below)
        above = np.where(undecided & ~same, half, above)
    return above, np.concatenate([values[:1], values[at + 1]])


def _cells(edges: np.ndarray, values: np.ndarray) -> Table | None:
    """Cells so narrow that none holds two changes, by the float32 arithmetic that the generated code has."""
    low = np.float32(edges[0])
    span = float(edges[-1]) - float(low) or 1.0
    count = 1 << max(2, math.ceil(math.log2(len(edges) + 1)))
    while count <= MAX_CELLS:
        per_unit = np.float32((count - 1) / span)
        cell = np.minimum((edges - low) * per_unit, np.float32(count - 1)).astype(np.int64)
        if len(np.unique(cell)) == len(edges):
            border = np.full(count, np.finfo(np.float32).max, np.float32)
            border[cell] = edges
            before = np.searchsorted(cell, np.minimum(np.arange(count + 4), count))  # whole words
            return Table(float(low), float(per_unit), border, values[before].astype(np.uint8))
        count *= 2
    return None
