"""The dense-sparse product on one core: (x D) S with the native kernel against one float32 matrix product in ONNX Runtime.

    make native
    taskset -c 1 python benchmarks/dense_sparse.py [--seconds 6] [-o benchmarks/results/dense_sparse.json]

Speed points of the specification (s = 16) and accuracy points (s = 34 to 58, ratio 2.8 and 3.57), at 1, 16 and 128 tokens. All
contenders run in ONNX Runtime with one thread, all graph optimizations and bound inputs; a call is one whole `run`.

dense          x W, float32
int8           x W with weights in int8 and inputs rounded on the way (com.microsoft::DynamicQuantizeMatMul)
low rank       (x U) V with the rank that has the bits of the dense-sparse pair
body           (x D) S on stock ONNX Runtime: the operator's body of standard operators
native ISA     the same file with the operator library, for each instruction set of this processor
int8 pair      both factors in int8: x D as in `int8`, and the sparse values with a scale for each line, on the best set

"share" is the speed-up over `dense` as a share of the ratio of multiply-accumulates, n m / (n r + m s). Contenders take turns
of about 3 ms, and the first call of a turn is left out where it has more than two. Median and 95th percentile of the calls.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from in_turns import Contender, conditions, session, take_turns, values, write

from edgetk.export import functions, operators
from edgetk.models.layers.dense_sparse_sizes import Group
from edgetk.targets import machine

#: inputs, outputs, atoms, non-zeros of a column; the first four are the speed points
POINTS = (
    (768, 3072, 128, 16),
    (384, 1536, 128, 16),
    (768, 768, 128, 16),
    (384, 384, 96, 16),
    (384, 1536, 256, 58),
    (384, 1536, 256, 34),
)
SPEED_POINTS = 4
TOKENS = (1, 16, 128)
TURN_S, WARMUP = 3e-3, 5

TEXTS = {
    "dense": "y = MatMul (x, W)",
    "int8": "y = com.microsoft.DynamicQuantizeMatMul (x, W8, scale, zero)",
    "low rank": "z = MatMul (x, U)\n y = MatMul (z, V)",
    "dense sparse": "z = MatMul (x, D)\n y = edgetk.DenseSparseMatMul <width = WIDTH> (z, values, indices)",
    "int8 pair": """
        z = com.microsoft.DynamicQuantizeMatMul (x, D8, scale_d, zero)
        y = edgetk.DenseSparseMatMulInt8 <width = WIDTH> (z, codes, indices, scales)""",
}


def entry(model: onnx.ModelProto, x: np.ndarray, outputs: int, library: Path | None = None, isa: str = "") -> Contender:
    bound = values({"x": x, "y": np.zeros((*x.shape[:-1], outputs), np.float32)})
    return Contender(session(model, library, isa), bound, bound["y"])


def model_of(text: str, tensors: dict[str, np.ndarray], width: int) -> onnx.ModelProto:
    header = '<ir_version: 8, opset_import: ["" : 17, "edgetk" : 1, "com.microsoft" : 1]>'
    body = text.replace("WIDTH", str(width))
    model = onnx.parser.parse_model(header + f"main (float[1, T, n] x) => (float[1, T, m] y) {{ {body} }}")
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in tensors.items() if k in used)
    return functions.attach(model)


def tensors_of(group: Group, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A dense-sparse pair, the matrix it stands for in float32 and int8, and a low-rank pair of as many bits."""
    n, m, r, s = group.short, group.lines, group.rank, group.nonzeros
    dictionary = rng.standard_normal((n, r), dtype=np.float32) / np.float32(n**0.5)
    values = rng.standard_normal((m, s), dtype=np.float32)
    indices = np.stack([np.sort(rng.permutation(r)[:s]) for _ in range(m)])
    sparse = np.zeros((r, m), np.float32)
    np.put_along_axis(sparse, indices.T, values.T, 0)
    matrix = dictionary @ sparse
    rank = int(group.bits() / 32 / (n + m))
    scale = np.float32(np.abs(matrix).max() / 127)
    scale_d, scales = np.float32(np.abs(dictionary).max() / 127), np.abs(values).max(1) / np.float32(127)
    return {
        "D8": np.round(dictionary / scale_d).astype(np.int8),
        "scale_d": scale_d.reshape(()),
        "codes": np.round(values / scales[:, None]).astype(np.int8),
        "scales": scales,
        "W": matrix,
        "W8": np.round(matrix / scale).astype(np.int8),
        "scale": scale.reshape(()),
        "zero": np.zeros((), np.int8),
        "U": rng.standard_normal((n, rank), dtype=np.float32),
        "V": rng.standard_normal((rank, m), dtype=np.float32),
        "D": dictionary,
        "values": values,
        "indices": indices.astype(np.uint8 if r <= 256 else np.int16),
    }


