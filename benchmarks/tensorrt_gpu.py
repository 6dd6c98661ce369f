"""Engines of zoo models on an NVIDIA GPU with TensorRT 8.5: outputs beside onnxruntime's, latency, energy of one inference.

    python benchmarks/tensorrt_gpu.py prepare CASES          graphs, inputs and the agent, where edgetk is installed
    python benchmarks/tensorrt_gpu.py run CASES -o OUT.json  on the GPU machine: numpy and onnxruntime only

`--python` is the Python that can import tensorrt, where that is another one. Every case is recorded, with its figures or with
the reason why it has none; the file is written again after each. Engines are built first, `--parallel` at a time, since the
processor compiles kernels for most of that; then they are measured one by one with nothing beside them. Latency, transfers and
CUDA graphs are those of the on-device agent; energy is the difference of NVML's energy counter between two looks at it, less
idle power times the time between.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

AGENT, TABLE = "agent.pyz", "cases.json"
#: Seconds: of latency samples, of their warm-up, of an energy window, of idleness; at most for measuring, for building.
BUDGET_S, WARMUP_S, WINDOW_S, IDLE_S, CASE_S, BUILD_S = 0.8, 0.3, 3.0, 3.0, 30.0, 240.0
#: Seconds between two looks at the energy counter: a look may take tens of milliseconds, in which the GPU does nothing.
LOOK_S = 0.4
CLIPS = 8
#: Libraries that the builder may use: a case is built in both ways at once, and the first engine is taken.
SOURCES = {"cublas": ["CUBLAS", "CUBLAS_LT", "EDGE_MASK_CONVOLUTIONS"], "own": ["EDGE_MASK_CONVOLUTIONS"]}


# --- prepare: where edgetk is -----------------------------------------------------------------------------------------------


def prepare(folder: Path, models: list[str]) -> None:
    """Write the graphs of `models` as TensorRT 8.5 reads them, real inputs in the agent's layout, and the table of cases."""
    from edgetk.targets.meters._pack import agent

    folder.mkdir(parents=True, exist_ok=True)
    (folder / AGENT).write_bytes(agent())
    cases: list[dict[str, Any]] = []
    for model in models:
        for case in _graphs(model, folder):
            cases.append(case)
            (folder / TABLE).write_text(json.dumps(cases, indent=1) + "\n")
            print(case["name"], flush=True)


def _graphs(model: str, folder: Path) -> list[dict[str, Any]]:
    """The cases of one model: each form in float32, in float16 from the same graph, and in int8."""
    from dataclasses import replace

    from edgetk.core import registry
    from edgetk.core.target import Stack
    from edgetk.export import tensorrt_graph
    from edgetk.export.lower import lower
    from edgetk.quant.quantize import Quantize
    from edgetk.targets import board
    from edgetk.toolkit import source

    stack = Stack("TensorRT 8.5", "tensorrt", opset=16, ir_version=8, activation="int8", layer_norm=False)
    target = replace(board.load("jetson"), stack=stack)
    bundle = source.open_model(model)
    data = registry.load("task", bundle.task).open(None, bundle.labels)
    bundle = replace(bundle, data=data, target=target)
    versions = [("float32", bundle)]
    if not getattr(bundle.module, "exact_sums", False):
        import copy

        quantize = Quantize(examples=64, calibration=32, stream_inputs=2)
        quantize.check(bundle)
        made = quantize(bundle.with_body(copy.deepcopy(bundle.body)))
        versions.append(("int8", bundle.with_body(made.body)))
    cases = []
    for precision, version in versions:
        for low in lower(version, target):
            if low.precision != precision:
                continue
            fitted = tensorrt_graph.fit(low, stack, model)
            name = f"{model}.{low.form}.{precision}"
            (folder / f"{name}.onnx").write_bytes(fitted.graph.SerializeToString())
            sets = _inputs(version, fitted, folder / f"{name}.in")
            for kind in ("float32", "float16") if precision == "float32" and not low.exact else (precision,):
                cases.append(_case(f"{model} {low.form} {kind}", name, kind, fitted, sets))
    return cases


