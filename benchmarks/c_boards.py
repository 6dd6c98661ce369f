"""Shipped LMUFormers in int8 as C on emulated Cortex-M4 and M55: instructions, flash, RAM, and whether an M4 keeps up.

    python benchmarks/c_boards.py --runs FOLDER [-o benchmarks/results/c_boards.json]

FOLDER holds what `edgetk compress --model M --recipe int8 --target stm32l4r5 --output FOLDER/M` wrote for each model M (for
the target host a small stream may stay float32: ONNX Runtime is not faster in int8). QEMU counts instructions, not cycles
(-icount, read through SysTick); the real-time row takes a stated number of cycles for each instruction. Accuracy is that of
the C on the embedded sample's test clips, and beside it what the run's report says of the graph.
Needs gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgetk.core import registry
from edgetk.export import c_run
from edgetk.export.c import front
from edgetk.export.c.plan import plan
from edgetk.export.c.program import Program
from edgetk.export.graph import signature_of
from edgetk.export.to_c import sources, stream
from edgetk.tasks.speech.front_end import FRONT_END

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "c"))
from emulated import BOARDS, board_build, board_run, front_end_run, object_sections

STEPS = 128
#: frames that bring out what waits for look-ahead at the end of a clip
LOOKAHEAD = 5

#: Cycles for each instruction on boards that run from flash with wait states behind a cache or accelerator: assumed. The
#: vendor stacks of MLPerf Tiny take 2.0 (Cortex-M4) and 1.2 (M7) cycles for each int8 product of a whole DS-CNN.
CYCLES_PER_INSTRUCTION = 1.5
CLOCKS = {"cortex-m4 at 120 MHz": ("cortex-m4", 120e6), "cortex-m7 at 280 MHz": ("cortex-m4", 280e6)}


def measured(graph: Path, folder: Path) -> dict[str, Any]:
    """One model on all boards."""
    model = onnx.load(graph)
    program = Program("net", plan(model, signature_of(model)))
    for name, text in sources(program).items():
        (folder / name).write_text(text)
    for name, text in front.files(FRONT_END).items():
        (folder / name).write_text(text)
    data = registry.load("task", "speech-commands").open(None, None)
    data.calibration(1).numpy().astype(np.float32)[:STEPS].tofile(folder / "frames.bin")
    found: dict[str, Any] = {
        "macs": program.macs,
        "macs_by_type": program.plan.macs,
        "graph_sha256": hashlib.sha256(graph.read_bytes()).hexdigest(),
        "predicted_bytes": {
            "constants": program.constant_bytes, "state": program.state_bytes, "arena": program.arena_bytes,
        },
        "boards": {},
    }  # fmt: skip
    for board in BOARDS:
        counted = board_run(board_build(board, folder, program), folder)
        sections = object_sections(board, folder, program)
        found["boards"][board] = {
            "kernels": counted.isa,
            "steps": counted.steps,
            "instructions_per_step": round(counted.instructions),
            "instructions_per_mac": round(counted.instructions / program.macs, 3),
            "front_end_instructions_per_frame": round(front_end_run(board, folder)),
            "bytes": {
                "constants": sections["net_data"][".rodata"], "arena": sections["net"][".bss"],
                "code": sections["net"][".text"],
            },
        }  # fmt: skip
    return found


def answers(folder: Path) -> dict[str, Any]:
    """Right answers of the generated C, built for this machine, on the test clips of the sample, each flushed to its end."""
    split = registry.load("task", "speech-commands").open(None, None).split("test")
    library = c_run.load(c_run.build(folder))
    frames = np.ascontiguousarray(split.features.numpy()[:, :, None, None, :])
    scores = stream(library, (frames,), LOOKAHEAD)[0][:, -1]
    correct = int((scores.argmax(-1) == split.labels.numpy()).sum())
    return {"correct": correct, "n": len(scores), "top1": correct / len(scores)}


def real_time(found: dict[str, Any]) -> dict[str, Any]:
    """Share of the 10 ms between two frames that step and front end take, by clock."""
    rows = {}
    for name, (board, clock) in CLOCKS.items():
        counted = found["boards"][board]
        each = counted["instructions_per_step"] + counted["front_end_instructions_per_frame"]
        share = each * CYCLES_PER_INSTRUCTION / clock / FRONT_END["period_s"]
        rows[name] = {"instructions": each, "share_of_real_time": round(share, 4), "keeps_up": share < 1}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    models = {}
    for graph in sorted(options.runs.rglob("model.stream.onnx")):
        name = graph.relative_to(options.runs).parts[0]
        report = json.loads((graph.parent / "report.json").read_text())
        with tempfile.TemporaryDirectory() as folder:
            models[name] = measured(graph, Path(folder))
            models[name]["generated_c"] = answers(Path(folder))
        models[name]["real_time"] = real_time(models[name])
        models[name]["report_accuracy"] = report.get("accuracy", report.get("scores"))
        print(name, json.dumps(models[name]))
    compiler = subprocess.run(
        ["arm-none-eabi-gcc", "--version"], check=True, capture_output=True, text=True
    ).stdout.splitlines()[0]
    qemu = subprocess.run(["qemu-system-arm", "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]
    result = {
        "what": "generated C of int8 streams on emulated Cortex-M: instructions, never cycles",
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "conditions": {"compiler": f"{compiler}, -O2 -ffp-contract=off", "emulator": f"{qemu}, -icount shift=0, SysTick"},
        "assumed_cycles_per_instruction": CYCLES_PER_INSTRUCTION,
        "models": models,
    }
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
