"""The product of attention weights and values on one core: all weights against the 30 largest, in ONNX Runtime.

    make native
    taskset -c 1 python benchmarks/hard_attention.py [--seconds 6] [-o benchmarks/results/hard_attention.json]

Shapes: MiniLM-L6 (12 heads of 32) at 128 and 512 tokens, the wide encoder (16 heads of 64) at 1000. All contenders run in
ONNX Runtime with one thread, all graph optimizations and bound inputs; a call is one whole `run`.

dense            weights times values (MatMul)
body             edgetk::HardAttention on stock ONNX Runtime: its body of standard operators (TopK, GatherND, MatMul)
native ISA       the same file with the operator library, for each instruction set of this processor
whole dense      scores, softmax and product: MatMul, Softmax, MatMul, keys transposed beforehand
whole hard ISA   the same with the operator in place of the last product, best instruction set

"macs" are those of the product alone, as the workload counter sees them. Contenders take turns of about 3 ms; the first call
of a turn is left out where it has more than two. Median, 95th percentile and fastest of the calls.
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
import onnx
import onnxruntime as ort

from edgetk.export import functions, operators
from edgetk.models.layers.hard_attention import KEEP, product_macs
from edgetk.targets import machine

#: tokens, heads, columns of a head
SHAPES = ((128, 12, 32), (512, 12, 32), (1000, 16, 64))
TURN_S, WARMUP = 3e-3, 3

OPERATOR = f"y = edgetk.HardAttention <keep = {KEEP}, kept = [{KEEP}]> (w, v)"
TEXTS = {
    "dense": "float[1, H, N, N] w, float[1, H, N, d] v => y = MatMul (w, v)",
    "hard": f"float[1, H, N, N] w, float[1, H, N, d] v => {OPERATOR}",
    "whole dense": "float[1, H, N, d] q, float[1, H, d, N] k, float[1, H, N, d] v => s = MatMul (q, k)\n"
    "w = Softmax <axis = -1> (s)\n y = MatMul (w, v)",
    "whole hard": "float[1, H, N, d] q, float[1, H, d, N] k, float[1, H, N, d] v => s = MatMul (q, k)\n"
    f"w = Softmax <axis = -1> (s)\n {OPERATOR}",
}


class Contender:
    """A session with bound inputs and a bound output."""

    def __init__(self, kind: str, tensors: dict[str, np.ndarray], library: Path | None = None, isa: str = "") -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        os.environ[operators.ISA_ENVIRONMENT] = isa
        if library is not None:
            operators.register(options, library)
        inputs, body = TEXTS[kind].split(" => ")
        header = '<ir_version: 8, opset_import: ["" : 17, "edgetk" : 1]>'
        model = functions.attach(onnx.parser.parse_model(f"{header} main ({inputs}) => (float[1, H, N, d] y) {{ {body} }}"))
        self.session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        self.inputs = [(i.name, ort.OrtValue.ortvalue_from_numpy(tensors[i.name])) for i in self.session.get_inputs()]
        for name, value in self.inputs:
            self.binding.bind_ortvalue_input(name, value)
        self.y = ort.OrtValue.ortvalue_from_numpy(np.zeros_like(tensors["v"]))
        self.binding.bind_ortvalue_output("y", self.y)
        self.samples: list[float] = []

    def call(self) -> float:
        start = time.perf_counter()
        self.session.run_with_iobinding(self.binding)
        return time.perf_counter() - start

    def turn(self) -> None:
        times = [self.call()]
        while sum(times) < TURN_S:
            times.append(self.call())
        self.samples += times[1:] if len(times) > 2 else times


def contenders(tokens: int, heads: int, width: int, library: Path) -> dict[str, Contender]:
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, heads, tokens, width), np.float32) for _ in range(3))
    q *= np.float32(2 / width**0.5)
    keys = np.ascontiguousarray(k.transpose(0, 1, 3, 2))
    scores = np.exp(q @ keys)
    tensors = {"q": q, "k": keys, "v": v, "w": scores / scores.sum(-1, keepdims=True)}
    isas = operators.isas(library)
    made = {"dense": Contender("dense", tensors), "body": Contender("hard", tensors)}
    made |= {f"native {isa}": Contender("hard", tensors, library, isa) for isa in isas}
    made["whole dense"] = Contender("whole dense", tensors)
    made[f"whole hard {isas[0]}"] = Contender("whole hard", tensors, library, isas[0])
    for contender in made.values():
        contender.call()
    for name, contender in made.items():  # what is compared computes the same
        if name.startswith("native"):
            np.testing.assert_allclose(contender.y.numpy(), made["body"].y.numpy(), rtol=0, atol=1e-5)
    return made


def measure(tokens: int, heads: int, width: int, library: Path, seconds: float) -> dict[str, Any]:
    made = contenders(tokens, heads, width, library)
    for contender in made.values():
        for _ in range(WARMUP):
            contender.call()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for contender in made.values():
            contender.turn()
    rows: dict[str, Any] = {}
    for name, contender in made.items():
        times = contender.samples
        rows[name] = {"median_s": float(np.median(times)), "p95_s": float(np.percentile(times, 95))}
        rows[name] |= {"fastest_s": min(times), "n": len(times)}
        against = "whole dense" if name.startswith("whole") else "dense"
        rows[name]["times_faster_than_dense"] = round(rows[against]["median_s"] / rows[name]["median_s"], 3)
    work = {"dense": heads * product_macs(tokens, width), "hard": heads * product_macs(tokens, width, KEEP)}
    return {"tokens": tokens, "heads": heads, "width": width, "keep": KEEP, "macs": work, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="for each shape")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/hard_attention.json"))
    parser.add_argument("--remark", default="", help="on the conditions, such as other work on the machine")
    args = parser.parse_args()
    library = operators.library()
    if library is None:
        parser.error("needs the operator library; run: make native")
    before = machine.load_average()
    shapes = []
    for shape in SHAPES:
        shapes.append(measure(*shape, library, args.seconds))
        print("{} tokens, {} heads of {}".format(*shape))
        for name, row in shapes[-1]["rows"].items():
            times = [f"{1e6 * row[key]:10.1f}" for key in ("median_s", "p95_s", "fastest_s")]
            print(f"  {name:20}", *times, f"{row['n']:6} {row['times_faster_than_dense']:7.2f}", flush=True)
    report = {
        "what": __doc__,
        "conditions": {
            "cpu": machine.cpu_model(),
            "cores": machine.cores(),
            "bound_to": sorted(os.sched_getaffinity(0)),
            "threads": 1,
            "load_average_before": before,
            "load_average_after": machine.load_average(),
            "remark": args.remark,
            "warmup": WARMUP,
            "turn_s": TURN_S,
            "seconds_per_shape": args.seconds,
            "inputs": "softmax of normal queries times normal keys, scores of standard deviation 2, seed 0",
            "onnxruntime": ort.__version__,
            "python": platform.python_version(),
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        "shapes": shapes,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