def _inputs(bundle: Any, low: Any, path: Path) -> int:
    """Real inputs, set after set, then the first states; how many sets."""
    import numpy as np

    from edgetk.export import parity

    clips = bundle.data.calibration(CLIPS).numpy().astype(np.float32)
    spec = low.signature.inputs[0]
    if low.form == "stream":
        assert bundle.clip is not None
        sets = list(parity.steps_of(clips[:1], bundle.clip.inputs[0], spec)[0])
    else:
        sets = [clip.reshape(spec.concrete()) for clip in clips]
    pieces = [*sets, *parity.initial_state(low.signature)]
    path.write_bytes(b"".join(np.ascontiguousarray(piece).tobytes() for piece in pieces))
    return len(sets)


def _case(name: str, stem: str, precision: str, low: Any, sets: int) -> dict[str, Any]:
    def spec(tensor: Any) -> dict[str, Any]:
        shape = tensor.concrete()
        size = 1
        for dimension in shape:
            size *= dimension
        return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(shape), "size": size}

    signature = low.signature
    return {
        "name": name,
        "file": f"{stem}.onnx",
        "data": f"{stem}.in",
        "precision": precision,
        "sets": sets,
        "inputs": [spec(tensor) for tensor in signature.inputs],
        "state": [{**spec(state.spec), "output": state.output} for state in signature.state],
        "outputs": [spec(tensor) for tensor in signature.outputs],
        "period_s": signature.period_s,
    }


# --- run: on the GPU machine ------------------------------------------------------------------------------------------------


def run(folder: Path, out: Path, python: str, seconds: float, only: str, parallel: int) -> None:
    """Build every case, then measure what was built; a worker process that dies costs its case only."""
    begin = time.monotonic()
    cases = [case for case in json.loads((folder / TABLE).read_text()) if only in case["name"]]
    report: dict[str, Any] = {"conditions": {**_conditions(), "engines_built_at_a_time": parallel}, "cases": []}
    measuring = len(cases) * (BUDGET_S + WARMUP_S + WINDOW_S + 4 * BUDGET_S)
    _build_all(folder, python, cases, report, parallel, begin + max(0.0, seconds - measuring))
    worker = _Worker(python, folder)
    expected: dict[str, Any] = {}
    for case, row in zip(cases, report["cases"], strict=True):
        if "engine_file" not in row:
            continue
        left = seconds - (time.monotonic() - begin)
        if left < 8:
            row["reason"] = f"built, but no time was left to measure it: {left:.0f} s"
            continue
        answer = worker.ask({**case, "file": row["engine_file"]}, min(CASE_S, left))
        if "error" in answer:
            row["reason"] = answer["error"]
        else:
            row.update(answer)
            try:
                row["beside_onnxruntime"] = _compare(folder, case, expected)
            except Exception as error:  # whatever it is, the latency stands, and the reason is recorded
                row["beside_onnxruntime"] = {"reason": f"{type(error).__name__}: {error}"}
        _write(out, report, begin)
    worker.close()
    report["gpu"] = worker.facts
    _write(out, report, begin)


def _build_all(
    folder: Path, python: str, cases: list[dict[str, Any]], report: dict[str, Any], parallel: int, end: float
) -> None:
    """An engine file for every case that can be built before `end`, or the reasons why there is none, as rows of `report`."""
    rows: list[dict[str, Any]] = [{"case": case["name"], "precision": case["precision"], "attempts": []} for case in cases]
    report["cases"] = rows

    def build(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
        case, row = pair
        workers = {sources: _Worker(python, folder) for sources in SOURCES}
        left = min(BUILD_S, end - time.monotonic())

        def ask(sources: str) -> tuple[str, dict[str, Any]]:
            file = f"{case['file'][:-5]}.{case['precision']}.{sources}.engine"
            task = {**case, "tactic_sources": SOURCES[sources], "build_only": True, "engine_file": file}
            return sources, workers[sources].ask(task, left)

        with ThreadPoolExecutor(len(workers)) as both:
            for future in as_completed([both.submit(ask, sources) for sources in SOURCES]):
                sources, answer = future.result()
                if "engine_file" in row:
                    continue  # it was ended because the other way was faster
                row["attempts"].append(
                    {"tactic_sources": sources, **({"reason": answer["error"]} if "error" in answer else {})}
                )
                if "error" in answer:
                    row["reason"] = answer["error"]
                    continue
                row.update(answer)
                row.pop("reason", None)
                for other in workers.values():
                    other.end()
        for worker in workers.values():  # one that only reported an error still runs
            worker.end()

    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(build, zip(cases, rows, strict=True)))


