"""Binary attention on one core: the native kernel against float softmax and float linear attention in ONNX Runtime.

    make native
    taskset -c 1 python benchmarks/binary_attention.py [--seconds 12] [-o benchmarks/results/binary_attention.json]

Shapes are those of PVTv2-b0 at 224 x 224 (heads of 32 columns; 16-bit codes), and 1024 tokens of one head. All contenders run
in ONNX Runtime with one thread, all graph optimizations and bound, aligned inputs; a call is one whole `run`.

softmax        MatMul, Softmax, MatMul; the scale is folded into q, and k comes transposed
fused softmax  the runtime's own com.microsoft::MultiHeadAttention
linear         sum of v weighted by q . k, evaluated as q (k^T v), over its row sum; 32 positive float features
elu + linear   the same with the features computed too, elu(x) + 1 of q and of k (Katharopoulos et al. 2020)
body           edgetk::BinaryLinearAttention on stock ONNX Runtime: its body of standard operators
native ISA     the same file with the operator library, for each instruction set of this processor
hash + native  codes computed too: unit vectors, 25 anchors, kernel, 16 signs (Liu et al. 2022), then the operator; "body" and
               "native" get their codes for nothing, as "linear" its features

Contenders take turns of about 2 ms, and the first call of a turn is left out where it has more than two. Median and 95th
percentile of the calls.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from in_turns import Contender, conditions, session, take_turns, write

from edgetk.export import functions, operators
from edgetk.targets import machine

#: tokens -> heads
SHAPES = {49: 8, 196: 5, 784: 2, 1024: 1, 3136: 1}
WIDTH, BITS, ANCHORS = 32, 16, 25
TURN_S, WARMUP = 2e-3, 5
BASELINES = ("softmax", "fused softmax", "linear", "elu + linear")

SOFTMAX = """
main (float[1, H, N, 32] q, float[1, H, 32, N] k, float[1, H, N, 32] v) => (float[1, H, N, 32] y) {
    scores = MatMul (q, k)
    weights = Softmax <axis = -1> (scores)
    y = MatMul (weights, v)
}"""

FUSED = """
main (float[1, N, C] q, float[1, N, C] k, float[1, N, C] v) => (float[1, N, C] y) {
    y = com.microsoft.MultiHeadAttention <num_heads = HEADS> (q, k, v)
}"""

_LINEAR = """
    axis = Constant <value = int64[1] {-2}> ()
    by_feature = Transpose <perm = [0, 1, 3, 2]> (FK)
    context = MatMul (by_feature, v)
    above = MatMul (FQ, context)
    total = ReduceSum <keepdims = 1> (FK, axis)
    total_by_feature = Transpose <perm = [0, 1, 3, 2]> (total)
    below = MatMul (FQ, total_by_feature)
    y = Div (above, below)
}"""

_INPUTS = """
main (float[1, H, N, 32] q, float[1, H, N, 32] k, float[1, H, N, 32] v) => (float[1, H, N, 32] y) {"""

LINEAR = _INPUTS + _LINEAR.replace("FK", "k").replace("FQ", "q")

ELU_LINEAR = (
    _INPUTS
    + """
    one = Constant <value = float {1.0}> ()
    elu_q = Elu (q)
    elu_k = Elu (k)
    features_q = Add (elu_q, one)
    features_k = Add (elu_k, one)"""
    + _LINEAR.replace("FK", "features_k").replace("FQ", "features_q")
)

BINARY = """
main (float[1, H, N, 16] codes, float[1, H, N, 32] v) => (float[1, H, N, 32] y) {
    y = edgetk.BinaryLinearAttention <numerator = "own_token"> (codes, codes, v)
}"""

HASHED = """
main (float[1, H, N, 32] x, float[1, H, 32, 25] anchors, float[1, H, 1, 25] centre, float[1, H, 25, 16] A, float[1, H, N, 32] v)
    => (float[1, H, N, 32] y) {
    one = Constant <value = float {1.0}> ()
    length = ReduceL2 <axes = [-1], keepdims = 1> (x)
    z = Div (x, length)
    cosine = MatMul (z, anchors)
    half_distance = Sub (one, cosine)
    half_sigma = ReduceMean <axes = [-2, -1], keepdims = 1> (half_distance)
    sigma = Add (half_sigma, half_sigma)
    ratio = Div (half_distance, sigma)
    exponent = Neg (ratio)
    kernel = Exp (exponent)
    centred = Sub (kernel, centre)
    scores = MatMul (centred, A)
    codes = Sign (scores)
    y = edgetk.BinaryLinearAttention <numerator = "own_token"> (codes, codes, v)
}"""


def model_of(text: str, heads: int) -> onnx.ModelProto:
    header = '<ir_version: 8, opset_import: ["" : 17, "edgetk" : 1, "com.microsoft" : 1]>'
    return functions.attach(onnx.parser.parse_model(header + text.replace("HEADS", str(heads))))


def aligned(x: np.ndarray) -> ort.OrtValue:
    """A copy where the runtime's own tensors would be: at a multiple of 64 bytes."""
    raw = np.empty(x.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy = raw[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return ort.OrtValue.ortvalue_from_numpy(copy)


def entry(text: str, feeds: dict[str, np.ndarray], heads: int, library: Path | None = None, isa: str = "") -> Contender:
    bound = {name: aligned(value) for name, value in feeds.items()}
    return Contender(session(model_of(text, heads), library, isa), bound, aligned(np.zeros(feeds["v"].shape, np.float32)))


def contenders(tokens: int, heads: int, library: Path) -> dict[str, Contender]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    q, k, v = (normal(1, heads, tokens, WIDTH) for _ in range(3))
    codes = np.sign(normal(1, heads, tokens, BITS))
    rows = {name: x.transpose(0, 2, 1, 3).reshape(1, tokens, -1) for name, x in (("q", q), ("k", k), ("v", v))}
    anchors = normal(1, heads, WIDTH, ANCHORS)
    anchors /= np.linalg.norm(anchors, axis=2, keepdims=True)
    hashed = {"x": q, "anchors": anchors, "centre": np.full((1, heads, 1, ANCHORS), 0.6, np.float32)}
    hashed |= {"A": normal(1, heads, ANCHORS, BITS), "v": v}
    scaled = np.ascontiguousarray(k.transpose(0, 1, 3, 2)), q / np.float32(WIDTH**0.5)
    made = {
        "softmax": entry(SOFTMAX, {"q": scaled[1], "k": scaled[0], "v": v}, heads),
        "fused softmax": entry(FUSED, rows, heads),
        "linear": entry(LINEAR, {"q": np.abs(q), "k": np.abs(k), "v": v}, heads),
        "elu + linear": entry(ELU_LINEAR, {"q": q, "k": k, "v": v}, heads),
        "body": entry(BINARY, {"codes": codes, "v": v}, heads),
    }
    isas = operators.isas(library)
    for isa in isas:
        made[f"native {isa}"] = entry(BINARY, {"codes": codes, "v": v}, heads, library, isa)
    made[f"hash + native {isas[0]}"] = entry(HASHED, hashed, heads, library, isas[0])
    check(made, isas)
    return made


def check(made: dict[str, Contender], isas: tuple[str, ...]) -> None:
    """What is compared computes the same: both softmaxes, and the operator with and without its kernels."""
    for contender in made.values():
        contender.call()
    softmax, fused, body = (made[name].y.numpy() for name in ("softmax", "fused softmax", "body"))
    heads, tokens = softmax.shape[1:3]
    np.testing.assert_allclose(fused.reshape(1, tokens, heads, WIDTH).transpose(0, 2, 1, 3), softmax, rtol=0, atol=1e-5)
    for isa in isas:
        np.testing.assert_allclose(made[f"native {isa}"].y.numpy(), body, rtol=0, atol=1e-5)


def measure(tokens: int, heads: int, library: Path, seconds: float) -> dict[str, Any]:
    made = contenders(tokens, heads, library)
    take_turns(made, seconds, WARMUP, TURN_S)
    rows: dict[str, Any] = {}
    for name, contender in made.items():
        times = contender.samples
        rows[name] = {"median_s": float(np.median(times)), "p95_s": float(np.percentile(times, 95)), "n": len(times)}
    for row in rows.values():
        row["times_faster_than"] = {name: round(rows[name]["median_s"] / row["median_s"], 3) for name in BASELINES}
    return {"tokens": tokens, "heads": heads, "width": WIDTH, "bits": BITS, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=12.0, help="for each shape")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/binary_attention.json"))
    args = parser.parse_args()
    library = operators.library()
    if library is None:
        parser.error("needs the operator library; run: make native")
    before = machine.load_average()
    shapes = []
    for tokens, heads in SHAPES.items():
        shapes.append(measure(tokens, heads, library, args.seconds))
        print(f"N={tokens}, {heads} heads")
        for name, row in shapes[-1]["rows"].items():
            times = [f"{1e6 * row[key]:9.1f}" for key in ("median_s", "p95_s")]
            ratios = [f"{value:8.2f}" for value in row["times_faster_than"].values()]
            print(f"  {name:22}", *times, f"{row['n']:6}", *ratios, flush=True)
    inputs = "normal numbers, codes their signs, seed 0"
    more = {"warmup": WARMUP, "turn_s": TURN_S, "seconds_per_shape": args.seconds, "inputs": inputs}
    write(args.output, {"what": __doc__, "conditions": conditions(before, **more), "shapes": shapes})


if __name__ == "__main__":
    main()
