"""edgetk::HardAttention: body and kernels compute what torch computes, on every instruction set of this processor."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetk.export import functions, operators, parity
from edgetk.export.lower import lower
from edgetk.models import dsformer
from edgetk.models.layers.hard_attention import mix, product_macs
from edgetk.models.layers.operators import as_nodes
from edgetk.targets import board
from edgetk.targets.count import count

Array = np.ndarray
#: two of three weights stay; of the equal ones in the second row the first
WEIGHTS = np.array([[[0.5, 0.125, 0.25], [0.25, 0.5, 0.25]]], np.float32)
VALUES = np.array([[[8], [16], [32]]], np.float32)
BY_HAND = [0.5 * 8 + 0.25 * 32, 0.25 * 8 + 0.5 * 16]


class Problem(ctypes.Structure):
    """`edgetk_hard_problem` of hard_attention.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weights", "values", "out")),
        *((name, ctypes.c_int64) for name in ("heads", "queries", "tokens", "width", "keep")),
    )


def kernel(library: Path, isa: str, weights: Array, values: Array, keep: int) -> Array:
    """weights (H, N, M), values (H, M, d) -> (H, N, d)."""
    (heads, queries, tokens), width = weights.shape, values.shape[-1]
    out = np.full((heads, queries, width), 7.0, np.float32)
    pointers = [x.ctypes.data for x in (weights, values, out)]
    problem = Problem(*pointers, heads, queries, tokens, width, keep)
    assert ctypes.CDLL(str(library)).edgetk_hard_attention(ctypes.byref(problem), isa.encode()) == 0
    return out


def by_torch(weights: Array, values: Array, keep: int) -> Array:
    result: Array = mix(torch.from_numpy(weights).double(), torch.from_numpy(values).double(), keep).numpy()
    return result


def graph(keep: int = 2, opset: int = 17) -> onnx.ModelProto:
    text = f"""
    <ir_version: 8, opset_import: ["" : {opset}, "edgetk" : 1]>
    main (float[B, H, N, M] weights, float[B, H, M, d] values) => (float[B, H, N, d] attended) {{
        attended = edgetk.HardAttention <keep = {keep}, kept = [{keep}]> (weights, values)
    }}
    """
    return functions.attach(onnx.parser.parse_model(text))


def run(model: onnx.ModelProto, weights: Array, values: Array, library: Path | None = None) -> Array:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if library is not None:
        operators.register(options, library)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: Array = session.run(None, {"weights": weights, "values": values})[0]
    return result


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_body_by_hand(opset: int) -> None:
    model = graph(opset=opset)
    onnx.checker.check_model(model, full_check=True)
    assert run(model, WEIGHTS[None], VALUES[None])[0, 0, :, 0].tolist() == BY_HAND


