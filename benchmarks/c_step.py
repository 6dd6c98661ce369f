"""One step of an int8 LMUFormer on one core of this machine: generated C beside onnxruntime, and its instructions.

    python benchmarks/c_step.py --run RUN_FOLDER [--model lmuformer] [-o benchmarks/results/c_step.json]

RUN_FOLDER is what `edgetk compress --model lmuformer --recipe int8` wrote; its model.stream.onnx is the graph. onnxruntime
runs that graph and the float32 one of the same model, one thread. Every round times a block of calls of each in turn; reported
are the median over all calls and the 10th and 90th percentile. `read_..._us` is how long this core takes to read as many bytes
as the step's constants once: weights that do not fit its cache have to come in at every step. Instructions are counted by
callgrind, as the difference of runs of 40 and 20 steps (it shows no AVX-512, so that the AVX2 build runs).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from edgetk.core import registry
from edgetk.core.runtime_options import session_options
from edgetk.export import c_run, parity
from edgetk.export.c.plan import plan
from edgetk.export.c.program import Program
from edgetk.export.graph import signature_of
from edgetk.export.lower import lower
from edgetk.export.to_c import sources, stream
from edgetk.targets import board, machine
from edgetk.toolkit import source

HERE = Path(__file__).parent
ROUNDS, CALLS, CLIPS = 20, 100, 32


def timed(calls: dict[str, Callable[[int], Any]]) -> dict[str, dict[str, float]]:
    """Microseconds of one call of each, taken in turn."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            for i in range(CALLS):
                start = time.perf_counter_ns()
                call(i)
                taken[name].append((time.perf_counter_ns() - start) / 1e3)
    return {
        name: {f"{label}_us": round(float(np.quantile(all_, share)), 2) for label, share in
               (("p10", 0.1), ("median", 0.5), ("p90", 0.9))} | {"n": len(all_)}
        for name, all_ in taken.items()
    }  # fmt: skip


def session(content: bytes) -> Any:
    return ort.InferenceSession(content, session_options(), providers=["CPUExecutionProvider"])


def stepper(graph: onnx.ModelProto, frames: np.ndarray) -> Callable[[int], Any]:
    """A call that makes the next step of a stream in onnxruntime."""
    signature, running = signature_of(graph), session(graph.SerializeToString())
    names, state = list(signature.output_names), list(parity.initial_state(signature))

    def call(i: int) -> None:
        given = dict(zip(signature.input_names, [frames[i % len(frames)], *state], strict=True))
        state[:] = running.run(names, given)[len(signature.outputs) :]

    return call


def chosen(library: c_run.Library, isa: str, frames: np.ndarray) -> Callable[[int], Any]:
    """A call that makes the next step of a stream in generated C."""
    library.use(isa)
    running = library.stream()

    def call(i: int) -> None:
        library.use(isa)
        running.step(frames[i % len(frames)])

    return call


def scores(graph: onnx.ModelProto, library: c_run.Library, clips: np.ndarray) -> dict[str, Any]:
    """How far the scores of C are from onnxruntime's over whole clips, and how often the decision is the same."""
    signature, running = signature_of(graph), session(graph.SerializeToString())
    names = list(signature.output_names)
    flush = parity.flush_steps(signature)
    right = parity.stream(
        lambda *x: tuple(running.run(names, dict(zip(signature.input_names, x, strict=True)))), signature, (clips,), flush
    )[0].reshape(len(clips), clips.shape[1] + flush, -1)
    got = stream(library, (clips,), flush)[0]
    same = got[:, -1].argmax(-1) == right[:, -1].argmax(-1)
    return {
        "clips": len(clips),
        "max_abs_difference": float(np.abs(got - right).max()),
        "largest_score": float(np.abs(right).max()),
        "same_decision": int(same.sum()),
    }


def native(library: Path, isa: str, constant_bytes: int) -> dict[str, Any]:
    """Times from C, without Python in between."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "c_time"
        subprocess.run(["cc", "-O3", "-march=native", str(HERE / "c_time.c"), "-o", str(program), "-ldl"], check=True)
        made = subprocess.run(
            [str(program), str(library), isa, "4000", str(constant_bytes)], check=True, capture_output=True, text=True
        )
        found: dict[str, Any] = json.loads(made.stdout)
        return found


def instructions(library: Path) -> int | None:
    """Instructions of one step of the AVX2 build, by callgrind; None where it is not installed."""
    if shutil.which("valgrind") is None:
        return None
    counts = []
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "c_time"
        subprocess.run(["cc", "-O1", str(HERE / "c_time.c"), "-o", str(program), "-ldl"], check=True)
        for steps in (20, 40):
            done = subprocess.run(
                ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(program), str(library), "avx2",
                 str(steps), "0"],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            found = re.search(r"Collected : (\d+)", done.stderr)
            assert found is not None, done.stderr
            counts.append(int(found[1]))
    return (counts[1] - counts[0]) // 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder of edgetk compress --recipe int8")
    parser.add_argument("--model", default="lmuformer")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    integer = onnx.load(next(options.run.rglob("model.stream.onnx")))
    plain = lower(source.open_model(options.model), board.load("host"), ("stream",))[0].graph
    program = Program("net", plan(integer, signature_of(integer)))
    data = registry.load("task", "speech-commands").open(None, None)
    clips = np.ascontiguousarray(data.calibration(CLIPS).numpy().astype(np.float32)[:, :, None, None, :])
    frames = clips.reshape(-1, *clips.shape[2:])[:CALLS]
    with tempfile.TemporaryDirectory() as folder:
        for name, text in sources(program).items():
            (Path(folder) / name).write_text(text)
        path = c_run.build(Path(folder))
        library = c_run.load(path)
        isas = [isa for isa in ("avx512vnni", "avx2", "neon", "portable") if library.has(isa)]
        calls = {"onnxruntime float32": stepper(plain, frames), "onnxruntime int8": stepper(integer, frames)}
        separate = {}
        for isa in isas:  # a library has one build at a time: each is timed through its own copy
            copy = path.with_name(f"lib_{isa}.so")
            shutil.copy(path, copy)
            separate[isa] = c_run.load(copy)
            calls[f"C {isa}, called from Python"] = chosen(separate[isa], isa, frames)
        result = {
            "what": f"one step of {options.model}, int8, one core",
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "conditions": {
                "cpu": machine.cpu_model(),
                "cores": machine.cores(),
                "cache_bytes": machine.cache_bytes(),
                "load_average": machine.load_average(),
                "onnxruntime": ort.__version__,
                "threads": 1,
            },
            "macs": program.macs,
            "constant_bytes": program.constant_bytes,
            "steps": timed(calls),
            "steps_from_c": {isa: native(path, isa, program.constant_bytes) for isa in isas},
            "instructions_avx2": instructions(path),
            "scores": scores(integer, library, clips),
        }  # fmt: skip
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
