"""Operators over whole rows: layer norms, softmax, sums, means and lengths along an axis."""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgetk.export.c.graph import Node, refuse
from edgetk.export.c.operands import FLOAT, Memory, Operand
from edgetk.export.c.planner import Planner
from edgetk.export.c.steps import Reduce, Rows


def layer_norm(planner: Planner, node: Node) -> Operand:
    """(x - mean) / sqrt(variance + epsilon) * weight + bias along the last axis."""
    shape = planner.graph.shapes[node.inputs[0]]
    if int(node.attributes.get("axis", -1)) % len(shape) != len(shape) - 1 or len(node.outputs) > 1:
        raise refuse("LayerNormalization must be along the last axis, with one output", node.name, "export it to onnx")
    bias = planner.optional(node, 2)
    return _rows(planner, node, "layer_norm", planner.constant(node, 1), bias, float(node.attributes.get("epsilon", 1e-5)))


def softmax(planner: Planner, node: Node) -> Operand:
    """exp(x) / sum exp(x) along the last axis."""
    shape = planner.graph.shapes[node.inputs[0]]
    if int(node.attributes.get("axis", -1)) % len(shape) != len(shape) - 1:
        raise refuse("Softmax must be along the last axis", node.name, "export it to onnx")
    return _rows(planner, node, "softmax")


def _rows(
    planner: Planner,
    node: Node,
    kind: Literal["layer_norm", "softmax"],
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    epsilon: float = 0.0,
) -> Operand:
    shape = planner.graph.shapes[node.outputs[0]]
    source = planner.contiguous(planner.memory(planner.operand(node.inputs[0]), node.inputs[0]), node.inputs[0])
    target, name = planner.buffer(node.outputs[0], source.size), node.name.split("/")[0]
    stored = [
        None if array is None else planner.array(f"{name}_{what}", array.astype(np.float32), FLOAT)
        for what, array in (("weight", weight), ("bias", bias))
    ]
    planner.steps.append(Rows(kind, target, source, source.size // shape[-1], stored[0], stored[1], epsilon))
    return Memory((target,), shape)


_KINDS: dict[str, Literal["sum", "mean", "l2"]] = {"ReduceSum": "sum", "ReduceMean": "mean", "ReduceL2": "l2"}


def reduce(planner: Planner, node: Node) -> Operand:
    """Sum, mean or Euclidean length over axes that lie side by side."""
    shape = planner.graph.shapes[node.inputs[0]]
    given = node.attributes.get("axes")
    told = planner.optional(node, 1) if given is None else np.asarray(given)
    axes = sorted(int(a) % len(shape) for a in (range(len(shape)) if told is None else told.reshape(-1)))
    wide = [a for a in axes if shape[a] > 1] or axes[-1:]
    if wide != list(range(wide[0], wide[-1] + 1)):
        raise refuse(f"axes of {node.kind} must lie side by side", f"{node.name} over {axes}", "reduce them one by one")
    count, inner = int(np.prod(shape[wide[0] : wide[-1] + 1])), int(np.prod(shape[wide[-1] + 1 :]))
    source = planner.contiguous(planner.memory(planner.operand(node.inputs[0]), node.inputs[0]), node.inputs[0])
    outer = source.size // (count * inner)
    target = planner.buffer(node.outputs[0], outer * inner)
    planner.steps.append(Reduce(_KINDS[node.kind], target, source, outer, count, inner))
    return Memory((target,), planner.graph.shapes[node.outputs[0]])
