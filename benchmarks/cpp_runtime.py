"""The generated C++ project on one core: instructions of a hop by callgrind, and times of edgetk_listen, models in turn.

    python benchmarks/cpp_runtime.py [MODEL ...] [-o benchmarks/results/cpp_runtime.json]

MODEL is what `edgetk export` takes; name=FILE.onnx gives an exported file a name. Counts are differences of two runs of one
program on inputs of different length, so that start-up is in none of them:

hop           edgetk_listen on 1 s and 2 s of speech: front end, step and detector of one hop
front_end     edgetk_check log_mel on 50 and 98 frames: log-mel of one hop, and its comparison; once for all models
rest          hop without front_end: the step of the model, and the detector (16 classes, window 50)

callgrind counts what it emulates: AVX2, not AVX-512 or VNNI, so that steps take fewer instructions on processors with
those. Times: `edgetk_listen` hears 20 s of speech and prints its own percentiles; models take turns, medians over the rounds
with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort

from edgetk.export import cpp_project
from edgetk.export.lower import lower
from edgetk.targets import board, machine
from edgetk.tasks.speech_commands import TASK
from edgetk.toolkit.recipe import Recipe
from edgetk.toolkit.runner import open_with_data

MODELS = ("lmuformer", "lmuformer-compact", "lmuformer-s", "lmuformer-xs", "lmuformer-spiking-s")
FRAMES, SECONDS, HOPS = (50, 98), (1, 2), 100
HEARD_S = 20


def export(model: str, folder: Path) -> tuple[str, int]:
    """The project of one model in `folder`; precision and bytes of its graph."""
    host = board.load("host")
    bundle = open_with_data(Recipe("benchmark", model=model))
    (low,) = lower(bundle, host, ("stream",))
    files = cpp_project.project(low, bundle, host, model, {})
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return low.precision, len(files["model/model.stream.onnx"])


def build(project: Path, folder: Path) -> Path:
    """Its programs, optimised, on the library of this Python's package."""
    python = f"-DPython3_EXECUTABLE={sys.executable}"
    for command in (["cmake", "-S", project, "-B", folder, python, "-DEDGETK_ORT_CONFIG=OFF"], ["cmake", "--build", folder]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def instructions(*command: object) -> int:
    """What callgrind counts for a whole program."""
    tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *map(str, command)]
    done = subprocess.run(tool, capture_output=True, text=True, check=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def front_end(programs: Path, project: Path, scratch: Path) -> float:
    """Instructions of one log-mel frame."""
    path, given = project / "model" / "model.stream.onnx", project / "testdata"
    scratch.mkdir()
    (scratch / "bounds.json").write_bytes((given / "bounds.json").read_bytes())
    frames, samples = np.load(given / "frames.npy"), read_wav(given / "clip.wav")
    found = []
    for n in FRAMES:
        (scratch / "frames.npy").write_bytes(cpp_project.npy(frames[:n]))
        (scratch / "clip.wav").write_bytes(cpp_project.wav(samples[: 400 + 160 * (n - 1)]))
        found.append(instructions(programs / "edgetk_check", "log_mel", path, scratch))
    return (found[1] - found[0]) / (FRAMES[1] - FRAMES[0])


def hop(programs: Path, project: Path, sounds: Mapping[int, Path]) -> float:
    """Instructions of one hop of edgetk_listen."""
    path = project / "model" / "model.stream.onnx"
    found = [instructions(programs / "edgetk_listen", "--model", path, sounds[seconds]) for seconds in SECONDS]
    return (found[1] - found[0]) / ((SECONDS[1] - SECONDS[0]) * HOPS)


def read_wav(path: Path) -> np.ndarray:
    import soundfile

    samples: np.ndarray = soundfile.read(path, dtype="int16")[0]
    return samples


def speech(seconds: int) -> bytes:
    """Real clips of the embedded sample, one after another."""
    waves = TASK.open(None).waves("validation")
    return cpp_project.wav(np.concatenate([waves.samples[i].numpy() for i in range(seconds)]))


def listen(programs: Path, project: Path, sound: Path) -> dict[str, Any]:
    """The summary that edgetk_listen prints."""
    command = [programs / "edgetk_listen", "--model", project / "model" / "model.stream.onnx", sound]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stderr)
    return found


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "lowest": min(values), "highest": max(values), "n": len(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/cpp_runtime.json"))
    args = parser.parse_args()
    named = {text.partition("=")[0]: text.partition("=")[2] or text for text in args.models}
    before = machine.load_average()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        sounds = {}
        for seconds in (*SECONDS, HEARD_S):
            sounds[seconds] = root / f"{seconds}.wav"
            sounds[seconds].write_bytes(speech(seconds))
        rows: dict[str, dict[str, Any]] = {}
        programs, mel = None, 0.0
        for name, model in named.items():
            precision, size = export(model, root / name)
            if programs is None:
                programs = build(root / name, root / "build")
                mel = front_end(programs, root / name, root / "scratch")
            whole = hop(programs, root / name, sounds)
            found = {"hop": whole, "front_end": mel, "rest": whole - mel}
            rows[name] = {"precision": precision, "size_bytes": size, "instructions": found}
            print(f"{name:24}", *(f"{part} {value:12,.0f}" for part, value in found.items()), flush=True)
        assert programs is not None
        heard: dict[str, list[dict[str, Any]]] = {name: [] for name in named}
        for _ in range(args.rounds):
            for name in named:
                heard[name].append(listen(programs, root / name, sounds[HEARD_S]))
    for name, summaries in heard.items():
        times = {f"hop_{key}_us": spread([s["hop_us"][key] for s in summaries]) for key in ("p50", "p99", "mean")}
        rows[name] |= times | {"real_time_factor": spread([s["real_time_factor"] for s in summaries])}
        print(f"{name:24} p50 {times['hop_p50_us']['median']:8.1f} us, p99 {times['hop_p99_us']['median']:8.1f} us", flush=True)
    report = {
        "what": __doc__,
        "conditions": {
            "cpu": machine.cpu_model(),
            "cores": machine.cores(),
            "bound_to": sorted(os.sched_getaffinity(0)),
            "threads": 1,
            "load_average_before": before,
            "load_average_after": machine.load_average(),
            "sound": f"{HEARD_S} s of the embedded sample's validation clips, {HEARD_S * HOPS} hops a round",
            "valgrind": subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout.strip(),
            "compiler": subprocess.run(["c++", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0],
            "build": "Release",
            "onnxruntime": ort.__version__,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        "models": rows,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
