"""Calibrates this machine and validates it on the zoo: micro-benchmarks and exported models timed in turn, one thread.

    python benchmarks/host_calibration.py [--data FOLDER] [--models NAMES] [-o benchmarks/results/host_calibration.json]
                                          [--calibration edgetk/targets/calibrations/FILE.json]

The costs of ONNX Runtime's kernels are fitted to the micro-benchmarks alone; no model of the zoo is in the fit. Then each form
of each model, in float32 and quantized to int8, is predicted and compared. Times are processor time: of each round the fastest
run with nobody else on the core, and of these the median. --data is a folder with the tasks' data (speech_commands, cifar10,
imdb), for scales of int8 models; without it those come from the embedded samples, and models whose task has none stay float32.
The calibration is written with the error that was found here, for `edgetk.targets.calibrations`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from edgetk.core import registry
from edgetk.core.bundle import Bundle
from edgetk.core.errors import EdgetkError
from edgetk.export.lower import lower
from edgetk.targets import board, calibrations, fit_device, machine, suite
from edgetk.toolkit import calibrate, source

#: folders of the tasks' data below --data
FOLDERS = {"speech-commands": "speech_commands", "cifar10": "cifar10", "imdb-bytes": "imdb", "imdb-bytes-lm": "imdb"}
BOUND = 0.10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", nargs="+", default=list(source.zoo()), help="zoo names that are predicted; default: all")
    parser.add_argument("--rounds", type=int, default=fit_device.ROUNDS)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/host_calibration.json"))
    parser.add_argument("--calibration", type=Path)
    chosen = parser.parse_args()
    cases = {case.name: (case.model, case.signature) for case in suite.cases()}
    zoo = dict(graphs(chosen.data, chosen.models))
    with calibrate.runners({**cases, **zoo}) as steps:
        timings = {t.name: t for t in fit_device.interleave(steps, chosen.rounds)}
    target = calibrate.with_caches(board.load("host"))
    found = calibrate.fitted([timings[name] for name in cases], calibrate.works(cases), target, chosen.rounds)
    target = calibrations.applied(target, found)
    rows = []
    for name, work in calibrate.works(zoo).items():
        predicted = fit_device.predicted(work, target, found["kernels"])
        seen = timings[name]
        rows.append(
            {
                "artifact": name,
                "predicted_s": predicted,
                "measured_s": seen.seconds,
                "spread": seen.spread,
                "error": predicted / seen.seconds - 1,
            }
        )
        both = f"{1e6 * predicted:10.1f} µs predicted {1e6 * seen.seconds:10.1f} µs measured"
        print(f"{name:<40} {both} {100 * rows[-1]['error']:+6.1f} %")
    errors = np.abs([row["error"] for row in rows])
    within = float(np.mean(errors <= BOUND))
    load = f"at a load average of {found['load_average']}"
    where = (
        f"{len(rows)} graphs of the zoo that are not in the fit, on {found['device']}, {load}: {100 * within:.0f} % within 10 %"
    )
    print(f"median error {100 * np.median(errors):.1f} %, {where}")
    found["errors"] = {"latency": {"n": len(rows), "median_error": float(np.median(errors)), "where": where}}
    conditions = {
        "cpu": found["device"],
        "runtime": found["runtime"],
        "threads": 1,
        "rounds": chosen.rounds,
        "load_average": machine.load_average(),
        "suite_spread": found["spread"],
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    result = {
        "conditions": conditions,
        "share_within": within,
        "bound": BOUND,
        "suite_errors": found["suite_errors"],
        "rows": rows,
    }
    write(chosen.output, result)
    if chosen.calibration:
        write(chosen.calibration, found)


def graphs(data: Path | None, models: list[str]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Every form of some zoo models as a graph for this machine, in float32 and, where there is data, in int8."""
    host = board.load("host")
    for name in models:
        bundle = replace(source.open_model(name), target=host)
        small = None
        try:
            small = quantized(bundle, data)
        except EdgetkError as error:
            print(f"{name}: no int8 form: {error}")
        for precision, made in (("float32", bundle), ("int8", small)):
            try:
                lowered = lower(made, host) if made is not None else ()
            except EdgetkError as error:
                print(f"{name}: no {precision} graph: {error}")
                continue
            for low in lowered:
                yield f"{name}.{low.form}.{precision}", (low.graph, low.signature)


def quantized(bundle: Bundle, data: Path | None) -> Bundle:
    """The bundle with every layer that can be in int8, whatever that costs in accuracy: only the time matters here."""
    folder = data / FOLDERS[bundle.task] if data and bundle.task in FOLDERS else None
    fresh = source.open_model(bundle.name)
    made = replace(fresh, target=bundle.target, data=registry.load("task", bundle.task).open(folder))
    settings = {"examples": 16, "calibration": 16, "stream_inputs": 1, "max_change": 1.0, "max_drop": 1.0}
    for step in (registry.load("pass", "fold")(), registry.load("pass", "quantize")(**settings)):
        step.check(made)
        result = step(made)
        if result.modified:
            made = replace(made, body=result.body, signature=result.signature or made.signature, clip=result.clip or made.clip)
    return made


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
