"""Spiking neurons over whole clips in standard operators: one Scan a layer, or steps written out where a stack has no Scan.

A layer that spikes leaves one node `edgetk::LIF` (x, threshold, rest) in a captured graph; `expand` replaces it by what
`edgetk.models.layers.lif` computes, the same five operators a step as in a stream, so that all forms give the same bits:

    h = (v + x) * 0.5;   fired = h >= threshold;   spikes = fired as a number;   v = rest where fired, else h
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgetk.core.errors import PreconditionError
from edgetk.core.target import Stack
from edgetk.export.clean import SCOPES
from edgetk.export.values import constant, store
from edgetk.models.layers.operators import DOMAIN

if TYPE_CHECKING:
    import onnx_ir as ir

OPERATOR = "LIF"

#: Runtimes whose documentation lists no Scan, whatever the board says about single operators.
_WITHOUT_SCAN = frozenset({"x-cube-ai"})


def has_scan(stack: Stack) -> bool:
    """True where a graph for `stack` may hold a Scan."""
    if stack.operators:
        return "Scan" in stack.operators
    return stack.runtime not in _WITHOUT_SCAN


def expand(model: ir.Model, stack: Stack, name: str) -> None:
    """Replace every `edgetk::LIF` of a captured graph, in place: x (B, T, C), threshold (C,), rest (C,) -> spikes (B, T, C).

    Raises PreconditionError where steps have to be written out and their number is not known.
    """
    import onnx_ir as ir

    graph = model.graph
    found = [node for node in graph if node.domain == DOMAIN and node.op_type == OPERATOR]
    if not found:
        return
    half = store(graph, "half", np.array(0.5, np.float32))
    for node in found:
        layer = _Layer(graph, node, half)
        new = layer.scanned() if has_scan(stack) else layer.unrolled(stack, name)
        result, spikes = node.outputs[0], new[-1].outputs[-1]
        spikes.shape, spikes.type = result.shape, result.type
        ir.convenience.replace_nodes_and_values(graph, node, [node], new, [result], [spikes])
    if not any(node.domain == DOMAIN for node in graph):
        model.opset_imports.pop(DOMAIN, None)


class _Layer:
    """One neuron layer: its tensors, and its nodes while they are made."""

    def __init__(self, graph: ir.Graph, node: ir.Node, half: ir.Value) -> None:
        x, threshold, rest = node.inputs
        assert x is not None
        assert threshold is not None
        assert rest is not None
        assert x.shape is not None, "the layer knows its shape when it is captured"
        self.graph, self.x, self.threshold, self.rest, self.half = graph, x, threshold, rest, half
        self.batch, self.frames, self.width = x.shape
        #: path of the module, which a captured node of edgetk's own has lost
        self.path = (threshold.name or "").removesuffix(".threshold")
        self.nodes: list[ir.Node] = []

    def scanned(self) -> list[ir.Node]:
        """A Scan along the time axis of x and of the spikes, so that nothing is transposed; the membrane is its state."""
        import onnx_ir as ir

        start = self._start()
        outside, self.nodes = self.nodes, []
        row = ir.Shape([self.batch, self.width])
        label = self.path.removeprefix("body.")
        v, drive = (ir.Value(name=f"{label}/{end}", shape=row, type=self.x.type) for end in ("membrane", "drive"))
        spikes, after = self._step(v, drive, row)
        assert after is not None
        for node in self.nodes:
            node.name = f"{label}/step/{node.op_type}"
            node.outputs[0].name = f"{node.name}_out"
        spikes.name, after.name = f"{label}/spikes", f"{label}/next_membrane"
        body = ir.Graph([v, drive], [after, spikes], nodes=self.nodes, name=f"{label}/step")
        axes = {"scan_input_axes": [1], "scan_output_axes": [1]}
        scan = ir.node("Scan", [start, self.x], attributes={"body": body, "num_scan_inputs": 1, **axes}, num_outputs=2)
        scan.metadata_props[SCOPES] = self._scope()
        scan.outputs[0].shape, scan.outputs[0].type = row, self.x.type
        return [*outside, scan]

    def unrolled(self, stack: Stack, name: str) -> list[ir.Node]:
        """Every step written out between a Split and a Concat. The first membrane is the rest, for the whole batch."""
        import onnx_ir as ir

        if not isinstance(self.frames, int):
            raise PreconditionError(
                f"lower: {name} must have a fixed number of frames where {stack.name} has no Scan, got {self.frames}; "
                "fix that dimension in the signature or choose another target"
            )
        row = ir.Shape([self.batch, 1, self.width])
        ones = store(self.graph, f"{self.path}.frames", np.ones(self.frames, np.int64))
        split = ir.node("Split", [self.x, ones], attributes={"axis": 1}, num_outputs=self.frames)
        split.metadata_props[SCOPES] = self._scope()
        self.nodes.append(split)
        v, steps = self.rest, []
        for t, drive in enumerate(split.outputs):
            drive.shape, drive.type = row, self.x.type
            spikes, after = self._step(v, drive, row, last=t == self.frames - 1)
            steps.append(spikes)
            v = after if after is not None else v
        self._node("Concat", steps, self.x.shape, axis=1)
        return self.nodes

    def _step(self, v: ir.Value, drive: ir.Value, shape: ir.Shape, last: bool = False) -> tuple[ir.Value, ir.Value | None]:
        """Spikes and next membrane (None after the last step, where nobody asks)."""
        import onnx_ir as ir

        total = self._node("Add", [v, drive], shape)
        h = self._node("Mul", [total, self.half], shape)
        fired = self._node("GreaterOrEqual", [h, self.threshold], shape, ir.DataType.BOOL)
        spikes = self._node("Cast", [fired], shape, to=int(ir.DataType.FLOAT))
        return spikes, None if last else self._node("Where", [fired, self.rest, h], shape)

    def _start(self) -> ir.Value:
        """The membranes at rest, (B, C)."""
        import onnx_ir as ir

        rest = constant(self.rest)
        assert rest is not None, "rest is a buffer"
        if isinstance(self.batch, int):
            return store(self.graph, f"{self.path}.start", np.broadcast_to(rest, (self.batch, rest.size)))
        # The graph's own input has the same batch, and one Shape of it serves all layers.
        places = ((v, axis) for v in self.graph.inputs for axis, d in enumerate(v.shape or ()) if d == self.batch)
        source, axis = next(places, (self.x, 0))
        size = self._node("Shape", [source], ir.Shape([1]), ir.DataType.INT64, start=axis, end=axis + 1)
        one = store(self.graph, f"{self.path}.one", np.ones(1, np.int64))
        target = self._node("Concat", [size, one], ir.Shape([2]), ir.DataType.INT64, axis=0)
        return self._node("Expand", [self.rest, target], ir.Shape([self.batch, self.width]))

    def _node(
        self,
        kind: str,
        inputs: list[ir.Value],
        shape: ir.Shape | None,
        dtype: ir.DataType | None = None,
        **attributes: int,
    ) -> ir.Value:
        import onnx_ir as ir

        node = ir.node(kind, inputs, attributes=attributes)
        node.metadata_props[SCOPES] = self._scope()
        result = node.outputs[0]
        result.shape, result.type = shape, self.x.type if dtype is None else ir.TensorType(dtype)
        self.nodes.append(node)
        return result

    def _scope(self) -> str:
        return repr(["", self.path, OPERATOR])


__all__ = ["expand", "has_scan"]
