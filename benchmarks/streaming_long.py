"""A day of sound through a stream, faster than real time: do states, memory and latency stay where they are?

    python benchmarks/streaming_long.py lmuformer --runtime c --hours 24

The sound is one stream composed of the embedded sample (seed 0, `--minutes` long), heard again and again without a reset. After
the first round every state has seen the same past in each round, so the rows of a round must be those of the second one: the
largest difference is the drift; "change" is the difference from the round just before, in how many outputs anything differs.
A line for each round, and a JSON file with the conditions.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgetk.core import registry
from edgetk.targets import machine
from edgetk.tasks.speech.streams import compose
from edgetk.toolkit import stream
from edgetk.toolkit.stream_listen import Timings
from edgetk.toolkit.stream_study import Plan, frames_of

RESULTS = Path(__file__).parent / "results" / "streaming_long.json"


def run(model: stream.Streamed, frames: np.ndarray, hours: float) -> list[dict[str, Any]]:
    """Rounds over `frames` until `hours` are heard; what each round was like."""
    found: list[dict[str, Any]] = []
    model.steps.reset()
    reference: np.ndarray | None = None
    before: np.ndarray | None = None
    rounds = max(3, round(hours * 3600 / (len(frames) * model.period_s)))
    for number in range(rounds):
        timings, rows = Timings(), np.empty((len(frames), len(model.labels)), dtype=np.float32)
        for i, frame in enumerate(frames):
            start = time.perf_counter()
            rows[i] = model.steps(frame)
            timings.add(time.perf_counter() - start)
        reference = rows if number == 1 else reference
        found.append(
            {
                "hours": (number + 1) * len(frames) * model.period_s / 3600,
                "drift": None if reference is None else float(np.abs(rows - reference).max()),
                "change": None if before is None else float(np.abs(rows - before).max()),
                "rows_changed": None if before is None else int((rows != before).any(axis=1).sum()),
                "largest": float(np.abs(rows).max()),
                "norms": {name: float(np.linalg.norm(np.float64(value))) for name, value in model.steps.state().items()},
                "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                **timings.to_json(),
            }
        )
        row, before = found[-1], rows
        print(
            f"{row['hours']:6.2f} h  drift {row['drift'] if row['drift'] is not None else 'first round'}  "
            f"p50 {1e6 * row['p50_s']:.0f} us  p99 {1e6 * row['p99_s']:.0f} us  "
            f"memory {row['peak_rss_bytes'] / 1e6:.0f} MB  norm {sum(n**2 for n in row['norms'].values()) ** 0.5:.6g}",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="zoo names or .stream.onnx files")
    parser.add_argument("--runtime", default="onnxruntime", choices=stream.RUNTIMES)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--minutes", type=float, default=20.0, help="length of a round")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
    for name in arguments.models:
        model = stream.open_stream(name, arguments.runtime)
        data = registry.load("task", "speech-commands").open(None, model.labels)
        scene = Plan(minutes=arguments.minutes).scene(model.labels)
        frames = frames_of(compose(scene, data.waves("test"), [], "test", 0).samples.astype(np.float32) / 32768.0)
        rounds = run(model, frames, arguments.hours)
        results[f"{Path(name).name} {arguments.runtime}"] = {
            "runtime": model.runtime,
            "hours": rounds[-1]["hours"],
            "round_minutes": arguments.minutes,
            "worst_drift": max(r["drift"] for r in rounds[1:]),
            "worst_change_after_the_second_round": max(r["change"] for r in rounds[2:]),
            "cpu": machine.cpu_model(),
            "load_average": machine.load_average(),
            "python": sys.version.split()[0],
            "rounds": rounds if len(rounds) <= 30 else [rounds[0], rounds[1], *rounds[2 :: max(1, len(rounds) // 24)]],
        }
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
