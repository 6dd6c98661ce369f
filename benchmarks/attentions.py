"""EcoFormer beside the attentions it replaces, and the spiking LMUFormer beside the plain one: work, energy, latency, accuracy.

    make native
    taskset -c 1 python benchmarks/attentions.py [--seconds 20] [-o benchmarks/results/attentions.json]

Every network is exported for this machine as float32 and run by ONNX Runtime with one thread, one call after the other in
turn, so that all see the same disturbances; median and 95th percentile of the calls. EcoFormer runs twice: stock, where its
operator is a body of standard operators, and with the native kernel. Latency, work and energy do not depend on weights, so
untrained networks stand for the ones that do not ship. `muls`, `adds`, `joules` are EcoFormer's own count of the whole network
(45 nm, float32; "with_distances" adds multiplications that it leaves out); `op_energy` prices the exported graph, memory
included. Accuracies are those of the training runs in `results/attentions_training.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edgetk.core.contracts import Lowered
from edgetk.core.runtime_options import session_options
from edgetk.export import operators
from edgetk.export.lower import lower
from edgetk.export.parity import initial_state
from edgetk.models.layers.operations import count_operations
from edgetk.targets import board, machine
from edgetk.targets.op_energy import op_energy
from edgetk.toolkit import activity, cost
from edgetk.toolkit.source import open_model

RESULTS = Path(__file__).parent / "results"
HASHED = ("ecoformer-kws", "ecoformer-cifar")
NAMES = (*(f"{name}{kind}" for name in HASHED for kind in ("-sra", "-msa", "")), "lmuformer", "lmuformer-s")
SPIKING = ("lmuformer-spiking", "lmuformer-spiking-s")


class Contender:
    """A session with its inputs; a stream is fed its first state in every call."""

    def __init__(self, low: Lowered, library: Path | None = None) -> None:
        options = session_options()
        if library is not None:
            operators.register(options, library)
        self.session = ort.InferenceSession(low.graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        random = np.random.default_rng(0)
        self.feeds = {t.name: random.standard_normal(t.concrete(), np.float32) for t in low.signature.inputs}
        self.feeds |= {s.name: x for s, x in zip(low.signature.state, initial_state(low.signature), strict=True)}
        self.samples: list[float] = []

    def call(self) -> float:
        start = time.perf_counter()
        self.session.run(None, self.feeds)
        return time.perf_counter() - start


def work(low: Lowered, fired: Any) -> dict[str, Any]:
    """What was counted in an exported graph."""
    counted = cost.count(low, fired)
    energy = op_energy(counted)
    keys = ("joules", "joules_dense_reads", "arithmetic_joules", "memory_joules", "accumulates", "multiply_accumulates")
    return {"parameters": counted.parameters, "macs": counted.macs, "op_energy": {key: getattr(energy, key) for key in keys}}


def own_count(name: str) -> dict[str, Any]:
    """EcoFormer's count of the whole network."""
    import torch

    bundle = open_model(name)
    counted = count_operations(bundle.module, torch.zeros(bundle.signature.inputs[0].concrete()))
    found = {"muls": counted.muls, "adds": counted.adds, "joules": counted.joules()}
    return {**found, "joules_with_distances": counted.joules(distances=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of calls for each network")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "attentions.json")
    args = parser.parse_args()
    host, library = board.load("host"), operators.library()
    rows: dict[str, dict[str, Any]] = {}
    contenders: dict[str, Contender] = {}
    for name in (*NAMES, *SPIKING):
        bundle = open_model(name)
        lowered = {low.form: low for low in lower(bundle, host)}
        fired = activity.firings(lowered, _with_data(bundle)) if name in SPIKING else {}
        for form, low in lowered.items():
            key = f"{name}, {form}"
            rows[key] = work(low, fired.get(form)) | (own_count(name) if name.startswith("ecoformer") else {})
            contenders[key] = Contender(low)
            if name in HASHED and library is not None:
                contenders[f"{key}, native kernel"] = Contender(low, library)
        print(name, flush=True)
    _take_turns(list(contenders.values()), args.seconds)
    for key, contender in contenders.items():
        samples = np.array(contender.samples)
        median, p95 = np.median(samples), np.percentile(samples, 95)
        rows.setdefault(key, {})["latency_s"] = {"median": float(median), "p95": float(p95), "n": len(samples)}
        print(f"{key:45s} {1e6 * median:10.1f} us (p95 {1e6 * p95:.1f}, n = {len(samples)})")
    found = {
        "rows": rows,
        "conditions": {
            "cpu": machine.cpu_model(),
            "load": [round(x, 2) for x in os.getloadavg()],
            "onnxruntime": ort.__version__,
            "python": platform.python_version(),
            "threads": 1,
            "operator_library": library is not None and operators.isas(library)[0],
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }
    args.output.write_text(json.dumps(found, indent=1) + "\n")


def _with_data(bundle: Any) -> Any:
    """The bundle with the sample's clips, on which spike rates are recorded."""
    from dataclasses import replace

    from edgetk.core import registry

    return replace(bundle, data=registry.load("task", bundle.task).open(None, bundle.labels))


def _take_turns(contenders: list[Contender], seconds: float) -> None:
    for contender in contenders:
        for _ in range(3):
            contender.call()
    spent = 0.0
    while spent < seconds * len(contenders):
        for contender in contenders:
            turn, first = 0.0, True
            while turn < 0.02:  # a turn of 20 ms; its first call finds a cold cache and is left out where it has more
                taken = contender.call()
                turn += taken
                if not first or taken > 0.01:
                    contender.samples.append(taken)
                first = False
            spent += turn


if __name__ == "__main__":
    main()
