"""Look-up layers against the matrix products they stand for: fp32 and int8 of ONNX Runtime, one thread, whole calls.

Rows, all from (1, B, d) to (1, B, h) float32, one call of a session each:

fp32          MatMul and Add of ONNX Runtime: a GEMV at B = 1, a GEMM above
int8          DynamicQuantizeLinear, MatMulInteger, scales and Add: int8 weights per column, uint8 inputs per call
native        edgetk::LookupLinear with int8 tables, weight p, tau = 4 or 8, run by the operator library
body          the same node without the library, as its standard operators
empty         Identity of the input: what a call of the runtime costs

Rows are cold: inputs change from call to call (as many different ones as fit 64 MB, at least 64), so that other table rows are
read each time, and every contender's turn is followed by those of all others, whose weights push its own out of the caches it
shares with them. `--flush` reads 64 MB between calls, so that no weight is left in any cache. Contenders take turns
of 2 ms. `in C` times the kernel alone, called in a loop by ctypes: without the runtime.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from in_turns import conditions, session, write

from edgetk.export import functions, operators
from edgetk.targets import machine

SHAPES = ((384, 384), (384, 1536), (768, 768), (768, 3072), (1024, 1024))
BATCHES = (1, 16, 128)
BITS = (4, 8)
TURN_S, WARMUP, POOL_BYTES = 2e-3, 3, 64 * 1024 * 1024

FP32 = """
main (float[1, B, D] x, float[D, H] w, float[H] b) => (float[1, B, H] y) {
    product = MatMul (x, w)
    y = Add (product, b)
}"""

INT8 = """
main (float[1, B, D] x, int8[D, H] w, float[H] s, float[H] b) => (float[1, B, H] y) {
    codes, scale, zero = DynamicQuantizeLinear (x)
    product = MatMulInteger (codes, w, zero)
    whole = Cast <to = 1> (product)
    both = Mul (scale, s)
    scaled = Mul (whole, both)
    y = Add (scaled, b)
}"""

EMPTY = """
main (float[1, B, D] x) => (float[1, B, D] y) {
    y = Identity (x)
}"""


def model_of(text: str, constants: dict[str, np.ndarray], d: int, h: int) -> onnx.ModelProto:
    header = '<ir_version: 8, opset_import: ["" : 17, "edgetk" : 1]>'
    model = onnx.parser.parse_model(header + text.replace("D]", f"{d}]").replace("[D,", f"[{d},").replace("H]", f"{h}]"))
    for name, value in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    kept = [i for i in model.graph.input if i.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return functions.attach(model)


def lookup(tables: np.ndarray, scale: np.ndarray, bias: np.ndarray, bits: int) -> onnx.ModelProto:
    count, height, h = tables.shape
    node = onnx.helper.make_node(
        "LookupLinear", ["x", "tables", "scale", "bias"], ["y"], domain="edgetk", weighting="p", temperature=1.0,
        powers=[2.0**i for i in range(bits)], offsets=[k * height for k in range(count)],
    )  # fmt: skip
    value = onnx.helper.make_tensor_value_info
    stored = {"tables": tables, "scale": scale, "bias": bias}
    graph = onnx.helper.make_graph(
        [node],
        "lookup",
        [value("x", 1, [1, "B", count * bits])],
        [value("y", 1, [1, "B", h])],
        [onnx.numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("edgetk", 1)]
    return functions.attach(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8))


class Contender:
    """A session that is given another input at every call."""

    def __init__(self, model: onnx.ModelProto, inputs: np.ndarray, library: Path | None = None) -> None:
        self.session = session(model, library)
        self.inputs = [ort.OrtValue.ortvalue_from_numpy(x) for x in inputs]
        self.binding = self.session.io_binding()
        self.next = 0
        self.samples: list[float] = []

    def call(self) -> float:
        self.binding.bind_ortvalue_input("x", self.inputs[self.next])
        self.binding.bind_output("y")
        self.next = (self.next + 1) % len(self.inputs)
        start = time.perf_counter()
        self.session.run_with_iobinding(self.binding)
        return time.perf_counter() - start


class InC(Contender):
    """The kernel called by ctypes, its fixed cost taken off (that of a call for no token)."""

    def __init__(self, stored: tuple[np.ndarray, ...], inputs: np.ndarray, bits: int, library: Path) -> None:
        tables, scale, bias = stored
        self.stored, self.pool = stored, inputs
        self.out = np.empty((inputs.shape[2], tables.shape[2]), np.float32)
        self.function = ctypes.CDLL(str(library)).edgetk_lookup_linear
        self.problems = [self._problem(x, tables, scale, bias, bits, len(x[0])) for x in inputs]
        self.nothing = self._problem(inputs[0], tables, scale, bias, bits, 0)
        self.next, self.samples = 0, []

    @staticmethod
    def _problem(x: np.ndarray, tables: np.ndarray, scale: np.ndarray, bias: np.ndarray, bits: int, n: int) -> Any:
        class Problem(ctypes.Structure):
            _fields_ = (
                *((name, ctypes.c_void_p) for name in ("x", "rows", "scale", "bias")),
                *((name, ctypes.c_int64) for name in ("tokens", "tables", "bits", "outputs")),
                ("temperature", ctypes.c_float),
                ("weighting", ctypes.c_int32),
            )

        pointers = (array.ctypes.data for array in (x, tables, scale, bias))
        return Problem(*pointers, n, tables.shape[0], bits, tables.shape[2], 1.0, 0)

    def call(self) -> float:
        problem = self.problems[self.next]
        self.next = (self.next + 1) % len(self.problems)
        out = ctypes.c_void_p(self.out.ctypes.data)
        times = []
        for one in (self.nothing, problem):
            start = time.perf_counter()
            self.function(ctypes.byref(one), out, None, 0, None)
            times.append(time.perf_counter() - start)
        return max(times[1] - times[0], 0.0)


def turn(contender: Contender, flush: Callable[[], object]) -> None:
    times: list[float] = []
    while sum(times) < TURN_S:
        flush()
        times.append(contender.call())
    contender.samples += times[1:] if len(times) > 2 else times


def contenders(d: int, h: int, batch: int, library: Path) -> dict[str, Contender]:
    rng = np.random.default_rng(0)
    pool = int(np.clip(POOL_BYTES // (4 * batch * d), 64, 1024))
    inputs = rng.standard_normal((pool, 1, batch, d), dtype=np.float32)
    w = rng.standard_normal((d, h), dtype=np.float32) / np.float32(d**0.5)
    bias = rng.standard_normal(h, dtype=np.float32)
    s = np.abs(w).max(0) / 127
    codes = np.round(w / s).astype(np.int8)
    made = {
        "fp32": Contender(model_of(FP32, {"w": w, "b": bias}, d, h), inputs),
        "int8": Contender(model_of(INT8, {"w": codes, "s": s, "b": bias}, d, h), inputs),
    }
    for bits in BITS:
        count = d // bits
        tables = rng.integers(-127, 128, (count, 2**bits, h), dtype=np.int8)
        stored = (tables, np.full(h, 0.01, np.float32), bias)
        made[f"native tau={bits}"] = Contender(lookup(*stored, bits), inputs, library)
        made[f"in C tau={bits}"] = InC(stored, inputs, bits, library)
        if batch <= 16:  # it gathers all rows before it sums them
            made[f"body tau={bits}"] = Contender(lookup(*stored, bits), inputs)
    made["empty"] = Contender(model_of(EMPTY, {}, d, h), inputs)
    return made


def measure(d: int, h: int, batch: int, library: Path, seconds: float, flush: Callable[[], object]) -> dict[str, Any]:
    made = contenders(d, h, batch, library)
    for contender in made.values():
        for _ in range(WARMUP):
            contender.call()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for contender in made.values():
            turn(contender, flush)
    rows: dict[str, Any] = {}
    for name, contender in made.items():
        times = contender.samples
        p5, median, p95 = (float(np.percentile(times, q)) for q in (5, 50, 95))
        rows[name] = {"median_s": median, "p5_s": p5, "p95_s": p95, "n": len(times)}
    for name, row in rows.items():
        if name.startswith(("native", "in C", "body")):
            row["times_faster_than"] = {b: round(rows[b]["median_s"] / max(row["median_s"], 1e-9), 3) for b in ("fp32", "int8")}
    bytes_of = {f"tau={bits}": d // bits * 2**bits * h for bits in BITS}
    return {"d": d, "h": h, "batch": batch, "table_bytes": bytes_of, "fp32_bytes": 4 * d * h, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each shape and batch")
    parser.add_argument("--flush", action="store_true", help="read 64 MB between calls")
    parser.add_argument("--batch", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/lookup_linear.json"))
    args = parser.parse_args()
    library = operators.library()
    if library is None:
        parser.error("needs the operator library; run: make native")
    junk = np.ones(POOL_BYTES // 4, np.float32)
    flush: Callable[[], object] = junk.sum if args.flush else lambda: None
    before, shapes = machine.load_average(), []
    for batch in args.batch:
        for d, h in SHAPES:
            shapes.append(measure(d, h, batch, library, args.seconds, flush))
            print(f"{d} -> {h}, B={batch}")
            for name, row in shapes[-1]["rows"].items():
                times = [f"{1e6 * row[key]:9.1f}" for key in ("median_s", "p5_s", "p95_s")]
                ratios = [f"{value:8.2f}" for value in row.get("times_faster_than", {}).values()]
                print(f"  {name:16}", *times, f"{row['n']:6}", *ratios, flush=True)
    more = {"isa": operators.isas(library)[0], "flush": args.flush, "warmup": WARMUP, "turn_s": TURN_S}
    more |= {"seconds_per_shape": args.seconds, "inputs": "normal numbers, seed 0, another one at each call"}
    write(args.output, {"what": __doc__, "conditions": conditions(before, **more), "shapes": shapes})


if __name__ == "__main__":
    main()
