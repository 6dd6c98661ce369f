"""float16 written into a graph, for TensorRT that takes precision from the graph alone; inputs and outputs stay float32.

Sums, norms and exponentials stay float32 between casts: float16 has 11 bits, and its squares overflow at 256.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgetk.core.errors import PreconditionError
from edgetk.export.values import constant, store

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

#: The largest float16.
_LARGEST = 65504.0

#: Operators that keep float32, on both sides.
_WIDE = """
    ConstantOfShape Constant CumSum Exp GroupNormalization InstanceNormalization LayerNormalization Log LogSoftmax OneHot Pow
    RandomNormal RandomUniform Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMean ReduceProd ReduceSum
    ReduceSumSquare Resize Softmax Sqrt Upsample
"""
_KEPT = frozenset(_WIDE.split())


def half(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """A copy of a float32 graph whose products and element-wise operators run in float16. Functions are written out.

    Raises PreconditionError for a graph with inner graphs or quantization, or with a weight beyond float16.
    """
    import onnx
    import onnx_ir as ir
    from onnx import inliner

    flat = inliner.inline_local_functions(model) if model.functions else model
    kinds = {node.op_type for node in flat.graph.node}
    inner = {node.op_type for node in flat.graph.node if any(a.HasField("g") for a in node.attribute)}
    if found := sorted(inner | (kinds & {"QuantizeLinear", "DequantizeLinear"})):
        raise PreconditionError(
            f"tensorrt: a graph to be written in float16 must be plain float32, got {found[0]} in {name}; use it as it is"
        )
    whole = ir.from_proto(onnx.shape_inference.infer_shapes(flat, data_prop=True))
    _Halving(whole.graph, name).run()
    from edgetk.export.clean import sweep

    sweep(whole)
    return ir.to_proto(whole)


class _Halving:
    """The casts of one graph: each value is cast once, whoever reads it."""

    def __init__(self, graph: ir.Graph, name: str) -> None:
        self.graph, self.name = graph, name
        self.made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        import onnx_ir as ir

        outputs = set(self.graph.outputs)
        floats = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
        for node in list(self.graph):
            if node.op_type == "Cast" and node.attributes["to"].as_int() not in floats:
                continue  # whole numbers, such as those of tokens: float16 holds them up to 2048 only
            wanted = ir.DataType.FLOAT if node.op_type in _KEPT else ir.DataType.FLOAT16
            for index, value in enumerate(node.inputs):
                if value is not None and value.dtype in floats and value.dtype != wanted:
                    node.replace_input_with(index, self._cast(value, wanted, node))
            if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT:
                node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT16))
            for value in node.outputs:
                if value.dtype == ir.DataType.FLOAT and wanted == ir.DataType.FLOAT16:
                    value.type = ir.TensorType(ir.DataType.FLOAT16)
                    if value in outputs:
                        self._widen(node, value)

    def _cast(self, value: ir.Value, wanted: ir.DataType, before: ir.Node) -> ir.Value:
        import onnx_ir as ir

        if (value, wanted) in self.made:
            return self.made[value, wanted]
        array = constant(value)
        label = f"{value.name}/{'float16' if wanted == ir.DataType.FLOAT16 else 'float32'}"
        if array is not None:
            largest = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
            if largest > _LARGEST:
                raise PreconditionError(
                    f"tensorrt: a graph to be written in float16 must hold numbers up to {_LARGEST:.0f}, got {largest:.3g} in "
                    f"{value.name} of {self.name}; use it in float32"
                )
            result = store(self.graph, label, array.astype(np.float16))
        else:
            node = ir.node("Cast", [value], attributes={"to": int(wanted)}, name=f"{label}/Cast")
            result = node.outputs[0]
            result.name, result.shape, result.type = label, value.shape, ir.TensorType(wanted)
            self.graph.insert_before(before, node)
        self.made[value, wanted] = result
        return result

    def _widen(self, node: ir.Node, value: ir.Value) -> None:
        """A graph output is float32 under its own name; readers inside the graph take the float16 number before it."""
        import onnx_ir as ir

        name = value.name
        value.name = f"{name}/float16"
        cast = ir.node("Cast", [value], attributes={"to": int(ir.DataType.FLOAT)}, name=f"{name}/Cast")
        result = cast.outputs[0]
        result.name, result.shape, result.type = name, value.shape, ir.TensorType(ir.DataType.FLOAT)
        self.graph.insert_after(node, cast)
        self.graph.outputs[self.graph.outputs.index(value)] = result


__all__ = ["half"]
