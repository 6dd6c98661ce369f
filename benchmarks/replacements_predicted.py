"""What can stand for a matrix, predicted for boards that were not at hand: times of one layer on a Raspberry Pi 5 and a Jetson.

    python benchmarks/replacements_predicted.py [-o benchmarks/results/replacements_predicted.json]

Nothing here is measured on a board, and no prediction was validated there. Rows, each from (1, T, n) to (1, T, m):

float32, int8   a MatMul, the second between QuantizeLinear and DequantizeLinear
low rank        two MatMuls with the rank that has the bits of the dense-sparse pair, float32
pair, body      (x D) S as a stock runtime runs it: it folds the sparse matrix and multiplies by its zeros
tables, body    edgetk::LookupLinear (tau = 4, int8) as its standard operators
pair, tables    with the native kernels, on boards whose runtime is ONNX Runtime

All but the last come from the graph by the roofline of `edgetk.targets`. A kernel is one operator call, and the longer of its
instructions and its bytes: instructions for each product as NEON was counted (kernel_instructions.json), two a cycle (assumed).
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgetk.core.target import Target
from edgetk.export import functions
from edgetk.models.layers.dense_sparse_sizes import Group
from edgetk.targets import board, roofline
from edgetk.targets.count import count

RESULTS = Path(__file__).parent / "results"
BOARDS = ("raspberry-pi-5", "jetson")
#: inputs, outputs, atoms, non-zeros of a line
POINTS = ((384, 1536, 128, 16), (384, 1536, 256, 58), (768, 768, 128, 16), (768, 3072, 128, 16), (384, 384, 96, 16))
TOKENS, BITS = (1, 16, 128), 4
PER_CYCLE = 2.0

TEXTS = {
    "float32": "y = MatMul (x, W)",
    "int8": """
        c = QuantizeLinear (x, step, zero)
        a = DequantizeLinear (c, step, zero)
        w = DequantizeLinear <axis = 1> (W8, steps)
        y = MatMul (a, w)""",
    "low rank": "z = MatMul (x, U)\n y = MatMul (z, V)",
    "pair, body": "z = MatMul (x, D)\n y = MatMul (z, S)",
    "dictionary": "y = MatMul (x, D)",
    "tables, body": """
        y = edgetk.LookupLinear <weighting = "p", temperature = 1.0, powers = [POWERS], offsets = [OFFSETS]>
            (x, tables, steps, bias)""",
}


def graph(name: str, n: int, m: int, r: int, s: int, tokens: int) -> onnx.ModelProto:
    k = int(Group(("w",), "outputs", n, m, r, s).bits() / 32 / (n + m))
    tables = n // BITS
    f, i = np.float32, np.int8
    stored = {
        "W": np.ones((n, m), f), "W8": np.ones((n, m), i), "steps": np.ones(m, f), "step": f(1), "zero": i(0),
        "U": np.ones((n, k), f), "V": np.ones((k, m), f), "D": np.ones((n, r), f), "S": np.ones((r, m), f),
        "tables": np.ones((tables, 2**BITS, m), i), "bias": np.ones(m, f),
    }  # fmt: skip
    width = r if name == "dictionary" else m
    body = TEXTS[name].replace("POWERS", ", ".join(f"{2.0**b}" for b in range(BITS)))
    body = body.replace("OFFSETS", ", ".join(str(2**BITS * t) for t in range(tables)))
    head = '<ir_version: 8, opset_import: ["" : 17, "edgetk" : 1]>'
    model = onnx.parser.parse_model(f"{head}\nmain (float[1, {tokens}, {n}] x) => (float[1, {tokens}, {width}] y) {{ {body} }}")
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(a), key) for key, a in stored.items() if key in read)
    return functions.attach(model)


def predicted(name: str, sizes: tuple[int, int, int, int], tokens: int, target: Target) -> float:
    work = count(graph(name, *sizes, tokens))
    assert work.unknown == (), work.unknown
    return sum(row.seconds for row in roofline.timed(work, target))


def kernel(macs: int, per_mac: float, moved: float, target: Target) -> float:
    assert target.clock_hz is not None
    busy = macs * per_mac / PER_CYCLE / target.clock_hz
    return target.overhead_s_per_op + max(busy, moved / roofline.bandwidth(target, moved))


def counted(found: dict[str, Any], name: str, tokens: int, **sizes: int) -> float:
    """Instructions of NEON for each product, of the nearest size that was counted."""
    rows = [r for r in found["rows"] if r["isa"] == "neon" and r["kernel"] == name and (r["tokens"] == 1) == (tokens == 1)]
    best = min(rows, key=lambda r: sum(abs(r[key] - value) for key, value in sizes.items()))
    return float(best["instructions_per_mac"])


def natives(sizes: tuple[int, int, int, int], tokens: int, target: Target, found: dict[str, Any]) -> dict[str, float]:
    n, m, r, s = sizes
    index, edges = 1 if r <= 256 else 2, 4 * tokens * (r + m)
    times = {"tables": kernel(
        tokens * n // BITS * (BITS + m), counted(found, "LookupLinear", tokens, tau=BITS),
        min(tokens, 2**BITS) * n // BITS * m + 4 * tokens * (n + m), target,
    )}  # fmt: skip
    dictionary = predicted("dictionary", sizes, tokens, target)
    for label, operator, each in (("pair", "DenseSparseMatMul", 4), ("pair, int8 values", "DenseSparseMatMulInt8", 1)):
        moved = m * s * (each + index) + edges
        times[label] = dictionary + kernel(tokens * m * s, counted(found, operator, tokens, s=s), moved, target)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "replacements_predicted.json")
    output: Path = parser.parse_args().output
    found = json.loads((RESULTS / "kernel_instructions.json").read_text())
    rows = []
    for name in BOARDS:
        target = board.load(name)
        for sizes in POINTS:
            for tokens in TOKENS:
                times = {row: predicted(row, sizes, tokens, target) for row in TEXTS if row != "dictionary"}
                if target.stack.runtime == "onnxruntime":
                    times |= natives(sizes, tokens, target, found)
                faster = {row: round(times["float32"] / t, 3) for row, t in times.items()}
                n, m, r, s = sizes
                rows.append(
                    {"board": str(target), "n": n, "m": m, "r": r, "s": s, "tokens": tokens,
                     "seconds": {row: float(f"{t:.4g}") for row, t in times.items()}, "times_faster_than_float32": faster}
                )  # fmt: skip
                print(target.name, sizes, tokens, faster)
    report = {
        "what": "predicted, unvalidated: no board was at hand",
        "predictor": f"roofline of edgetk.targets; kernels by counted instructions, {PER_CYCLE:g} a cycle (assumed)",
        "when": datetime.now(UTC).date().isoformat(),
        "rows": rows,
    }
    output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
