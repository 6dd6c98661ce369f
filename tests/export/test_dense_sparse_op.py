"""edgetk::DenseSparseMatMul: bodies and kernels compute what torch computes, both ways round, on every instruction set."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from export_toys import target
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.signature import Signature, TensorSpec
from edgetk.export import functions, operators, parity
from edgetk.export.lower import lower
from edgetk.models.layers.dense_sparse import install
from edgetk.models.layers.dense_sparse_int8 import QuantSparseFactor
from edgetk.models.layers.dense_sparse_sizes import Group

Array = np.ndarray
#: by hand: lines 0.5 z_0 + 2 z_2 and 1 z_1 - 1 z_0
VALUES, INDICES = np.array([[0.5, 2.0], [1.0, -1.0]], np.float32), np.array([[0, 2], [1, 0]], np.uint8)
NAMES = {"outputs": "DenseSparseMatMul", "inputs": "DenseSparseMatMulByRow"}
#: the same lines as codes and scales: 0.5 * (1 z_0 + 4 z_2) and -0.25 * (-4 z_1 + 4 z_0)
CODES, SCALE = np.array([[1, 4], [-4, 4]], np.int8), np.array([0.5, -0.25], np.float32)


class Problem(ctypes.Structure):
    """`edgetk_sparse_product` of dense_sparse.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "values", "scale", "indices")),
        *((name, ctypes.c_int64) for name in ("tokens", "lines", "width", "nonzeros")),
        ("index_bytes", ctypes.c_int32),
        ("side", ctypes.c_int32),
    )


def call(
    library: Path, isa: str, x: Array, values: Array, indices: Array, width: int, side: str, scale: Array | None = None
) -> tuple[int, Array]:
    """Status and result of the C interface; `values` are int8 where there is a scale."""
    out = np.full((len(x), len(values) if side == "outputs" else width), np.nan, np.float32)
    pointers = [None if a is None else a.ctypes.data for a in (x, values, scale, indices)]
    problem = Problem(*pointers, len(x), len(values), width, values.shape[1], indices.itemsize, int(side == "inputs"))
    status = ctypes.CDLL(str(library)).edgetk_dense_sparse(
        ctypes.byref(problem), ctypes.c_void_p(out.ctypes.data), isa.encode()
    )
    return status, out


def kernel(*args: Any) -> Array:
    status, out = call(*args)
    assert status == 0
    return out


def drawn(seed: int, lines: int, width: int, s: int, tokens: int, side: str) -> tuple[Array, Array, Array, Array]:
    """x, values, indices, and the sparse matrix (lines, width)."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((lines, s)).astype(np.float32)
    chosen = np.stack([rng.permutation(width)[:s] for _ in range(lines)])
    matrix = np.zeros((lines, width), np.float32)
    np.put_along_axis(matrix, chosen, values, 1)
    x = rng.standard_normal((tokens, width if side == "outputs" else lines)).astype(np.float32)
    return x, values, chosen.astype(np.uint8 if width <= 256 else np.int16), matrix


def coded(seed: int, values: Array, indices: Array, width: int) -> tuple[Array, Array, Array]:
    """Codes and scales in the place of values, and the sparse matrix that they stand for."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(-127, 128, values.shape).astype(np.int8)
    scale = rng.uniform(0.001, 0.02, len(values)).astype(np.float32)
    matrix = np.zeros((len(values), width), np.float32)
    np.put_along_axis(matrix, indices.astype(np.int64), codes * scale[:, None], 1)
    return codes, scale, matrix


def product(x: Array, matrix: Array, side: str) -> Array:
    exact: Array = x.astype(np.float64) @ (matrix.T if side == "outputs" else matrix).astype(np.float64)
    return exact


def graph(side: str, values: Array, indices: Array, width: int, scale: Array | None = None) -> onnx.ModelProto:
    """One node with its body; the matrix is stored in the file."""
    name, more = (NAMES[side], "") if scale is None else (f"{NAMES[side]}Int8", ", scale")
    text = f"""
    <ir_version: 8, opset_import: ["" : 17, "edgetk" : 1]>
    main (float[B, N, K] x) => (float[B, N, M] y) {{
        y = edgetk.{name} <width = {width}> (x, values, indices{more})
    }}
    """
    model = onnx.parser.parse_model(text)
    stored = {"values": values, "indices": indices} | ({} if scale is None else {"scale": scale})
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, name) for name, a in stored.items())
    return functions.attach(model)


def run(model: onnx.ModelProto, x: Array, library: Path | None = None) -> Array:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if library is not None:
        operators.register(options, library)
    made = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    y: Array = made.run(None, {"x": x})[0]
    return y


# --- what it computes


