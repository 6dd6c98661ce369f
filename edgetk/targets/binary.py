"""Which tensors of a graph can hold nothing but zeros and ones, whatever its inputs are: what a silent neuron sends is one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import NodeProto, numpy_helper

from edgetk.core.signature import Signature
from edgetk.targets import scan
from edgetk.targets.graph import Graph
from edgetk.targets.kinds import SELECTS, VIEWS

#: They keep the values of their first input, or some of them.
_KEEPS = VIEWS | SELECTS | {"Cast", "Transpose", "Expand", "Tile", "QuantizeLinear", "DequantizeLinear"}


def proven(graph: Graph, signature: Signature) -> frozenset[str]:
    """Tensors of zeros and ones. A state is one if it starts so and, taken for one, is carried on so."""
    states = {s.name: s.output for s in signature.state if set(s.init) <= {0.0, 1.0}}
    while True:
        found = _follow(graph, frozenset(states))
        kept = {name: output for name, output in states.items() if output in found}
        if kept == states:
            return found
        states = kept


def _follow(graph: Graph, given: frozenset[str]) -> frozenset[str]:
    found = {name for name, tensor in graph.constants.items() if np.isin(numpy_helper.to_array(tensor), (0, 1)).all()}
    found |= given | {name for name, dtype in graph.dtype.items() if dtype == "bool"}
    for node in graph.nodes:
        if scan.is_scan(node) and scan.problem(graph, node) is None:
            found |= _slices(graph, node)
        elif _keeps(node, found):
            found.update(node.output)
    return frozenset(found)


def _keeps(node: NodeProto, found: set[str]) -> bool:
    inputs = [name for name in node.input if name]
    if node.op_type in _KEEPS or (node.op_type == "Pad" and len(inputs) < 3):
        return inputs[0] in found
    if node.op_type == "Where":
        return found.issuperset(inputs[1:])
    return node.op_type in ("Concat", "Mul") and found.issuperset(inputs)


def _slices(graph: Graph, node: NodeProto) -> set[str]:
    """Sequences that a Scan writes whose every slice is zeros and ones."""
    body = scan.body(graph, node)
    inside = _follow(body, frozenset())
    outputs: Mapping[str, str] = dict(zip(node.output, body.outputs, strict=True))
    states = scan.states(node)
    return {name for name in node.output[states:] if outputs[name] in inside}
