"""A lowered graph made to fit one TensorRT: batch of one, operator set, functions, quantization, a lint against its parser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgetk.core.contracts import Lowered
from edgetk.core.errors import PreconditionError
from edgetk.core.signature import Signature
from edgetk.core.target import Stack
from edgetk.export import clean, opset, tensorrt_qdq
from edgetk.export import graph as graphs
from edgetk.export.lower import static
from edgetk.export.tensorrt_versions import Version, operators, version_of

if TYPE_CHECKING:
    import onnx


def batch_of_one(signature: Signature, name: str) -> Signature:
    """The signature with its batch fixed at 1: an engine is built for one shape.

    Raises PreconditionError where another dimension is symbolic.
    """

    for spec in (*signature.inputs, *signature.outputs, *(state.spec for state in signature.state)):
        for size in spec.shape[1:]:
            if isinstance(size, str):
                raise PreconditionError(
                    f"tensorrt: {name} must have fixed dimensions but for the batch, got {size!r} in {spec.name}; "
                    "fix it in the signature"
                )
    return static(signature)


def fit(lowered: Lowered, stack: Stack, name: str) -> Lowered:
    """The same form, as the TensorRT of `stack` reads it, at batch 1; what it computes stays.

    Raises PreconditionError, naming what is in the way: an operator or a number type that its parser refuses, quantization
    that is not symmetric int8, a dimension of unknown size.
    """
    version = version_of(stack)
    signature = batch_of_one(lowered.signature, name)
    model = lowered.graph
    if model.functions and not version.has_functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    capped = replace(
        stack,
        opset=min(stack.opset, version.max_opset),
        layer_norm=stack.layer_norm and version.has_layer_norm,
        operators=(),
    )
    # Shapes that a parser would have to compute are written out: 8.5 loses its way in a Concat behind an Expand of one.
    model = clean.fold_shapes(_static(opset.fit(_plain_reshapes(model), capped, name), signature))
    model = tensorrt_qdq.fit(model, version, name)
    lint(model, version, name)
    graphs.io_contract(model, signature)
    return replace(lowered, graph=model, signature=signature)


def _plain_reshapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose Reshapes do not say what a 0 in a shape means where there is none: operator set 13 has no word for it."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    shapes = {i.name: onnx.numpy_helper.to_array(i) for i in copy.graph.initializer if i.data_type == onnx.TensorProto.INT64}
    unknown = np.zeros(1)
    for node in copy.graph.node:
        if node.op_type == "Reshape" and (shapes.get(node.input[1], unknown) != 0).all():
            kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)
    return copy


def _static(model: onnx.ModelProto, signature: Signature) -> onnx.ModelProto:
    """`model` with the shapes of `signature`, and every type and shape behind them inferred again."""
    import onnx

    shapes = {spec.name: spec.shape for spec in (*signature.inputs, *signature.outputs)}
    shapes |= {name: s.spec.shape for s in signature.state for name in (s.name, s.output)}
    for value in (*model.graph.input, *model.graph.output):
        if value.name in shapes:
            for dimension, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
                dimension.dim_value = int(size)
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def lint(model: onnx.ModelProto, version: Version, name: str) -> None:
    """Raise PreconditionError for what the parser of `version` is known to refuse."""
    import onnx

    known, own = operators(version), {(f.domain, f.name) for f in model.functions}
    bodies = (node for function in model.functions for node in _all(function.node))
    unknown = {
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        for node in (*_all(model.graph.node), *bodies)
        if (node.domain, node.op_type) not in own and (node.domain or node.op_type not in known)
    }
    if unknown:
        raise PreconditionError(
            f"tensorrt: {name} must use operators that the parser of TensorRT {version} reads, "
            f"got {', '.join(sorted(unknown))}; replace those layers or choose another target"
        )
    types = {v.name: v.type.tensor_type.elem_type for v in (*model.graph.value_info, *model.graph.input)}
    types |= {i.name: i.data_type for i in model.graph.initializer}
    whole = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
    for node in model.graph.node:
        if node.op_type == "MatMul" and types.get(node.input[0]) in whole:
            raise PreconditionError(
                f"tensorrt: {name} must multiply matrices of floating-point numbers, got integers in {node.name}; "
                "cast its inputs to float32"
            )
    wide = sorted(label for label, kind in types.items() if kind == onnx.TensorProto.DOUBLE)
    if wide:
        raise PreconditionError(
            f"tensorrt: {name} must not hold float64 numbers, which the parser narrows, got {wide[0]}; use float32"
        )


def _all(nodes: object) -> Iterator[onnx.NodeProto]:
    for node in nodes:  # type: ignore[attr-defined]
        yield node
        for attribute in node.attribute:
            for sub in (attribute.g, *attribute.graphs):
                yield from _all(sub.node)


__all__ = ["batch_of_one", "fit", "lint"]
