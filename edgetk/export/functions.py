"""Bodies of edgetk's own operators: ONNX functions of standard operators, in every file that uses the operator.

A stock runtime inlines the body; a runtime with the native library (`edgetk.export.operators`) runs its kernel instead. To
add an operator: one entry in `BODIES`, and `edgetk.models.layers.operators.node` in the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from edgetk.core.errors import PreconditionError
from edgetk.core.target import Stack
from edgetk.export._dense_sparse_body import by_column, by_column_int8, by_row, by_row_int8
from edgetk.export._hard_attention_body import hard_attention
from edgetk.export._lookup_body import lookup_linear, lookup_linear_float
from edgetk.export.graph import opset_of
from edgetk.models.layers.operators import DOMAIN

if TYPE_CHECKING:
    import onnx

#: Attributes of a node by name, as Python values.
Attributes = Mapping[str, object]

#: Runtimes that read functions inside a file; TensorRT from 9.0 on (the change log of its ONNX parser).
_RUNTIMES = frozenset({"onnxruntime", "tensorrt"})

#: IR version that brought them, and the oldest operator set that the bodies are written for.
_IR_VERSION, _OPSET = 8, 13

#: numerator -> what beta multiplies
_OWN = {
    "own_token": "own = Identity (values)",
    "sum": "own = ReduceSum <keepdims: int = 1> (values, tokens_axis)",
}


def _binary_linear_attention(attributes: Attributes) -> str:
    """queries, keys (B, H, N, b) of -1, 0, 1 and values (B, H, N, d) -> (B, H, N, d).

    Liu et al. 2022 (EcoFormer), arXiv:2209.09004; the arithmetic of `edgetk.models.layers.binary_attention`, float32.
    """
    numerator = str(attributes.get("numerator"))
    if numerator not in _OWN:
        raise PreconditionError(
            f"lower: BinaryLinearAttention must have a numerator of {', '.join(_OWN)}, got {numerator!r}; export it again"
        )
    return f"""
    BinaryLinearAttention <numerator> (queries, keys, values) => (attended)
    {{
        tokens_axis = Constant <value = int64[1] {{-2}}> ()
        bits_index = Constant <value = int64 {{3}}> ()
        tokens_index = Constant <value = int64 {{2}}> ()
        one = Constant <value = float {{1.0}}> ()
        shape = Shape (queries)
        bits_int = Gather <axis: int = 0> (shape, bits_index)
        tokens_int = Gather <axis: int = 0> (shape, tokens_index)
        bits = Cast <to: int = 1> (bits_int)
        tokens = Cast <to: int = 1> (tokens_int)
        beta = Add (bits, one)
        keys_by_bit = Transpose <perm: ints = [0, 1, 3, 2]> (keys)
        context = MatMul (keys_by_bit, values)
        products = MatMul (queries, context)
        total = ReduceSum <keepdims: int = 1> (keys, tokens_axis)
        total_by_bit = Transpose <perm: ints = [0, 1, 3, 2]> (total)
        agreement = MatMul (queries, total_by_bit)
        base = Mul (tokens, beta)
        weights = Add (agreement, base)
        {_OWN[numerator]}
        bonus = Mul (beta, own)
        numerators = Add (products, bonus)
        attended = Div (numerators, weights)
    }}
    """


#: operator type -> its body as ONNX text, for the attributes that the graph's nodes have
BODIES: Mapping[str, Callable[[Attributes], str]] = {
    "BinaryLinearAttention": _binary_linear_attention,
    "DenseSparseMatMul": by_column,
    "DenseSparseMatMulByRow": by_row,
    "DenseSparseMatMulInt8": by_column_int8,
    "DenseSparseMatMulByRowInt8": by_row_int8,
    "HardAttention": hard_attention,
    "LookupLinear": lookup_linear,
    "LookupLinearFloat": lookup_linear_float,
}


def kept_by(stack: Stack) -> bool:
    """True where a graph for `stack` may hold functions; elsewhere it is written in standard operators only.

    A TensorRT without LayerNormalization is older than 8.6, and so reads none.
    """
    new = stack.ir_version >= _IR_VERSION and stack.opset >= _OPSET
    new = new and (stack.layer_norm or stack.runtime != "tensorrt")
    return new and stack.runtime in _RUNTIMES and not stack.operators


def attach(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with a body, for its operator set, for each of edgetk's operators in it: itself where nothing is missing.

    Raises PreconditionError where nodes of one type differ in an attribute that decides on the body.
    """
    import onnx

    wanted = list(_bodies(model))
    if all(function in model.functions for function in wanted):
        return model
    complete = onnx.ModelProto()
    complete.CopyFrom(model)
    _drop(complete)
    complete.functions.extend(wanted)
    return complete


def settle(model: onnx.ModelProto, stack: Stack) -> onnx.ModelProto:
    """`model` with the functions that `stack` reads and a conversion cannot break: itself where nothing has to change.

    A copy has the user's functions replaced by what they do, and edgetk's too where `stack` reads none. Those that stay lose
    their body, which `attach` writes anew for the new operator set.
    """
    if not model.functions or (kept_by(stack) and opset_of(model) <= stack.opset):
        return model
    from onnx import inliner

    own = [(function.domain, function.name) for function in model.functions if _is_own(function.domain, function.name)]
    if not kept_by(stack):
        return inliner.inline_local_functions(model)
    copy = inliner.inline_selected_functions(model, own, exclude=True)
    _drop(copy)
    return copy


def _drop(model: onnx.ModelProto) -> None:
    others = [function for function in model.functions if not _is_own(function.domain, function.name)]
    del model.functions[:]
    model.functions.extend(others)


def _is_own(domain: str, name: str) -> bool:
    return domain == DOMAIN and name in BODIES


def _bodies(model: onnx.ModelProto) -> Iterator[onnx.FunctionProto]:
    import onnx

    texts: dict[str, set[str]] = {}
    for node in _nodes(model.graph):
        if _is_own(node.domain, node.op_type):
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            decoded = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}
            texts.setdefault(node.op_type, set()).add(BODIES[node.op_type](decoded))
    for name, bodies in texts.items():
        if len(bodies) > 1:
            raise PreconditionError(
                f"lower: all {name} nodes of a graph must have the same attributes, got {len(bodies)} kinds; "
                "use one kind in all layers"
            )
        header = f'<opset_import: ["" : {opset_of(model)}], domain: "{DOMAIN}">'
        yield onnx.parser.parse_function(header + bodies.pop())


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)
            for sub in attribute.graphs:
                yield from _nodes(sub)


__all__ = ["BODIES", "attach", "kept_by", "settle"]
