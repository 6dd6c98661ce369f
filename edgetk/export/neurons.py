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
from edgetk.export.values import constant, store
from edgetk.models.layers.operators import DOMAIN

if TYPE_CHECKING:
    import onnx_ir as ir

OPERATOR = "LIF"

#: Runtimes assumed to read no Scan. Those of microcontrollers read few operators; written-out steps are the safe side.
_WITHOUT_SCAN = frozenset({"x-cube-ai", "tflm", "microtvm", "bosch-hale", "ethos-u", "edgetpu"})


def has_scan(stack: Stack) -> bool:
    """True where a graph for `stack` may hold a Scan."""
    if stack.operators:
        return "Scan" in stack.operators
    return stack.runtime not in _WITHOUT_SCAN


def expand(model: ir.Model, stack: Stack, name: str) -> None:
    """Replace every `edgetk::LIF` of a tidy graph, in place: x (B, T, C), threshold (C,), rest (C,) -> spikes (B, T, C).

    Raises PreconditionError where steps have to be written out and their number is not known.
    """
    import onnx_ir as ir

    graph = model.graph
    found = [node for node in graph if node.domain == DOMAIN and node.op_type == OPERATOR]
    if not found:
        return
    half = store(graph, "half", np.array(0.5, np.float32))
    sizes: dict[str, ir.Value] = {}
    for node in found:
        layer = _Layer(graph, node, half, sizes)
        new = layer.scanned() if has_scan(stack) else layer.unrolled(stack, name)
        result, spikes = node.outputs[0], new[-1].outputs[-1]
        spikes.name, spikes.shape, spikes.type = result.name, result.shape, result.type
        ir.convenience.replace_nodes_and_values(graph, node, [node], new, [result], [spikes])
    if not any(node.domain == DOMAIN for node in graph):
        model.opset_imports.pop(DOMAIN, None)


