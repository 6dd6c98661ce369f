"""Contiguous pieces of memory that an operator handles one by one: rows of a norm, runs that a move copies, rows of a table.

A kernel pays for every piece beside what it pays for their elements, which matters where pieces are short.
"""

from __future__ import annotations

import math

from onnx import NodeProto

from edgetk.targets.graph import Graph, stored_bytes
from edgetk.targets.products import FACTORS, attributes

Shape = tuple[int, ...]
#: each row along the last axis is read as a whole
_ROWS = frozenset(
    {
        "ArgMax",
        "ArgMin",
        "LayerNormalization",
        "LogSoftmax",
        "LpNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "Softmax",
    }
)


def pieces(graph: Graph, node: NodeProto) -> int:
    """How many pieces a node handles, all of whose tensors have known shapes; 0 where it does not work on pieces."""
    kind = node.op_type
    if not node.input or not node.input[0] or any(n and n not in graph.shape for n in (*node.input, *node.output)):
        return 0
    read, written = graph.shape[node.input[0]], graph.shape[node.output[0]]
    if kind in ("MatMul", "FusedMatMul") and not any(name in graph.roots for name in node.input[: len(FACTORS["MatMul"])]):
        return math.prod(written[:-2])  # one product for each pair of matrices
    if kind in _ROWS:
        return _over(math.prod(read), read[-1:])
    if kind.startswith("Reduce"):
        return _reduced(read, written)
    if kind == "Transpose":
        return transposed(read, _order(node, len(read)))
    if kind == "Gather":
        axis = attributes(node).get("axis", 0)
        assert isinstance(axis, int)
        return _over(math.prod(written), read[axis % len(read) + 1 :])
    if kind == "Concat":
        return sum(boxes(graph.shape[name], written) for name in node.input)
    if kind == "Split":
        return sum(boxes(graph.shape[name], read) for name in node.output if name)
    if kind in ("Slice", "Pad"):
        return boxes(min(read, written, key=math.prod), max(read, written, key=math.prod))
    return 0


def boxes(part: Shape, whole: Shape) -> int:
    """Pieces of a box that is cut out of a larger one with as many axes, or put into it: whole trailing axes stay together."""
    if not math.prod(part):
        return 0
    together = 1
    for axis in reversed(range(len(part))):
        together *= part[axis]
        if part[axis] != whole[axis]:
            break
    return math.prod(part) // together


def transposed(shape: Shape, order: Shape) -> int:
    """Pieces of a transposition: what stays together at the end is copied as one; axes of length 1 don't count."""
    kept = [axis for axis in order if shape[axis] != 1]
    together, expected = 1, [axis for axis in range(len(shape)) if shape[axis] != 1]
    while kept and kept[-1] == expected[-1]:
        together *= shape[kept.pop()]
        expected.pop()
    return math.prod(shape) // together if math.prod(shape) else 0


def column(graph: Graph, node: NodeProto) -> tuple[int, int]:
    """Bytes from one number that a transposition reads to the next, and how many follow one another so; (0, 0) for other nodes.

    Its last axes stand elsewhere in what it reads: it goes down a column there, a line of the cache at each step.
    """
    if node.op_type != "Transpose" or any(name not in graph.shape for name in (node.input[0], node.output[0])):
        return 0, 0
    shape = graph.shape[node.input[0]]
    kept = [axis for axis in _order(node, len(shape)) if shape[axis] != 1]
    if not kept or not math.prod(shape):
        return 0, 0
    last = kept.pop()
    behind, count = math.prod(shape[last + 1 :]), shape[last]
    while kept and math.prod(shape[kept[-1] + 1 : last]) == 1 and kept[-1] < last:
        last = kept.pop()
        count *= shape[last]
    return (stored_bytes(behind, graph.stored_dtype(node.input[0])), count) if behind > 1 else (0, 0)


def _order(node: NodeProto, axes: int) -> Shape:
    order = attributes(node).get("perm", list(range(axes))[::-1])
    assert isinstance(order, list)
    return tuple(order)


def _reduced(read: Shape, written: Shape) -> int:
    """Rows that are reduced, or that are added up: those of the last axis."""
    return _over(math.prod(read), read[-1:]) if math.prod(written) else 0


def _over(elements: int, block: Shape) -> int:
    return elements // max(1, math.prod(block))
