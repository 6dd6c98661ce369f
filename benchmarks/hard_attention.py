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
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from in_turns import Contender, conditions, session, take_turns, values, write

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


def entry(kind: str, tensors: dict[str, np.ndarray], library: Path | None = None, isa: str = "") -> Contender:
    inputs, body = TEXTS[kind].split(" => ")
    header = '<ir_version: 8, opset_import: ["" : 17, "edgetk" : 1]>'
    model = functions.attach(onnx.parser.parse_model(f"{header} main ({inputs}) => (float[1, H, N, d] y) {{ {body} }}"))
    bound = values({**tensors, "y": np.zeros_like(tensors["v"])})
    return Contender(session(model, library, isa), bound, bound["y"])


def contenders(tokens: int, heads: int, width: int, library: Path) -> dict[str, Contender]:
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, heads, tokens, width), np.float32) for _ in range(3))
    q *= np.float32(2 / width**0.5)
    keys = np.ascontiguousarray(k.transpose(0, 1, 3, 2))
    scores = np.exp(q @ keys)
    tensors = {"q": q, "k": keys, "v": v, "w": scores / scores.sum(-1, keepdims=True)}
    isas = operators.isas(library)
    made = {"dense": entry("dense", tensors), "body": entry("hard", tensors)}
    made |= {f"native {isa}": entry("hard", tensors, library, isa) for isa in isas}
    made["whole dense"] = entry("whole dense", tensors)
    made[f"whole hard {isas[0]}"] = entry("whole hard", tensors, library, isas[0])
    for contender in made.values():
        contender.call()
    for name, contender in made.items():  # what is compared computes the same
        if name.startswith("native"):
            np.testing.assert_allclose(contender.y.numpy(), made["body"].y.numpy(), rtol=0, atol=1e-5)
    return made


def measure(tokens: int, heads: int, width: int, library: Path, seconds: float) -> dict[str, Any]:
    made = contenders(tokens, heads, width, library)
    take_turns(made, seconds, WARMUP, TURN_S)
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
    inputs = "softmax of normal queries times normal keys, scores of standard deviation 2, seed 0"
    more = {"remark": args.remark, "warmup": WARMUP, "turn_s": TURN_S, "seconds_per_shape": args.seconds, "inputs": inputs}
    write(args.output, {"what": __doc__, "conditions": conditions(before, **more), "shapes": shapes})


if __name__ == "__main__":
    main()