def test_kernel_by_hand(library: Path, isa: str) -> None:
    assert kernel(library, isa, WEIGHTS, VALUES, 2)[0, :, 0].tolist() == BY_HAND
    assert kernel(library, isa, WEIGHTS, VALUES, 3)[0, :, 0].tolist() == [14.0, 18.0]
    assert kernel(library, isa, WEIGHTS, VALUES, 9)[0, :, 0].tolist() == [14.0, 18.0]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    queries=st.integers(1, 9),
    tokens=st.integers(1, 150),
    width=st.integers(1, 70),
    keep=st.integers(1, 40),
    kind=st.sampled_from(["softmax", "sharp", "levels", "zeros", "any"]),
)
def test_every_kernel_computes_what_torch_computes(
    library: Path, seed: int, queries: int, tokens: int, width: int, keep: int, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((2, queries, tokens))
    if kind in ("softmax", "sharp"):
        weights = np.exp(weights * (1 if kind == "softmax" else 20))
        weights /= weights.sum(-1, keepdims=True)
    elif kind == "levels":  # a few numbers only: equal ones everywhere
        weights = np.round(weights * 2) / 8
    elif kind == "zeros":
        weights = np.maximum(weights - 1, 0)
    weights = weights.astype(np.float32)
    values = rng.standard_normal((2, tokens, width)).astype(np.float32)
    outputs = [kernel(library, isa, weights, values, keep) for isa in operators.isas(library)]
    bound = 1e-6 * np.abs(weights).sum(-1).max() * np.abs(values).max()
    np.testing.assert_allclose(outputs[0], by_torch(weights, values, keep), rtol=0, atol=bound)
    for got in outputs:
        np.testing.assert_array_equal(got, outputs[0])


def test_infinite_weights_and_those_that_are_no_numbers(library: Path, isa: str) -> None:
    inf = np.float32(np.inf)
    weights = np.array([[[1, np.nan, 2, 3], [-inf, -inf, 1, -inf], [inf, 1, 2, -3], [-0.0, 0.0, -1, -2]]], np.float32)
    values = np.array([[[1], [2], [4], [8]]], np.float32)
    got = kernel(library, isa, weights, values, 2)[0, :, 0]
    assert np.isnan(got[0])
    assert got[1:].tolist() == [-inf, inf, 0.0]
    got = kernel(library, isa, weights, values, 1)[0, :, 0]
    assert got[1:].tolist() == [4.0, inf, 0.0]


def test_graph_gives_the_same_with_and_without_the_library(library: Path, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(operators.ISA_ENVIRONMENT, isa)
    rng = np.random.default_rng(1)
    weights = torch.from_numpy(rng.standard_normal((2, 3, 11, 40), np.float32)).softmax(-1).numpy()
    values = rng.standard_normal((2, 3, 40, 33), np.float32)
    body, native = run(graph(30), weights, values), run(graph(30), weights, values, library)
    np.testing.assert_allclose(body, by_torch(weights, values, 30), rtol=0, atol=1e-6)
    np.testing.assert_allclose(native, body, rtol=0, atol=1e-6)


def test_what_the_operator_refuses(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match=r"weights \(\.\.\., N, M\) and values \(\.\.\., M, d\) must match, got other shapes"):
        run(graph(), WEIGHTS[None], VALUES[None, :, :2], library)
    with pytest.raises(Exception, match="edgetk::HardAttention: keep must be at least 1, got a smaller number"):
        run(graph(0), WEIGHTS[None], VALUES[None], library)
    monkeypatch.setenv(operators.ISA_ENVIRONMENT, "mmx")
    with pytest.raises(Exception, match=r"edgetk::HardAttention: EDGETK_ISA must be one of those of this processor"):
        run(graph(), WEIGHTS[None], VALUES[None], library)


# --- in exported graphs


def test_an_exported_encoder_computes_the_sparse_product(library: Path) -> None:
    """n = 20 tokens in 4 heads of 4, the first of two layers hard: the counter sees n K d there instead of n n d a head."""
    torch.manual_seed(0)
    bundle = dsformer.build("tiny", vocabulary=50, length=20, positions=20, dim=16, heads=4, ffn=8)
    bundle.module.layers[0].attention.hard = 6
    low = lower(bundle, board.load("host"))[0]
    assert [node.op_type for node in low.graph.graph.node].count("HardAttention") == 1
    counted = count(low.graph)
    assert counted.unknown == ()
    products = [op.macs for op in counted.ops if op.kind == "MatMul" and not op.weight_bytes]
    dense, sparse = 4 * 20 * 20 * 4, 4 * 20 * 6 * 4
    assert sparse == 4 * product_macs(20, 4, 6)
    assert products == [dense, sparse, dense, dense]
    random = np.random.default_rng(0).integers(1, 50, (3, 20)).astype(np.float32)
    for native in (None, library):
        assert parity.prove(low, low.graph, [random], operators=native).passed
    assert low.hashed


def test_as_many_weights_as_tokens_need_no_operator() -> None:
    weights, values = torch.from_numpy(WEIGHTS[None]), torch.from_numpy(VALUES[None])
    with as_nodes():
        assert torch.equal(mix(weights, values, 3), weights @ values)
        assert torch.equal(mix(weights, values), weights @ values)


CHECK = """
#include "hard_attention.h"
#include <string.h>
int main(void) {
  enum { N = 37, D = 33 };
  static float w[N * N], v[N * D], a[N * D], b[N * D];
  for (int i = 0; i < N * N; ++i) w[i] = (float)(i * i % 101) / 101.0f;
  for (int i = 0; i < N * D; ++i) v[i] = (float)(i % 101) / 7.0f - 6.0f;
  edgetk_hard_problem problem = {w, v, a, 1, N, N, D, 9};
  if (edgetk_hard_attention(&problem, "neon")) return 2;
  problem.out = b;
  if (edgetk_hard_attention(&problem, "portable")) return 3;
  return memcmp(a, b, sizeof a) != 0;
}
"""


def test_neon_equals_plain_c(tmp_path: Path) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64-static")
    if compiler is None or emulator is None:
        pytest.skip("needs aarch64-linux-gnu-gcc and qemu-aarch64-static")
    (tmp_path / "check.c").write_text(CHECK)
    sources = [*operators.SOURCES.glob("isa_*.c"), operators.SOURCES / "hard_attention.c", tmp_path / "check.c"]
    flags = ["-std=c99", "-O0", "-ffp-contract=off", "-static", "-I", operators.SOURCES, "-o", tmp_path / "check"]
    subprocess.run([compiler, *flags, *sources, "-lm"], check=True)
    assert subprocess.run([emulator, tmp_path / "check"], check=False).returncode == 0


def test_an_instruction_set_that_is_none(library: Path) -> None:
    problem = Problem(WEIGHTS.ctypes.data, VALUES.ctypes.data, WEIGHTS.copy().ctypes.data, 1, 2, 3, 1, 2)
    assert ctypes.CDLL(str(library)).edgetk_hard_attention(ctypes.byref(problem), b"mmx") == 2  # EDGETK_NO_SUCH_ISA
