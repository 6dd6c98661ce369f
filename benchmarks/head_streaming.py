"""Memory of a wide layer whose heads take turns, against all heads at once: measured in ONNX Runtime and in torch.

    python benchmarks/head_streaming.py [-o benchmarks/results/head_streaming.json]

One layer with 4, 8 and 16 heads of 64, d = 256, on 1000 bytes, every token computed (`last` = "all"), random weights. Scores of
one head are 1001 x 1001 float32, 4.0 MB; `turns` = 1 computes one head after the other. Each case is a process of its own, two
after another: the second call's highest resident memory above that before the first call (Linux resets the mark).

onnxruntime         the exported graph; buffers from malloc (no arena), so that what it frees is given back
onnxruntime arena   the same with the arena as it comes
torch               the module with plain matrix products, which keep scores
torch fused         the module as it runs by default: torch's kernel for softmax attention keeps none

`planned` is the highest sum of live activations that edgetk's counter finds in the graph, which a static plan needs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

HEADS, TURNS, LENGTH = (4, 8, 16), (0, 1), 1000
RUNTIMES = ("onnxruntime", "onnxruntime arena", "torch", "torch fused")
#: glibc gives every larger block back to the system when it is freed
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def resident(key: str) -> int:
    """Bytes: "VmRSS" now, "VmHWM" the highest since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1]) * 1024


def network(heads: int, turns: int) -> Any:
    from edgetk.models.wide import build

    return build("1x16", heads=heads, turns=turns, last="all", length=LENGTH)


def measured(runtime: str, heads: int, turns: int, graph: str) -> int:
    """In a fresh process: highest memory of a call above that before any call."""
    tokens = np.random.default_rng(0).integers(1, 256, (1, LENGTH)).astype(np.float32)
    if runtime.startswith("onnxruntime"):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        if runtime == "onnxruntime":
            options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

        def call() -> None:
            session.run(None, {"tokens": tokens})
    else:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        net, x = network(heads, turns).module, torch.from_numpy(tokens)
        kinds = [SDPBackend.MATH] if runtime == "torch" else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]

        def call() -> None:
            with torch.inference_mode(), sdpa_kernel(kinds, set_priority=True):
                net(x)

    before = resident("VmRSS")
    call()
    Path("/proc/self/clear_refs").write_text("5")
    call()
    return resident("VmHWM") - before


def fresh(runtime: str, heads: int, turns: int, graph: Path) -> int:
    """`measured`, in a process of its own."""
    command = [sys.executable, __file__, "--child", runtime, str(heads), str(turns), str(graph)]
    done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def main() -> None:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results" / "head_streaming.json")
    made.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.child:
        runtime, heads, turns, graph = args.child
        print(measured(runtime, int(heads), int(turns), graph))
        return
    import onnx
    import onnxruntime as ort
    import torch

    from edgetk.export.lower import lower
    from edgetk.targets import board
    from edgetk.targets.count import count

    rows: dict[str, dict[str, Any]] = {}
    with TemporaryDirectory() as folder:
        for heads in HEADS:
            for turns in TURNS:
                low = lower(network(heads, turns), board.load("host"))[0]
                path = Path(folder) / f"{heads}-{turns}.onnx"
                onnx.save(low.graph, path)
                row: dict[str, Any] = {"planned": count(low.graph, low.signature).peak_activation_bytes}
                for runtime in RUNTIMES:
                    row[runtime] = sorted(fresh(runtime, heads, turns, path) for _ in range(2))
                rows[f"{heads} heads, {'all at once' if turns == 0 else 'in turns'}"] = row
                print(heads, turns, row, flush=True)
    report = {
        "what": __doc__,
        "conditions": {
            "machine": platform.platform(),
            "onnxruntime": ort.__version__,
            "torch": torch.__version__,
            "environment": ENVIRONMENT,
            "score_bytes_of_one_head": 4 * (LENGTH + 1) ** 2,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        "bytes": rows,
    }
    args.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
