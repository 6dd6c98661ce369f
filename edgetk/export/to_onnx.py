"""ONNX files: `model.onnx` (whole clip) and `model.stream.onnx` (one step, explicit states), checked, described and proven.

float32 inputs and outputs whatever is inside; Q/DQ with integer weights for int8; single file; test data beside each.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgetk.core import registry
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Emitted, Lowered
from edgetk.core.errors import PostconditionError, PreconditionError
from edgetk.core.target import Target
from edgetk.export import graph as graphs
from edgetk.export import metadata, parity

FILES = {"clip": "model.onnx", "stream": "model.stream.onnx"}

#: Inputs of the parity proof, of the test data, and steps of the test stream.
PROOFS, EXAMPLES, TEST_STEPS = 8, 4, 64


@dataclass(frozen=True)
class OnnxExporter:
    """Files of the format "onnx"."""

    format: str = "onnx"

    def check(self, bundle: Bundle, target: Target) -> None:
        """Any torch module or graph can be tried; `lower` says what cannot be exported."""
        if not bundle.signature.inputs or not bundle.signature.outputs:
            raise PreconditionError(f"onnx: {bundle.name} must have inputs and outputs, got none; declare its signature")

    def __call__(
        self, lowered: Sequence[Lowered], bundle: Bundle, target: Target, facts: Mapping[str, Any] | None = None
    ) -> Sequence[Emitted]:
        """The graphs as files, each followed by its test data.

        `facts` goes into the metadata: `metadata.FACTS`, and `metadata.FORM_FACTS` by form. Raises ParityError,
        PostconditionError.
        """
        emitted: list[Emitted] = []
        for low in lowered:
            model = metadata.write(low.graph, metadata.describe(low, bundle, target, front_end(bundle), facts or {}))
            content = checked(model, low)
            inputs = examples(bundle, low, PROOFS)
            proof = parity.prove(low, content, inputs) if low.reference is not None else None
            emitted.append(Emitted(FILES[low.form], content, self.format, low, proof))
            emitted.extend(_test_data(low, tuple(x[:EXAMPLES] for x in inputs)))
        return emitted


def front_end(bundle: Bundle) -> Mapping[str, Any]:
    """The constants of the task's front end; nothing where there is no task of that name."""
    found: Mapping[str, Any] = registry.load("task", bundle.task).front_end if bundle.task in registry.names("task") else {}
    return found


def checked(model: Any, lowered: Lowered) -> bytes:
    """The file's bytes, after every check that needs no run."""
    import onnx

    graphs.io_contract(model, lowered.signature)
    content: bytes = model.SerializeToString(deterministic=True)
    if len(content) > graphs.MAX_BYTES:
        raise PostconditionError(f"onnx: a file must be below 2 GiB, got {len(content)} bytes; shrink the model")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0]
        raise PostconditionError(
            f"onnx: the graph must pass the ONNX checker, got: {reason}; this is a fault of the export"
        ) from error
    return content


def examples(bundle: Bundle, lowered: Lowered, n: int) -> tuple[np.ndarray, ...]:
    """`n` inputs in the layout that `parity.prove` takes: real ones where the bundle has data that fit, else seeded random."""
    signature = lowered.signature
    whole = bundle.clip if bundle.clip is not None else bundle.signature
    if bundle.data is None or len(signature.inputs) != 1:
        return parity.random_inputs(signature, n)
    real = bundle.data.calibration(n).numpy().astype(np.float32)
    if lowered.form == "stream":
        if bundle.clip is None:
            return parity.random_inputs(signature, n)
        steps = parity.steps_of(real, whole.inputs[0], signature.inputs[0])
        return (steps if lowered.exact else steps[:, :TEST_STEPS],)  # membranes take their time to go astray
    spec = signature.inputs[0]
    return (real,) if isinstance(spec.shape[0], str) else (real.reshape(len(real), *spec.concrete()),)


def _test_data(lowered: Lowered, inputs: tuple[np.ndarray, ...]) -> list[Emitted]:
    """Inputs and outputs of the model in memory, by tensor name.

    Clip form: a batch (or its first example where the batch is fixed). Stream form: one step from the middle of a stream, so
    that its states are not zero, and `sequence.npz`, a whole stream from the initial state: inputs and outputs (steps, …).
    """
    if lowered.reference is None:
        return []
    signature, folder = lowered.signature, f"testdata/{lowered.form}"
    files: dict[str, dict[str, np.ndarray]] = {}
    if signature.is_streaming:
        outputs = parity.stream(lowered.reference, signature, tuple(x[:1] for x in inputs))
        middle = max(outputs[0].shape[1] // 2, 1)
        count = len(signature.outputs)
        state = [y[0, middle - 1] for y in outputs[count:]]
        frame = [x[0, middle] for x in inputs]
        files["inputs"] = dict(zip(signature.input_names, [*frame, *state], strict=True))
        files["outputs"] = dict(zip(signature.output_names, [y[0, middle] for y in outputs], strict=True))
        names = [t.name for t in (*signature.inputs, *signature.outputs)]
        files["sequence"] = dict(zip(names, [*(x[0] for x in inputs), *(y[0] for y in outputs[:count])], strict=True))
    else:
        given = inputs if isinstance(signature.inputs[0].shape[0], str) else tuple(x[0] for x in inputs)
        files["inputs"] = dict(zip(signature.input_names, given, strict=True))
        files["outputs"] = dict(zip(signature.output_names, lowered.reference(*given), strict=True))
    return [Emitted(f"{folder}/{name}.npz", npz(arrays), "npz", lowered) for name, arrays in files.items()]


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An .npz whose bytes depend on its arrays only (`numpy.savez` writes the time of day)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), entry.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


EXPORTER = OnnxExporter()
