"""C99 sources: one step of a network, or one whole input, as plain C, proven by running it where a compiler is at hand.

See docs/c.md for what the files are, what they need, and how the numbers relate to onnxruntime's.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetk.core.artifact import Parity
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Emitted, Lowered
from edgetk.core.target import Target
from edgetk.export import parity
from edgetk.export.to_onnx import examples, front_end

if TYPE_CHECKING:
    from edgetk.export.c.program import Program

KERNELS = Path(__file__).parent / "c" / "kernels"

#: streams or whole inputs of the proof
STREAMS = 4


@dataclass(frozen=True)
class CExporter:
    """Files of the format "c", in the folder `c/`."""

    format: str = "c"

    def check(self, bundle: Bundle, target: Target) -> None:
        """Any model can be tried; `plan` says what generated C cannot express."""

    def __call__(
        self, lowered: Sequence[Lowered], bundle: Bundle, target: Target, facts: Mapping[str, Any] | None = None
    ) -> Sequence[Emitted]:
        """The sources of the stream form, or of the clip form of a model that has no other; nothing where it is not asked for.

        Raises PreconditionError (an operator or a shape that C has no form for) or ParityError (it computes something else).
        """
        emitted: list[Emitted] = []
        for low in lowered:
            if low.signature.is_streaming == bundle.signature.is_streaming:
                files = project(low, bundle)
                proof = prove(files, low, bundle)
                notes = () if proof is not None else ("no C compiler and make here: it was not run",)
                emitted += [Emitted(f"c/{name}", text, self.format, low, proof, notes) for name, text in files.items()]
        return emitted


def project(low: Lowered, bundle: Bundle) -> dict[str, bytes]:
    """All files by name: the step `<model>.c` with header and data, kernels, front end, build files and library interface."""
    from edgetk.export.c import front
    from edgetk.export.c.names import identifier
    from edgetk.export.c.plan import plan
    from edgetk.export.c.program import Program

    program = Program(identifier(bundle.name), plan(low.graph, low.signature))
    constants = front_end(bundle)
    texts = {**sources(program, notes(low, bundle)), **(front.files(constants) if front.fits(constants) else {})}
    return {file: text.encode() for file, text in texts.items()}


def sources(program: Program, about: Sequence[str] = ()) -> dict[str, str]:
    """The text of a program by file name: header, step, data, kernels, library interface, build files."""
    from edgetk.export.c import emit, host

    name = program.name
    return {
        f"{name}.h": emit.header(program, about),
        f"{name}.c": emit.source(program),
        f"{name}_data.h": emit.data_header(program),
        f"{name}_data.c": emit.data(program),
        f"{name}_library.c": host.library(program),
        "Makefile": host.makefile(program),
        "CMakeLists.txt": host.cmake(program),
        **{path.name: path.read_text(encoding="utf-8") for path in sorted(KERNELS.glob("edgetk_*.h"))},
    }


def notes(low: Lowered, bundle: Bundle) -> list[str]:
    """What the header says about the model: its states, timing, and classes."""
    signature = low.signature
    timing = f"one step every {signature.period_s} s, answers look ahead {signature.lookahead_s} s"
    said = [f"{low.precision}; {timing if signature.is_streaming else 'a step takes one whole input'}"]
    if flush := parity.flush_steps(signature):
        said.append(f"To finish a clip set valid[0] of the state to 0 and make {flush} steps with zeros as input.")
    if bundle.labels:
        said.append("Classes: " + ", ".join(bundle.labels))
    return said


def prove(files: Mapping[str, bytes], low: Lowered, bundle: Bundle) -> Parity | None:
    """Build the sources here and compare every output of a few streams, or of whole inputs, with the model in memory; None
    without a compiler."""
    from edgetk.export import c_run

    if shutil.which("make") is None or shutil.which("cc") is None or low.reference is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        library = c_run.load(c_run.build(Path(folder)))
        inputs = tuple(x[:STREAMS] for x in examples(bundle, low, STREAMS))
        flush = parity.flush_steps(low.signature)
        count = len(low.signature.outputs)
        if low.signature.is_streaming:
            expected = parity.stream(low.reference, low.signature, inputs, flush)[:count]
            got = stream(library, inputs, flush)
        else:
            expected = parity.clip(low.reference, low.signature, inputs)
            got = stream(library, tuple(x[:, None] for x in inputs))
    return parity.compare(
        low.signature.output_names[:count],
        expected,
        tuple(y.reshape(e.shape) for y, e in zip(got, expected, strict=True)),
        parity.bound(low),
        reference="the model in memory",
        runtime=f"generated C, {library.isa}",
        who=f"{low.form} form in C ({low.precision})",
    )


def stream(library: Any, inputs: Sequence[np.ndarray], flush: int = 0) -> tuple[np.ndarray, ...]:
    """Outputs (n, steps + flush, size) of whole streams (n, steps, …) in generated C, each from the initial state on."""
    streams = []
    for i in range(len(inputs[0])):
        running = library.stream()
        steps = [running.step(*(x[i, t] for x in inputs)) for t in range(inputs[0].shape[1])]
        if flush:
            running.states[parity.VALID.removeprefix("state_")][0] = 0
            steps += [running.step(*(np.zeros_like(x[i, 0]) for x in inputs)) for _ in range(flush)]
        streams.append(tuple(np.stack(y) for y in zip(*steps, strict=True)))
    return tuple(np.stack(y) for y in zip(*streams, strict=True))


EXPORTER = CExporter()
