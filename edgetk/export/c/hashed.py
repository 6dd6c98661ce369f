"""edgetk's own operators on codes: memory layers, which read rows of tables, and attention on binary codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgetk.export.c.graph import Node, refuse
from edgetk.export.c.operands import FLOAT, Memory, Operand, Segment
from edgetk.export.c.planner import Planner
from edgetk.export.c.products import words
from edgetk.export.c.steps import BinaryAttention, TableRows
from edgetk.models.layers.memory_hash import FRACTION_BITS, most_tables


def lookup(planner: Planner, node: Node) -> Operand:
    """LookupLinear: int8 tables, weights in fixed point, sums of 32 bits; LookupLinearFloat: all in float32."""
    in_codes = node.kind.endswith("LookupLinear")
    tables, bias = planner.constant(node, 1), planner.constant(node, 3 if in_codes else 2)
    count, height, outputs = tables.shape
    weighting, bits = _text(node.attributes["weighting"]), height.bit_length() - 1
    if in_codes and count > most_tables(weighting):  # type: ignore[arg-type]
        raise refuse("sums of a memory layer must fit into 32 bits", f"{node.name} with {count} tables", "split the layer")
    source, name = _computed(planner, node, 0), node.name.split("/")[0]
    rows = source.size // (count * bits)
    planner.count("int8" if in_codes else "float32", rows * count * outputs)
    scale = planner.constant(node, 2).astype(np.float32) / np.float32(2 ** FRACTION_BITS[weighting]) if in_codes else None
    stored = planner.array(f"{name}_tables", words(tables) if in_codes else tables, "int8_t" if in_codes else FLOAT)
    target = planner.buffer(node.outputs[0], rows * outputs)
    factor = None if scale is None else planner.array(f"{name}_scale", scale, FLOAT)
    offset = planner.array(f"{name}_bias", bias.astype(np.float32), FLOAT)
    scratch = planner.buffer(f"{name}_chosen", 3 * (count + count % 2) // 2, "int32_t")
    temperature = float(node.attributes["temperature"])
    planner.steps.append(TableRows(target, source, stored, factor, offset, scratch, rows, bits, weighting, temperature))
    return Memory((target,), planner.graph.shapes[node.outputs[0]])


def binary_attention(planner: Planner, node: Node) -> Operand:
    """BinaryLinearAttention: sums of values by the bits of their keys, read by the bits of the queries."""
    _, heads, tokens, bits = planner.graph.shapes[node.inputs[0]]
    width = planner.graph.shapes[node.inputs[2]][-1]
    queries, keys, values = (_computed(planner, node, i) for i in range(3))
    if queries.size != heads * tokens * bits:
        raise refuse("attention must be at batch 1", node.name, "fix the batch")
    own_token = _text(node.attributes["numerator"]) == "own_token"
    target = planner.buffer(node.outputs[0], heads * tokens * width)
    scratch = planner.buffer(f"{node.name}_context", bits * width + width + bits)
    planner.count("float32", 2 * heads * tokens * bits * width)
    planner.steps.append(BinaryAttention(target, queries, keys, values, scratch, heads, tokens, bits, own_token))
    return Memory((target,), planner.graph.shapes[node.outputs[0]])


def _computed(planner: Planner, node: Node, index: int) -> Segment:
    name = node.inputs[index]
    return planner.contiguous(planner.memory(planner.operand(name), name), name)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