class _Layer:
    """One neuron layer: its tensors, and its nodes while they are made.

    `sizes` is shared by all layers: from a symbolic batch to its shape [batch, 1] in the graph.
    """

    def __init__(self, graph: ir.Graph, node: ir.Node, half: ir.Value, sizes: dict[str, ir.Value]) -> None:
        x, threshold, rest = node.inputs
        assert x is not None
        assert threshold is not None
        assert rest is not None
        assert x.shape is not None, "the layer knows its shape when it is captured"
        self.graph, self.node, self.half, self.sizes = graph, node, half, sizes
        self.x, self.threshold, self.rest = x, threshold, rest
        self.batch, self.frames, self.width = x.shape
        self.nodes: list[ir.Node] = []

    def scanned(self) -> list[ir.Node]:
        """A Scan along the time axis of x and of the spikes, so that nothing is transposed; the membrane is its state."""
        import onnx_ir as ir

        start = self._start()
        outside, self.nodes = self.nodes, []
        name, row = self.node.name, ir.Shape([self.batch, self.width])
        v, drive = (ir.Value(name=f"{name}/{end}", shape=row, type=self.x.type) for end in ("membrane", "drive"))
        spikes, after = self._step(f"{name}/step", v, drive, row)
        assert after is not None
        spikes.name, after.name = f"{name}/spikes", f"{name}/next_membrane"
        body = ir.Graph([v, drive], [after, spikes], nodes=self.nodes, name=f"{name}/step")
        scan = ir.node(
            "Scan",
            [start, self.x],
            attributes={"body": body, "num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]},
            num_outputs=2,
            name=name,
        )
        last = scan.outputs[0]
        last.name, last.shape, last.type = f"{name}/last_membrane", row, self.x.type
        return [*outside, scan]

    def unrolled(self, stack: Stack, name: str) -> list[ir.Node]:
        """Every step written out between a Split and a Concat. The first membrane is the rest, for the whole batch."""
        import onnx_ir as ir

        if not isinstance(self.frames, int):
            raise PreconditionError(
                f"lower: {name} must have a fixed number of frames where {stack.name} has no Scan, got {self.frames}; "
                "fix that dimension in the signature or choose another target"
            )
        path, row = self.node.name, ir.Shape([self.batch, 1, self.width])
        ones = store(self.graph, f"{path}/frames", np.ones(self.frames, np.int64))
        split = ir.node("Split", [self.x, ones], attributes={"axis": 1}, num_outputs=self.frames, name=f"{path}/Split")
        self.nodes.append(split)
        v, steps = self.rest, []
        for t, drive in enumerate(split.outputs):
            drive.name, drive.shape, drive.type = f"{path}/drive:{t}", row, self.x.type
            spikes, after = self._step(f"{path}/{t}", v, drive, row, last=t == self.frames - 1)
            steps.append(spikes)
            v = after if after is not None else v
        self._node("Concat", f"{path}/Concat", steps, self.x.shape, axis=1)
        return self.nodes

    def _step(
        self, path: str, v: ir.Value, drive: ir.Value, shape: ir.Shape, last: bool = False
    ) -> tuple[ir.Value, ir.Value | None]:
        """Spikes and next membrane (None after the last step, where nobody asks)."""
        import onnx_ir as ir

        total = self._node("Add", f"{path}/Add", [v, drive], shape)
        h = self._node("Mul", f"{path}/Mul", [total, self.half], shape)
        fired = self._node("GreaterOrEqual", f"{path}/GreaterOrEqual", [h, self.threshold], shape, ir.DataType.BOOL)
        spikes = self._node("Cast", f"{path}/Cast", [fired], shape, to=int(ir.DataType.FLOAT))
        return spikes, None if last else self._node("Where", f"{path}/Where", [fired, self.rest, h], shape)

    def _start(self) -> ir.Value:
        """The membranes at rest, (B, C)."""
        import onnx_ir as ir

        path = self.node.name
        if isinstance(self.batch, int):
            rest = constant(self.rest)
            assert rest is not None, "rest is a buffer"
            return store(self.graph, f"{path}/start", np.broadcast_to(rest, (self.batch, rest.size)))
        if str(self.batch) not in self.sizes:
            size = self._batch_size(f"{path}/Shape")
            one = store(self.graph, f"{path}/one", np.ones(1, np.int64))
            joined = self._node("Concat", f"{path}/Concat", [size, one], ir.Shape([2]), ir.DataType.INT64, axis=0)
            self.sizes[str(self.batch)] = joined
        target = self.sizes[str(self.batch)]
        return self._node("Expand", f"{path}/Expand", [self.rest, target], ir.Shape([self.batch, self.width]))

    def _batch_size(self, name: str) -> ir.Value:
        """How large the batch is, (1,): of the graph's own input where that has it; from a Shape that is there already."""
        import onnx_ir as ir

        places = ((v, axis) for v in self.graph.inputs for axis, d in enumerate(v.shape or ()) if d == self.batch)
        source, axis = next(places, (self.x, 0))
        for node in self.graph:
            if node is self.node:
                break
            given = {key: value.as_int() for key, value in node.attributes.items()} if node.op_type == "Shape" else {}
            if given == {"start": axis, "end": axis + 1} and node.inputs[0] is source:
                return node.outputs[0]
        return self._node("Shape", name, [source], ir.Shape([1]), ir.DataType.INT64, start=axis, end=axis + 1)

    def _node(
        self,
        kind: str,
        name: str,
        inputs: list[ir.Value],
        shape: ir.Shape | None,
        dtype: ir.DataType | None = None,
        **attributes: int,
    ) -> ir.Value:
        import onnx_ir as ir

        node = ir.node(kind, inputs, attributes=attributes, name=name)
        result = node.outputs[0]
        result.name, result.shape, result.type = f"{name}_out", shape, self.x.type if dtype is None else ir.TensorType(dtype)
        self.nodes.append(node)
        return result


__all__ = ["expand", "has_scan"]