def contenders(group: Group, tokens: int, library: Path) -> dict[str, Contender]:
    rng = np.random.default_rng(0)
    tensors = tensors_of(group, rng)
    x = rng.standard_normal((1, tokens, group.short), dtype=np.float32)
    models = {name: model_of(text, tensors, group.rank) for name, text in TEXTS.items()}
    made = {name: entry(models[name], x, group.lines) for name in ("dense", "int8", "low rank")}
    made["body"] = entry(models["dense sparse"], x, group.lines)
    for isa in operators.isas(library):
        made[f"native {isa}"] = entry(models["dense sparse"], x, group.lines, library, isa)
    made["int8 pair"] = entry(models["int8 pair"], x, group.lines, library)
    for contender in made.values():
        contender.call()
    exact = made["dense"].y.numpy()
    for name, contender in made.items():  # what is compared computes the same
        if name == "body" or name.startswith("native"):
            np.testing.assert_allclose(contender.y.numpy(), exact, rtol=0, atol=1e-4 * np.abs(exact).max())
    np.testing.assert_allclose(made["int8 pair"].y.numpy(), exact, rtol=0, atol=0.05 * np.abs(exact).max())
    return made


def measure(group: Group, tokens: int, library: Path, seconds: float) -> dict[str, Any]:
    made = contenders(group, tokens, library)
    take_turns(made, seconds, WARMUP, TURN_S)
    rows: dict[str, Any] = {}
    dense = float(np.median(made["dense"].samples))
    macs_ratio = group.short * group.lines / group.macs
    for name, contender in made.items():
        times = contender.samples
        median = float(np.median(times))
        rows[name] = {"median_s": median, "p95_s": float(np.percentile(times, 95)), "n": len(times)}
        rows[name]["times_faster_than_dense"] = round(dense / median, 3)
        if name in ("body", "int8 pair") or name.startswith("native"):
            rows[name]["share_of_macs_ratio"] = round(dense / median / macs_ratio, 3)
    shape = {"inputs": group.short, "outputs": group.lines, "rank": group.rank, "nonzeros": group.nonzeros, "tokens": tokens}
    return {**shape, "macs_ratio": round(macs_ratio, 3), "bits_ratio": round(group.ratio(), 3), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="for each shape and number of tokens")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/dense_sparse.json"))
    args = parser.parse_args()
    library = operators.library()
    if library is None:
        parser.error("needs the operator library; run: make native")
    before = machine.load_average()
    shapes = []
    for number, (n, m, r, s) in enumerate(POINTS):
        for tokens in TOKENS:
            group = Group(("matrix",), "outputs", n, m, r, s)
            shapes.append({"speed_point": number < SPEED_POINTS, **measure(group, tokens, library, args.seconds)})
            print(f"{n} x {m}, r={r}, s={s}, {tokens} tokens: MAC ratio {shapes[-1]['macs_ratio']:.2f}")
            for name, row in shapes[-1]["rows"].items():
                times = [f"{1e6 * row[key]:9.1f}" for key in ("median_s", "p95_s")]
                share = f"{row['share_of_macs_ratio']:6.2f}" if "share_of_macs_ratio" in row else ""
                print(f"  {name:18}", *times, f"{row['n']:6}", f"{row['times_faster_than_dense']:6.2f}", share, flush=True)
    more = {"warmup": WARMUP, "turn_s": TURN_S, "seconds_per_shape": args.seconds, "inputs": "normal numbers, seed 0"}
    write(args.output, {"what": __doc__, "conditions": conditions(before, **more), "shapes": shapes})


if __name__ == "__main__":
    main()
