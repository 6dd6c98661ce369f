"""QuantizeLinear and DequantizeLinear: steps that round to codes, activation tables, weights as codes and scales."""

from __future__ import annotations

import numpy as np

from edgetk.export.c import elementwise
from edgetk.export.c.graph import Node, refuse
from edgetk.export.c.operands import CODE, FLOAT, Codes, Constant, Expression, Grid, Memory, Operand, Segment, Weights
from edgetk.export.c.planner import Planner
from edgetk.export.c.steps import Lookup, Loop, Step
from edgetk.export.c.table import tabulate


def quantize(planner: Planner, node: Node) -> Operand:
    value, grid = planner.operand(node.inputs[0]), _grid(planner, node)
    place = planner.buffer(node.outputs[0], value.size, CODE)
    codes = Codes(Memory((place,), value.shape), grid)
    if isinstance(value, Expression) and (table := _table(planner, value, grid, place, node)) is not None:
        planner.steps.append(table)
        return codes
    if isinstance(value, Memory):
        start = 0
        for segment in value.segments:
            part = Memory((segment,), (segment.size,))
            planner.steps.append(Loop(place.part(start, segment.size), part, grid))
            start += segment.size
        return codes
    planner.steps.append(Loop(place, value, grid))
    return codes


def _table(planner: Planner, value: Expression, grid: Grid, place: Segment, node: Node) -> Step | None:
    """An activation table for an expression of one tensor with an operator that C has no arithmetic for."""
    if not elementwise.TRANSCENDENTAL & set(value.operators()):
        return None
    source = elementwise.only_variable(value)
    table = tabulate(elementwise.function(value), grid) if source is not None else None
    if source is None or table is None:
        return None
    name = planner.names.free(node.outputs[0] + "_table")
    return Lookup(
        place, planner.contiguous(source, name), table.low, table.per_unit,
        planner.array(f"{name}_edges", table.edges, FLOAT), planner.array(f"{name}_codes", table.codes, CODE),
    )  # fmt: skip


def _grid(planner: Planner, node: Node) -> Grid:
    """Scale and zero point per tensor; codes of int8 tensors are stored with 128 added."""
    scale = planner.constant(node, 1)
    zero = planner.optional(node, 2)
    zero = np.zeros(1, np.uint8) if zero is None else zero
    if scale.size != 1 or zero.dtype not in (np.uint8, np.int8):
        got = f"{node.name} with {scale.size} scales of {zero.dtype}"
        raise refuse("activations must be quantized per tensor to 8 bits", got, "quantize them per tensor")
    return Grid(float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]) + (128 if zero.dtype == np.int8 else 0))


def dequantize(planner: Planner, node: Node) -> Operand:
    value = planner.operand(node.inputs[0])
    if isinstance(value, Codes):
        if value.grid != _grid(planner, node):
            raise refuse("codes must be read on the grid they were written on", node.name, "quantize again between the two")
        return value
    assert isinstance(value, Constant)
    scale, zero = planner.constant(node, 1), planner.optional(node, 2)
    if value.array.dtype != np.int8 or (zero is not None and np.any(zero)):
        if value.array.dtype == np.int32:  # a bias of a convolution
            return Constant(value.array.astype(np.float32) * scale.astype(np.float32))
        raise refuse(
            "weights must be int8 with zero point 0", f"{node.name} {value.array.dtype}", "quantize them symmetrically"
        )
    return Weights(value.array, scale.astype(np.float32), int(node.attributes.get("axis", 1)) % max(value.array.ndim, 1))