def _write(out: Path, report: dict[str, Any], begin: float) -> None:
    report["seconds"] = round(time.monotonic() - begin, 1)
    part = out.with_suffix(".part")
    part.write_text(json.dumps(report, indent=1) + "\n")
    part.replace(out)


def _conditions() -> dict[str, Any]:
    import platform

    conditions: dict[str, Any] = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "batch": 1,
        "tf32": "allowed in float32 engines, as TensorRT has it by default",
        "latency": f"{BUDGET_S} s of single inferences after {WARMUP_S} s of warm-up, waited for one by one",
        "energy": f"NVML's counter over at least {WINDOW_S} s, a look every {LOOK_S} s, less idle power with an engine loaded",
    }
    try:
        import onnxruntime

        conditions["onnxruntime"] = onnxruntime.__version__
    except ImportError as error:
        conditions["onnxruntime"] = str(error)
    return conditions


def _compare(folder: Path, case: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Outputs of the engine beside those of onnxruntime on the same inputs: of each clip, or after each step of a stream."""
    import numpy as np

    if case["file"] not in known:
        known[case["file"]] = _reference(folder, case)
    wanted = known[case["file"]]
    got = np.frombuffer((folder / "worker.out").read_bytes(), np.float32).reshape(wanted.shape).astype(np.float64)
    same = wanted.argmax(-1) == got.argmax(-1)
    return {
        "n": len(wanted),
        "max_abs": float(np.abs(got - wanted).max()),
        "scale": float(np.abs(wanted).max()),
        "same_argmax": int(same.sum()),
        "finite": bool(np.isfinite(got).all()),
    }


def _reference(folder: Path, case: dict[str, Any]) -> Any:
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(folder / case["file"]), options, providers=["CPUExecutionProvider"])
    data = np.frombuffer((folder / case["data"]).read_bytes(), np.float32)
    sizes = [spec["size"] for spec in case["inputs"]]
    place = case["sets"] * sum(sizes)
    state = []
    for spec in case["state"]:
        state.append(data[place : place + spec["size"]].reshape(spec["shape"]))
        place += spec["size"]
    names = [spec["name"] for spec in (*case["inputs"], *case["state"])]
    found = []
    for i in range(case["sets"]):
        offset, feeds = i * sum(sizes), []
        for spec in case["inputs"]:
            feeds.append(data[offset : offset + spec["size"]].reshape(spec["shape"]))
            offset += spec["size"]
        outputs = session.run(None, dict(zip(names, [*feeds, *state], strict=True)))
        state = outputs[len(case["outputs"]) :]
        found.append(np.concatenate([y.reshape(-1) for y in outputs[: len(case["outputs"])]]))
    return np.stack(found).astype(np.float64)


class _Worker:
    """A process with TensorRT that answers one line of JSON with another; started again where it ended."""

    def __init__(self, python: str, folder: Path) -> None:
        self.command = [python, os.path.abspath(__file__), "worker", str(folder)]
        self.process: subprocess.Popen[bytes] | None = None
        self.facts: dict[str, Any] = {}

    def ask(self, case: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """Its answer, or {"error": why there is none}."""
        end = time.monotonic() + limit_s
        if self.process is None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            first = self._read(end)
            if "error" in first:
                return first
            self.facts.update(first)
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(case).encode() + b"\n")
            self.process.stdin.flush()
        except OSError as error:
            return {"error": f"the worker went away: {error}"}
        return self._read(end)

    def _read(self, end: float) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
        line = self.process.stdout.readline() if ready else b""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        if not ready:
            self.process.kill()
        status = self.process.wait()
        self.process = None
        why = "the worker ended by itself" if ready else "the worker took too long and was ended"
        return {"error": f"{why}, status {status}"}

    def end(self) -> None:
        """End it at once, whatever it is doing."""
        if self.process is not None:
            self.process.kill()

    def close(self) -> None:
        """Let it end."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()


# --- worker: Python 3.8 or newer with tensorrt, nothing else ----------------------------------------------------------------


def worker(folder: Path) -> None:
    """Answer cases from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    sys.path.insert(0, str(folder / AGENT))

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        from edgetk.targets import power_nvml
        from edgetk.targets.meters.agent import trt

        begin = time.perf_counter()
        version = trt.library().__version__
        loaded = round(time.perf_counter() - begin, 1)
        try:
            gpu: Any = power_nvml.Gpu()
            state = gpu.state()
        except OSError as error:
            gpu, state = str(error), {}
        say({"tensorrt": version, "python_of_tensorrt": sys.version.split()[0], "loaded_in_s": loaded, "nvml": state})
    except Exception as error:
        say({"error": f"{type(error).__name__}: {error}"})
        return
    for line in sys.stdin:
        case = json.loads(line)
        try:
            say(_built(folder, case) if case.get("build_only") else _measure(folder, case, gpu))
        except Exception as error:  # a runtime's errors share no base class: the text is what is wanted
            say({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"})


def _task(case: dict[str, Any]) -> dict[str, Any]:
    task = {"tactic_sources": [], **case, "rounds": 1}
    return {**task, "precision": "fp16" if case["precision"] == "float16" else "fp32"}


def _built(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Write the case's engine file; its name, and the seconds that building took."""
    from edgetk.targets.meters.agent import trt

    plan, seconds = trt.engine((folder / case["file"]).read_bytes(), _task(case))
    (folder / case["engine_file"]).write_bytes(plan)
    return {"engine_file": case["engine_file"], "build_seconds": seconds}


def _measure(folder: Path, case: dict[str, Any], gpu: Any) -> dict[str, Any]:
    from edgetk.targets.meters.agent import timing, trt

    content, data = (folder / case["file"]).read_bytes(), (folder / case["data"]).read_bytes()
    model = trt.Model(content, _task(case), data)
    (folder / "worker.out").write_bytes(model.outputs())
    result: dict[str, Any] = {"engine": model.facts}
    timing.run_for(model.step, WARMUP_S, at_least=5)
    samples = sorted(timing.run_for(model.step, BUDGET_S, at_least=20))
    result["latency"] = {"median_s": _share(samples, 0.5), "p95_s": _share(samples, 0.95), "n": len(samples)}
    result["variants"] = model.variants(BUDGET_S / 2, WARMUP_S / 2)
    if isinstance(gpu, str):
        result["energy"] = {"reason": gpu}
    else:
        result["state"] = gpu.state()
        result["energy"] = _energy(model.step, gpu)
        result["state_after"] = gpu.state()
    model.close()
    return result


#: Idle power, once a worker: with an engine loaded, right before its first energy window.
_IDLE_W: list[float] = []


def _energy(step: Any, gpu: Any) -> dict[str, Any]:
    """Joules of one inference above idle, or the reason why not."""
    try:
        if not _IDLE_W:
            idle_j, idle_s, _ = _between_updates(lambda: time.sleep(0.002), gpu, IDLE_S)
            _IDLE_W.append(idle_j / idle_s)
        joules, seconds, runs = _between_updates(step, gpu, WINDOW_S)
    except (OSError, TimeoutError) as error:
        return {"reason": str(error)}
    idle_w = _IDLE_W[0]
    return {
        "joules_per_inference": (joules - idle_w * seconds) / runs,
        "joules_per_inference_with_idle": joules / runs,
        "idle_w": idle_w,
        "watts": joules / seconds,
        "seconds": seconds,
        "runs": runs,
    }


def _between_updates(work: Any, gpu: Any, at_least_s: float) -> tuple[float, float, int]:
    """Joules, seconds and calls of `work` between two looks at the energy counter, each of which saw a new value."""
    started, runs, seen = None, 0, gpu.joules()
    limit = time.perf_counter() + 3 * at_least_s
    look = 0.0
    while True:
        work()
        runs += 1
        now = time.perf_counter()
        if now < look:
            continue
        look = now + LOOK_S
        value = gpu.joules()
        if value != seen:
            if started is None:
                started, first, runs = now, value, 0
            elif now - started >= at_least_s:
                return value - first, now - started, runs
            seen = value
        if now > limit:
            raise TimeoutError(f"the energy counter gave no two updates {at_least_s} s apart")


def _share(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("prepare", "run", "worker"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("tensorrt_gpu.json"))
    parser.add_argument("--models", nargs="+", default=["lmuformer", "ecoformer-kws", "ds-cnn"])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--seconds", type=float, default=180.0, help="no new case is begun with less than 8 s of these left")
    parser.add_argument("--parallel", type=int, default=8, help="engines that are built at a time")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    options = parser.parse_args()
    if options.what == "prepare":
        prepare(options.folder, options.models)
    elif options.what == "run":
        run(options.folder, options.output, options.python, options.seconds, options.only, options.parallel)
    else:
        worker(options.folder)


if __name__ == "__main__":
    main()
