"""A user's ONNX file, safely: `load` with one clear sentence per defect, and what its inputs, outputs and states are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from edgetk.core.errors import InputError, PostconditionError
from edgetk.core.signature import Shape, Signature, StateSpec, TensorSpec

if TYPE_CHECKING:
    import onnx

#: Default-domain operator sets that are read; older ones define operators differently, newer ones are not released.
OPSETS = range(7, 29)

#: A graph file has to fit in one protobuf message.
MAX_BYTES = 2**31 - 1


def fingerprint(model: onnx.ModelProto) -> str:
    """SHA-256 of what a graph computes: operators and weights with their names, whatever is said about them besides."""
    import onnx

    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    for field in ("name", "doc_string", "value_info"):
        graph.ClearField(field)
    return hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()


def load(path: Path) -> onnx.ModelProto:
    """The graph in `path`, checked, its external data read from the file's own folder only.

    Raises InputError: no such file, too large, truncated, not ONNX, refused by the checker, external data that is missing or
    lies outside the folder, an operator set that is not supported.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: must be an ONNX file, got {'a folder' if path.is_dir() else 'no such file'}; check the path")
    content = path.read_bytes()
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: must be below 2 GiB, got {len(content)} bytes; store large weights as external data")
    if not content:
        raise InputError(f"{path}: must be an ONNX graph, got an empty file; export or copy it again")
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise InputError(
            f"{path}: must be an ONNX graph, got {len(content)} bytes that do not parse (truncated, or another format); "
            "export or copy it again"
        ) from error
    if not model.HasField("graph") or not model.opset_import or not model.graph.node:
        raise InputError(f"{path}: must be an ONNX graph, got a file without nodes or operator set; export or copy it again")
    opset = opset_of(model)
    if opset not in OPSETS:
        raise InputError(f"{path}: must use operator set {OPSETS.start} to {OPSETS.stop - 1}, got {opset}; export it again")
    _read_external(model, path)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: must pass the ONNX checker, got: {reason}; export it again") from error
    return model


def _read_external(model: onnx.ModelProto, path: Path) -> None:
    """Pull external weights into the graph, never from outside the file's folder."""
    from onnx import external_data_helper

    folder = path.resolve().parent
    for tensor in _tensors(model.graph):
        if not external_data_helper.uses_external_data(tensor):
            continue
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        place = (folder / location).resolve()
        if not location or PurePosixPath(location).is_absolute() or not place.is_relative_to(folder):
            raise InputError(
                f"{path}: external data of {tensor.name} must lie in the model's folder, got {location!r}; "
                "save the model as one file"
            )
        if not place.is_file():
            raise InputError(f"{path}: external data of {tensor.name} must exist, got no file {location!r}; copy it beside it")
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except Exception as error:  # the library raises several types for a short file, a link, a wrong offset
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"{path}: external data of {tensor.name} must be readable, got: {reason}; save the model as one file"
            ) from error
        tensor.data_location = tensor.DEFAULT
        del tensor.external_data[:]


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for sub in attribute.graphs:
                yield from _tensors(sub)


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the default domain's operator set; 0 where the graph names none."""
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def precision_of(model: onnx.ModelProto) -> str:
    """ "int8" where the graph quantizes or dequantizes 8-bit tensors or reads tables of them, else "float32"."""
    kinds = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger"}
    kinds.add("LookupLinear")
    return "int8" if any(node.op_type in kinds for node in model.graph.node) else "float32"


def signature_of(model: onnx.ModelProto) -> Signature:
    """Inputs, outputs and states of a graph: from edgetk's metadata, else from its names.

    Without metadata a graph input `state_…` whose output `<name>_out` exists is a state, zero at the start.
    Raises InputError where metadata and graph disagree, a state has no output, or a tensor has no shape.
    """
    written = {p.key: p.value for p in model.metadata_props}.get("signature")
    constants = {i.name for i in model.graph.initializer}
    inputs = [_spec(v) for v in model.graph.input if v.name not in constants]
    outputs = [_spec(v) for v in model.graph.output]
    names = {s.name for s in outputs}
    if written is not None:
        try:
            signature = Signature.from_json(json.loads(written))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                "metadata signature: must be what edgetk wrote, got text that does not parse; remove that key"
            ) from error
        if differences := _contract_differences(model, signature):
            raise InputError(f"metadata signature: must match the graph, got {differences[0]}; remove that key")
        return signature
    states = []
    for spec in inputs:
        if spec.name.startswith("state_"):
            if f"{spec.name}_out" not in names:
                raise InputError(f"{spec.name}: a state input must have an output {spec.name}_out, got none; rename one")
            states.append(StateSpec(spec))
    carried = {s.name for s in states}
    ends = {s.output for s in states}
    return Signature(
        tuple(s for s in inputs if s.name not in carried), tuple(s for s in outputs if s.name not in ends), tuple(states)
    )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    import onnx

    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise InputError(f"{value.name}: must be a tensor of known rank, got none; export the graph with shapes")
    shape: Shape = tuple(
        d.dim_value if d.HasField("dim_value") else d.dim_param or f"{value.name}_{axis}"
        for axis, d in enumerate(kind.shape.dim)
    )
    return TensorSpec(value.name, shape, str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)))


def io_contract(model: onnx.ModelProto, signature: Signature) -> None:
    """Raise PostconditionError unless the graph's inputs and outputs are exactly those of `signature`, in order."""
    if differences := _contract_differences(model, signature):
        raise PostconditionError(
            f"onnx: the graph must keep the signature, got {differences[0]}; this is a fault of the export"
        )


def _contract_differences(model: onnx.ModelProto, signature: Signature) -> list[str]:
    constants = {i.name for i in model.graph.initializer}
    states = tuple(s.spec for s in signature.state)
    ends = tuple(TensorSpec(s.output, s.spec.shape, s.spec.dtype) for s in signature.state)
    differences = []
    for side, values, wanted in (
        ("inputs", [v for v in model.graph.input if v.name not in constants], signature.inputs + states),
        ("outputs", list(model.graph.output), signature.outputs + ends),
    ):
        found = [_spec(v) for v in values]
        if [s.name for s in found] != [s.name for s in wanted]:
            differences.append(f"{side} {[s.name for s in found]} instead of {[s.name for s in wanted]}")
            continue
        for a, b in zip(found, wanted, strict=True):
            if (a.shape, a.dtype) != (b.shape, b.dtype):
                differences.append(f"{a.name} {a.dtype}{list(a.shape)} instead of {b.dtype}{list(b.shape)}")
    return differences