@pytest.mark.parametrize(("values", "scale"), [(VALUES, None), (CODES, SCALE)], ids=["float32", "int8"])
def test_by_hand(library: Path, isa: str, values: Array, scale: Array | None) -> None:
    z, x = np.array([[1.0, 10.0, 100.0]], np.float32), np.array([[1.0, 10.0]], np.float32)
    for side, given_x, expected in (("outputs", z, [200.5, 9.0]), ("inputs", x, [-9.5, 10.0, 2.0])):
        for tokens in (1, 5):  # one by one, and as a tile
            repeated = np.repeat(given_x, tokens, 0)
            model = graph(side, values, INDICES, 3, scale)
            for got in (
                kernel(library, isa, repeated, values, INDICES, 3, side, scale),
                run(model, repeated[None])[0],
                run(model, repeated[None], library)[0],
            ):
                assert got.tolist() == [expected] * tokens


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    lines=st.integers(1, 70),
    width=st.integers(1, 300),
    s=st.integers(1, 20),
    tokens=st.integers(1, 140),
    side=st.sampled_from(sorted(NAMES)),
)
def test_every_shape_and_instruction_set(
    library: Path, seed: int, lines: int, width: int, s: int, tokens: int, side: str
) -> None:
    x, values, indices, matrix = drawn(seed, lines, width, min(s, width), tokens, side)
    codes, scale, of_codes = coded(seed, values, indices, width)
    known = operators.isas(library)
    for rest, dense in (((values, indices, width, side), matrix), ((codes, indices, width, side, scale), of_codes)):
        results = [kernel(library, name, x, *rest) for name in known]
        exact = product(x, dense, side)
        np.testing.assert_allclose(results[0], exact, rtol=1e-4, atol=1e-4 * np.abs(exact).max())
        for name, result in zip(known, results, strict=True):  # no product is fused with a sum
            assert np.array_equal(result, results[0])
            alone = kernel(library, name, x[:1], *rest)
            assert np.array_equal(alone, kernel(library, "portable", x[:1], *rest))
            np.testing.assert_allclose(alone, exact[:1], rtol=1e-4, atol=1e-4 * np.abs(exact).max())


