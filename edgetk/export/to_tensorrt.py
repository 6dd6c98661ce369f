"""TensorRT files: graphs that the board's TensorRT reads, engines that can be built here, a script that builds them there.

In `tensorrt/`: `model.onnx` and `model.stream.onnx` (batch 1), the same in float16 where they were float32, `build_engine.sh`.
See docs/tensorrt.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Emitted, Lowered
from edgetk.core.errors import ParityError, PreconditionError
from edgetk.core.target import Target
from edgetk.export import metadata, parity, tensorrt_build, tensorrt_graph, tensorrt_script
from edgetk.export.sparse_weights import has_two_of_four
from edgetk.export.tensorrt_half import half
from edgetk.export.tensorrt_versions import Version, version_of
from edgetk.export.to_onnx import FILES, PROOFS, checked, examples, front_end

FOLDER, SCRIPT, CACHE = "tensorrt/", "build_engine.sh", "timing.cache"


@dataclass(frozen=True)
class TensorRTExporter:
    """Files of the format "tensorrt", for boards whose stack is a TensorRT."""

    format: str = "tensorrt"

    def check(self, bundle: Bundle, target: Target) -> None:
        """The stack must name its TensorRT, and the model may have no symbolic dimension but its batch."""
        version_of(target.stack)
        for signature in [form.signature for form in bundle.forms()] if bundle.is_torch else [bundle.signature]:
            tensorrt_graph.batch_of_one(signature, bundle.name)

    def __call__(
        self, lowered: Sequence[Lowered], bundle: Bundle, target: Target, facts: Mapping[str, Any] | None = None
    ) -> Sequence[Emitted]:
        """The graphs, proven; then engines, or why there are none; then the script.

        Raises PreconditionError (the parser would refuse a graph) or ParityError (a graph computes something else).
        """
        files: list[Emitted] = []
        for low in lowered:
            files += _graphs(low, bundle, target, facts or {})
        engines, reasons = _engines(files)
        return [*files, *engines, _script(files, version_of(target.stack), reasons)]


def _graphs(low: Lowered, bundle: Bundle, target: Target, facts: Mapping[str, Any]) -> list[Emitted]:
    """The file of one form, and its float16 twin where that is a float32 graph that allows it."""
    fitted = tensorrt_graph.fit(low, target.stack, bundle.name)
    name = FOLDER + FILES[low.form]
    if low.precision != "float32":
        return [_file(name, fitted, bundle, target, facts)]
    if low.exact:
        return [_file(name, fitted, bundle, target, facts, "no float16 file: the sums of this model are exact in float32 only")]
    try:
        narrow = replace(fitted, graph=half(fitted.graph, bundle.name), precision="float16")
        twin = _file(name.replace(".onnx", ".float16.onnx"), narrow, bundle, target, facts)
    except (PreconditionError, ParityError) as error:
        return [_file(name, fitted, bundle, target, facts, f"no float16 file: {error}")]
    return [_file(name, fitted, bundle, target, facts), twin]


def _file(name: str, low: Lowered, bundle: Bundle, target: Target, facts: Mapping[str, Any], *notes: str) -> Emitted:
    model = metadata.write(low.graph, metadata.describe(low, bundle, target, front_end(bundle), facts))
    content = checked(model, low)
    proof = parity.prove(low, content, examples(bundle, low, PROOFS)) if low.reference is not None else None
    return Emitted(name, content, "onnx", low, proof, notes)


def _engines(files: Sequence[Emitted]) -> tuple[list[Emitted], list[str]]:
    """Engines with their labels and the timing cache, and the exact reasons for those that are not there."""
    library = tensorrt_build.find()
    if isinstance(library, str):
        return [], [f"no engine: {library}"]
    made: list[Emitted] = []
    reasons: list[str] = []
    cache = b""
    for file in files:
        low = file.lowered
        built = tensorrt_build.build(file.content, low.precision, library, low.exact, cache, has_two_of_four(low.graph))
        if isinstance(built, str):
            reasons.append(f"no engine of {file.name.removeprefix(FOLDER)}: {built}")
            continue
        cache = built.cache
        name = file.name.replace(".onnx", ".engine")
        label = built.label(file.name.removeprefix(FOLDER), file.content, file.lowered.precision)
        note = f"an engine for {built.runs_on}: not portable, and not for the board unless that is its GPU and version"
        made.append(Emitted(name, built.content, "tensorrt", file.lowered, notes=(note,), built_for=built.runs_on))
        made.append(Emitted(f"{name}.json", label, "json", file.lowered, built_for=built.runs_on))
    if cache:
        made.append(Emitted(FOLDER + CACHE, cache, "cache", files[0].lowered, built_for=f"builds with {library}"))
    return made, reasons


def _graph(file: Emitted) -> tensorrt_script.Graph:
    low, name = file.lowered, file.name.removeprefix(FOLDER)
    return tensorrt_script.Graph(name, file.content, low.precision, low.exact, has_two_of_four(low.graph))


def _script(files: Sequence[Emitted], version: Version, reasons: Sequence[str]) -> Emitted:
    graphs = [_graph(file) for file in files]
    text = tensorrt_script.script(graphs, version)
    notes = (*reasons, f"builds engines of {len(graphs)} graphs on the board, with the trtexec of TensorRT {version}")
    return Emitted(FOLDER + SCRIPT, text.encode(), "sh", files[0].lowered, notes=notes)


EXPORTER = TensorRTExporter()
