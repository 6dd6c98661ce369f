"""Rewrites that keep what a graph computes: fewer nodes, readable names, integers where integer kernels look for them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgetk.export.values import constant, producer, store

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_SCOPES = "pkg.torch.onnx.name_scopes"

#: Operators whose result can be far larger than what they are made from; folding them would blow up the file.
_GROWING = frozenset({"Expand", "Tile", "ConstantOfShape", "Range", "OneHot", "EyeLike", "DequantizeLinear", "QuantizeLinear"})


def tidy(model: ir.Model) -> None:
    """Clean a freshly exported graph in place: constants computed, names from module paths, no dead, double or empty nodes."""
    from onnx_ir.passes import common

    _fold_constants(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    common.IdentityEliminationPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    _drop_empty_slices(model.graph)
    _order_gelu(model.graph)
    _narrow_indices(model.graph)
    _transpose_stored_weights(model.graph)
    _name(model.graph)
    common.DeduplicateInitializersPass()(model)
    sweep(model)
    common.ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    model.producer_name, model.producer_version = "edgetk", ""


def sweep(model: ir.Model) -> None:
    """Remove nodes and weights that nothing reads."""
    from onnx_ir.passes import common

    common.RemoveUnusedNodesPass()(model)


def _fold_constants(model: ir.Model) -> None:
    """Compute what depends on constants only, whatever its size, except where the result would be larger than its source."""
    from onnxscript import optimizer

    limit = 2**28
    optimizer.optimize_ir(
        model,
        input_size_limit=limit,
        output_size_limit=limit,
        should_fold=lambda node: False if node.op_type in _GROWING else None,
    )


def fold_shapes(model: onnx.ModelProto, most: int = 2**16) -> onnx.ModelProto:
    """A copy where what hangs on fixed shapes only is computed, up to `most` numbers each: a parser need not follow it."""
    import onnx_ir as ir
    from onnxscript import optimizer

    made = ir.from_proto(model)
    optimizer.fold_constants(
        made,
        input_size_limit=most,
        output_size_limit=most,
        should_fold=lambda node: False if node.op_type in ("QuantizeLinear", "DequantizeLinear") else None,
    )
    sweep(made)
    return ir.to_proto(made)


def _transpose_stored_weights(graph: ir.Graph) -> None:
    """Transpose(DequantizeLinear(W)) becomes DequantizeLinear(W^T): integer kernels want the product right behind it."""
    for node in list(graph):
        dequantize = producer(node.inputs[0], "DequantizeLinear") if node.op_type == "Transpose" else None
        codes = constant(dequantize.inputs[0]) if dequantize is not None else None
        if dequantize is None or codes is None or "perm" not in node.attributes:
            continue
        import onnx_ir as ir

        perm = list(node.attributes["perm"].as_ints())
        source = dequantize.inputs[0]
        assert source is not None
        attributes: dict[str, int] = {}
        if "axis" in dequantize.attributes:
            attributes["axis"] = perm.index(dequantize.attributes["axis"].as_int() % codes.ndim)
        stored = store(graph, f"{source.name}_transposed", codes.transpose(perm))
        new = ir.node("DequantizeLinear", [stored, *dequantize.inputs[1:]], attributes=attributes, name=dequantize.name)
        new.metadata_props.update(dequantize.metadata_props)
        new.outputs[0].shape, new.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
        ir.convenience.replace_nodes_and_values(graph, node, [node], [new], [node.outputs[0]], [new.outputs[0]])


def _drop_empty_slices(graph: ir.Graph) -> None:
    """A Slice that keeps everything, such as the only frame of a step, is left out."""
    import onnx_ir as ir

    for node in list(graph):
        if node.op_type != "Slice" or node.domain or node.outputs[0].is_graph_output():
            continue
        source, result = node.inputs[0], node.outputs[0]
        steps = constant(node.inputs[4]) if len(node.inputs) > 4 else np.ones(1)
        if source is None or source.shape is None or steps is None or not source.shape.is_static():
            continue
        if source.shape == result.shape and (steps == 1).all():
            ir.convenience.replace_all_uses_with(result, source)
            graph.remove(node, safe=True)


def _order_gelu(graph: ir.Graph) -> None:
    """x * (0.5 * (1 + erf)) becomes (x * (1 + erf)) * 0.5: the same numbers, and the order that runtimes fuse to one Gelu."""
    for node in graph:
        if node.op_type != "Mul" or node.domain:
            continue
        for side in (0, 1):
            half = producer(node.inputs[side], "Mul")
            if half is None or len(half.outputs[0].uses()) != 1 or half.outputs[0].is_graph_output():
                continue
            constants = [i for i, value in enumerate(half.inputs) if (c := constant(value)) is not None and c.size == 1]
            if len(constants) != 1:
                continue
            factor, rest, x = half.inputs[constants[0]], half.inputs[1 - constants[0]], node.inputs[1 - side]
            add = producer(rest, "Add")
            if add is not None and any(producer(value, "Erf") for value in add.inputs):
                inner = half.outputs[0]
                half.replace_input_with(0, x)
                half.replace_input_with(1, rest)
                inner.shape, inner.type = node.outputs[0].shape, node.outputs[0].type
                node.replace_input_with(0, inner)
                node.replace_input_with(1, factor)
                break


def _narrow_indices(graph: ir.Graph) -> None:
    """Tables of indices as int32: half the size, and what 32-bit runtimes want."""
    for node in graph:
        value = node.inputs[1] if node.op_type == "Gather" and not node.domain else None
        table = constant(value)
        if value is None or table is None or table.dtype != np.int64 or table.size < 2 or np.abs(table).max() >= 2**31:
            continue
        node.replace_input_with(1, store(graph, f"{value.name}_int32", table.astype(np.int32)))


def _scope(node: ir.Node) -> str:
    """Path of the module a node comes from, "" at the root."""
    if node.domain:  # edgetk's own operators lose their modules in the exporter, but weights have the modules' names
        owner = next((value.name for value in node.inputs if value is not None and value.is_initializer()), None)
        return (owner or "").rpartition(".")[0]
    try:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    except (ValueError, SyntaxError):
        return ""
    path = str(scopes[-2]) if len(scopes) > 1 else ""
    return path.removeprefix("body.") if path.startswith("body.") else ""


def _name(graph: ir.Graph) -> None:
    """Name nodes and values after module paths: "mixer.proj/MatMul"; weights keep the module's own names."""
    fixed = {v.name for v in (*graph.inputs, *graph.outputs)}
    taken: dict[str, int] = dict.fromkeys((n for n in fixed if n), 0)

    def free(name: str) -> str:
        if name not in taken:
            taken[name] = 0
            return name
        taken[name] += 1
        return free(f"{name}_{taken[name] + 1}")

    weights = list(graph.initializers.values())
    for value in weights:
        if (value.name or "").startswith("body."):
            value.name = free((value.name or "").removeprefix("body."))
    outputs = set(graph.outputs)
    for node in graph:
        scope = _scope(node)
        node.name = free(f"{scope}/{node.op_type}" if scope else node.op_type)
        for i, value in enumerate(node.outputs):
            if value not in outputs:
                value.name = free(f"{node.name}_out" if i == 0 else f"{node.name}_out:{i}")
        for i, made in _unnamed(node, taken):
            weight = scope and i == 1 and node.op_type in ("MatMul", "Gemm", "Conv")
            made.name = free(f"{scope}.weight" if weight else f"{node.name}:{i}")


def _unnamed(node: ir.Node, taken: dict[str, int]) -> Iterator[tuple[int, ir.Value]]:
    """Constants that the exporter made, so that they have no name of the module's own."""
    for i, value in enumerate(node.inputs):
        if value is not None and value.is_initializer() and value.name not in taken:
            yield i, value


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The graph as one protobuf message, weights inside."""
    import onnx_ir as ir

    return ir.to_proto(model)


__all__ = ["sweep", "tidy", "to_proto"]