@pytest.mark.parametrize("side", sorted(NAMES))
@pytest.mark.parametrize("width", [96, 320])
def test_in_onnxruntime(library: Path, isa: str, side: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(operators.ISA_ENVIRONMENT, isa)
    x, values, indices, matrix = drawn(1, 40, width, 7, 2 * 19, side)
    codes, scale, of_codes = coded(1, values, indices, width)
    for rest, dense in (((values, indices, width), matrix), ((codes, indices, width, scale), of_codes)):
        model, exact = graph(side, *rest), product(x, dense, side).reshape(2, 19, -1)
        for got in (run(model, x.reshape(2, 19, -1)), run(model, x.reshape(2, 19, -1), library)):
            np.testing.assert_allclose(got, exact, rtol=1e-4, atol=1e-4)


# --- from torch to the file


class Net(nn.Module):
    """Two matrices that share a dictionary, and a tall one."""

    def __init__(self, grouped: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.tall = nn.Linear(8, 12), nn.Linear(8, 12, bias=False), nn.Linear(24, 8)
        groups = (
            Group(("one", "two"), "outputs", 8, 24, 6, 3, grouped),
            Group(("tall",), "inputs", 8, 24, 6, 2, grouped),
        )
        install(self, groups)
        for layer in (self.one, self.two, self.tall):
            layer.initialise()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.tall(torch.relu(torch.cat([self.one(x), self.two(x)], -1)))
        return y


def bundle(grouped: bool = False, integer: bool = False) -> Bundle:
    shape: tuple[int | str, ...] = ("batch", 5, 8)
    signature = Signature((TensorSpec("x", shape),), (TensorSpec("y", shape),))
    net = Net(grouped).eval()
    if integer:
        for layer in (net.one, net.two, net.tall):
            layer.sparse = QuantSparseFactor.of(layer.sparse)  # type: ignore[arg-type]
    return Bundle("net", net, signature)


@pytest.mark.parametrize("integer", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize("grouped", [False, True])
def test_layers_become_operators(library: Path, grouped: bool, integer: bool) -> None:
    low = lower(bundle(grouped, integer), target())[0]
    kinds, ending = [node.op_type for node in low.graph.graph.node], "Int8" if integer else ""
    assert kinds.count(f"DenseSparseMatMul{ending}") == 2
    assert kinds.count(f"DenseSparseMatMulByRow{ending}") == 1
    assert kinds.count("MatMul") == 2  # the shared dictionary once, and the tall layer's
    content = functions.attach(low.graph)
    for given_library in (None, library):
        assert parity.prove(low, content, operators=given_library).passed
    stored = {t.name: onnx.numpy_helper.to_array(t).dtype for t in low.graph.graph.initializer}
    assert {str(d) for n, d in stored.items() if n.endswith("indices")} == {"uint8"}
    assert {str(d) for n, d in stored.items() if n.endswith("values")} == {"int8" if integer else "float32"}


@pytest.mark.parametrize("integer", [False, True], ids=["float32", "int8"])
def test_counted_as_a_stock_runtime_runs_it_with_its_zeros(integer: bool) -> None:
    """Five tokens: (8 6 + 24 3) and (24 2 + 6 8) products with non-zeros; the zeros are counted too, and said to be such."""
    from edgetk.targets.count import count

    low = lower(bundle(integer=integer), target())[0]
    work = count(low.graph, low.signature)
    products = [op for op in work.ops if op.macs]
    assert work.unknown == ()
    assert sum(op.macs for op in products) == 5 * (8 * 6 + 24 * 6 + 24 * 6 + 6 * 8)
    assert round(sum(op.macs * (1 - op.sparsity) for op in products)) == 5 * (8 * 6 + 24 * 3 + 24 * 2 + 6 * 8)


@pytest.mark.parametrize("integer", [False, True], ids=["float32", "int8"])
def test_a_target_without_functions_gets_standard_operators(integer: bool) -> None:
    low = lower(bundle(integer=integer), target(ir_version=7))[0]
    assert {node.domain for node in low.graph.graph.node} <= {"", "ai.onnx"}
    assert parity.prove(low, low.graph).passed


# --- what is refused


def test_bad_indices_and_shapes_are_refused(library: Path, isa: str) -> None:
    x = np.ones((1, 3), np.float32)
    assert call(library, isa, x, VALUES, np.array([[0, 2], [1, 3]], np.uint8), 3, "outputs")[0] == 3
    assert call(library, isa, x, VALUES, np.array([[0, 2], [1, -1]], np.int16), 3, "outputs")[0] == 3
    assert call(library, "sse9", x, VALUES, INDICES, 3, "outputs")[0] == 2
    for values, indices, width, text in (
        (
            VALUES,
            np.array([[0, 2], [1, 3]], np.uint8),
            3,
            r"edgetk::DenseSparseMatMul: indices must be in \[0, width\), got one",
        ),
        (VALUES, INDICES.astype(np.int16), 3, "indices must be uint8 up to width 256, int16 above, got another type"),
        (VALUES, INDICES[:1], 3, r"values and indices \(lines, s\) must match, got other shapes"),
        (VALUES, INDICES, 4, "the last dimension of x must be that of the matrix, got another one"),
    ):
        with pytest.raises(Exception, match=text):
            run(graph("outputs", values, indices, width), x[None], library)
    with pytest.raises(Exception, match="scale must have a number for each line, got another shape"):
        run(graph("outputs", CODES, INDICES, 3, SCALE[:1]), x[None], library)
    with pytest.raises(Exception, match=r"width must be in \[1, 32767\], got another number"):
        run(graph("outputs", VALUES, INDICES, 40000), x[None], library)


def test_an_unknown_instruction_set_is_refused(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(operators.ISA_ENVIRONMENT, "sse9")
    with pytest.raises(Exception, match="EDGETK_ISA must be one of those of this processor"):
        run(graph("outputs", VALUES, INDICES, 3), np.ones((1, 1, 3), np.float32), library)


# --- another processor

CHECK = """
#include <stdlib.h>
#include <string.h>
#include "dense_sparse.h"
enum { LINES_ = 37, S = 9, MOST = 70 };
static float x[MOST * 330], values[LINES_ * S], scale[LINES_], a[MOST * 330], b[MOST * 330];
static int8_t codes[LINES_ * S];
static uint8_t narrow[LINES_ * S];
static int16_t wide[LINES_ * S];
static float number(void) { return (float)(rand() % 2001 - 1000) / 997.0f; }
int main(void) {
  for (int tokens = 1; tokens < MOST; tokens += 11) {
    for (int width = 33; width <= 330; width += 297) {
      for (int i = 0; i < MOST * 330; ++i) x[i] = number();
      for (int i = 0; i < LINES_ * S; ++i) {
        values[i] = number();
        wide[i] = (int16_t)(rand() % width);
        narrow[i] = (uint8_t)wide[i];
        codes[i] = (int8_t)(rand() % 255 - 127);
      }
      for (int i = 0; i < LINES_; ++i) scale[i] = number() / 99.0f;
      const int bytes = width <= 256 ? 1 : 2;
      const void *indices = bytes == 1 ? (const void *)narrow : (const void *)wide;
      for (int kind = 0; kind < 4; ++kind) {
        const int side = kind & 1;
        edgetk_sparse_product p = {x, values, NULL, indices, tokens, LINES_, width, S, bytes, side};
        if (kind & 2) p.values = codes, p.scale = scale;
        if (edgetk_dense_sparse(&p, a, "neon") || edgetk_dense_sparse(&p, b, "portable")) return 2;
        if (memcmp(a, b, (size_t)tokens * (side ? width : LINES_) * sizeof(float))) return 3;
      }
    }
  }
  return 0;
}
"""


def test_neon_equals_plain_c(tmp_path: Path) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64-static")
    if compiler is None:
        pytest.skip("no aarch64-linux-gnu-gcc here")
    (tmp_path / "check.c").write_text(CHECK)
    names = ("dense_sparse.c", "isa_neon.c", "isa_portable.c", "isa_choice.c")
    sources = [*(operators.SOURCES / name for name in names), tmp_path / "check.c"]
    flags = ["-std=c99", "-O2", "-ffp-contract=off", "-static", "-I", operators.SOURCES, "-o", tmp_path / "check"]
    subprocess.run([compiler, *flags, *sources], check=True)
    if emulator is None:
        pytest.skip("built, but no qemu-aarch64-static here to run it")
    assert subprocess.run([emulator, tmp_path / "check"], check=False).returncode == 0
