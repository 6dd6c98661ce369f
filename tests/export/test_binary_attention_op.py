"""edgetk::BinaryLinearAttention: body and kernels compute what torch computes, on every instruction set of this processor."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_toys import target
from hypothesis import given, settings
from hypothesis import strategies as st
from native_build import make
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Lowered
from edgetk.core.errors import InputError, PreconditionError
from edgetk.core.figures import Measured
from edgetk.core.signature import Signature, TensorSpec
from edgetk.export import functions, operators, parity
from edgetk.export.graph import opset_of
from edgetk.export.lower import lower
from edgetk.export.opset import fit
from edgetk.models.layers.binary_attention import NUMERATORS, binary_linear_attention

Array = np.ndarray
CODES = np.array([[[1, -1], [1, 1]]], np.float32)  # their products are 2, 0; 0, 2 and the weights 2 + 2 * 3 = 8
VALUES = np.array([[[3], [5]]], np.float32)
BY_HAND = {"own_token": [15 / 8, 25 / 8], "sum": [30 / 8, 34 / 8]}  # (2 * 3 + 3 * 3) / 8, …; (2 * 3 + 3 * 8) / 8, …


class Problem(ctypes.Structure):
    """`edgetk_attention` of binary_attention.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("queries", "keys", "values")),
        *((name, ctypes.c_int64) for name in ("heads", "tokens", "bits", "width")),
        ("numerator", ctypes.c_int32),
    )


def kernel(
    library: Path, isa: str, queries: Array, keys: Array, v: Array, numerator: str, parts: bool = False
) -> tuple[Array, Array]:
    """Outputs (H, N, d), or undivided numerators where `parts`, and denominators (H, N)."""
    (heads, tokens, bits), width = queries.shape, v.shape[-1]
    out, below = np.full((heads, tokens, width), np.nan, np.float32), np.full((heads, tokens), np.nan, np.float32)
    problem = Problem(*(x.ctypes.data for x in (queries, keys, v)), heads, tokens, bits, width, NUMERATORS.index(numerator))
    call = ctypes.CDLL(str(library)).edgetk_binary_attention
    pointers = [ctypes.c_void_p(out.ctypes.data), ctypes.c_void_p(below.ctypes.data if parts else None)]
    assert call(ctypes.byref(problem), *pointers, isa.encode()) == 0
    return out, below


def draw(seed: int, heads: int, tokens: int, bits: int, width: int, zeros: float = 0.0) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    shape = (heads, tokens, bits)
    codes = [(rng.choice([-1, 1], shape) * (rng.random(shape) >= zeros)).astype(np.float32) for _ in range(2)]
    return codes[0], codes[1], rng.standard_normal((heads, tokens, width)).astype(np.float32)


def by_torch(queries: Array, keys: Array, v: Array, numerator: str) -> Array:
    result: Array = binary_linear_attention(
        torch.from_numpy(queries), torch.from_numpy(v), numerator, keys=torch.from_numpy(keys)
    ).numpy()
    return result


def graph(numerator: str = "own_token", opset: int = 17) -> onnx.ModelProto:
    """One node with its body, in every shape of rank 4."""
    text = f"""
    <ir_version: 8, opset_import: ["" : {opset}, "edgetk" : 1]>
    main (float[B, H, N, b] queries, float[B, H, N, b] keys, float[B, H, N, d] values) => (float[B, H, N, d] attended) {{
        attended = edgetk.BinaryLinearAttention <numerator = "{numerator}"> (queries, keys, values)
    }}
    """
    return functions.attach(onnx.parser.parse_model(text))


def session(model: onnx.ModelProto, library: Path | None = None, optimised: Path | None = None) -> object:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    if library is not None:
        operators.register(options, library)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto, inputs: tuple[Array, ...], library: Path | None = None) -> Array:
    feeds = {v.name: x for v, x in zip(model.graph.input, inputs, strict=True)}
    result: Array = session(model, library).run(None, feeds)[0]  # type: ignore[attr-defined]
    return result


# --- what it computes


@pytest.mark.parametrize("numerator", NUMERATORS)
def test_body_by_hand(numerator: str) -> None:
    got = run(graph(numerator), (CODES[None], CODES[None], VALUES[None]))
    np.testing.assert_allclose(got[0, 0, :, 0], BY_HAND[numerator], rtol=1e-6)


@pytest.mark.parametrize("numerator", NUMERATORS)
def test_kernel_by_hand(library: Path, isa: str, numerator: str) -> None:
    got, _ = kernel(library, isa, CODES, CODES, VALUES, numerator)
    np.testing.assert_allclose(got[0, :, 0], BY_HAND[numerator], rtol=1e-6)
    above, below = kernel(library, isa, CODES, CODES, VALUES, numerator, parts=True)
    assert (above[0, :, 0] / below[0]).tolist() == BY_HAND[numerator]
    assert below.tolist() == [[8, 8]]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    heads=st.integers(1, 3),
    tokens=st.integers(1, 70),
    bits=st.one_of(st.just(16), st.integers(1, 40)),
    width=st.integers(1, 65),
    zeros=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    numerator=st.sampled_from(NUMERATORS),
    shared=st.booleans(),
)
def test_every_kernel_computes_what_torch_computes(
    library: Path, seed: int, heads: int, tokens: int, bits: int, width: int, zeros: float, numerator: str, shared: bool
) -> None:
    queries, keys, v = draw(seed, heads, tokens, bits, width, zeros)
    keys = queries if shared else keys
    outputs = [kernel(library, isa, queries, keys, v, numerator)[0] for isa in operators.isas(library)]
    expected = by_torch(queries, keys, v, numerator)
    for got in outputs:
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(v).max())
        np.testing.assert_array_equal(got, outputs[0])  # one order of summation, whatever the vectors' width


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    tokens=st.integers(1, 70),
    bits=st.integers(1, 32),
    zeros=st.sampled_from([0.0, 0.1, 1.0]),
    numerator=st.sampled_from(NUMERATORS),
)
def test_integers_are_exact(library: Path, seed: int, tokens: int, bits: int, zeros: float, numerator: str) -> None:
    queries, keys, _ = draw(seed, 1, tokens, bits, 1, zeros)
    q, k = queries[0].astype(np.int64), keys[0].astype(np.int64)
    products = q @ k.T
    bonus = np.eye(tokens, dtype=np.int64) if numerator == "own_token" else np.ones((tokens, tokens), np.int64)
    one_hot = np.eye(tokens, dtype=np.float32)[None]  # column j of the numerators is then q_n . k_j, and beta where it adds
    for isa in operators.isas(library):
        above, below = kernel(library, isa, queries, keys, one_hot, numerator, parts=True)
        np.testing.assert_array_equal(above[0], products + (bits + 1) * bonus)
        np.testing.assert_array_equal(below[0], (products + bits + 1).sum(1))
        assert (below > 0).all()


def test_weights_of_many_tokens_are_exact(library: Path, isa: str) -> None:
    queries, keys, v = draw(3, 1, 3136, 16, 32)
    exact = queries[0].astype(np.int64) @ keys[0].astype(np.int64).sum(0) + 3136 * 17
    np.testing.assert_array_equal(kernel(library, isa, queries, keys, v, "own_token", parts=True)[1][0], exact)


@pytest.mark.parametrize("odd", [0.5, np.nan])
def test_numbers_that_are_no_codes_are_computed_as_the_body_does(library: Path, isa: str, odd: float) -> None:
    queries, keys, v = draw(1, 2, 9, 16, 5)
    for codes in (queries, keys):
        mixed = codes.copy()
        mixed[0, 4, 7] = odd
        q, k = (mixed, keys) if codes is queries else (queries, mixed)
        got, _ = kernel(library, isa, q, k, v, "own_token")
        np.testing.assert_allclose(got, by_torch(q, k, v, "own_token"), rtol=0, atol=1e-5)
        assert np.isnan(got).any() == np.isnan(odd)


# --- in ONNX Runtime


@pytest.mark.parametrize("numerator", NUMERATORS)
@pytest.mark.parametrize(("shape", "zeros"), [((2, 3, 49, 16, 32), 0.0), ((1, 1, 13, 5, 7), 0.1), ((1, 2, 1, 16, 65), 0.0)])
def test_graph_gives_the_same_with_and_without_the_library(
    library: Path, isa: str, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], zeros: float, numerator: str
) -> None:
    monkeypatch.setenv(operators.ISA_ENVIRONMENT, isa)
    batch, heads, tokens, bits, width = shape
    inputs = tuple(x.reshape(batch, heads, tokens, -1) for x in draw(2, batch * heads, tokens, bits, width, zeros))
    model = graph(numerator)
    onnx.checker.check_model(model, full_check=True)
    body, native = run(model, inputs), run(model, inputs, library)
    expected = by_torch(*inputs, numerator)
    np.testing.assert_allclose(body, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(native, expected, rtol=0, atol=1e-5)
    flat = [x.reshape(-1, *x.shape[2:]) for x in inputs]
    np.testing.assert_array_equal(native.reshape(flat[2].shape), kernel(library, isa, *flat, numerator)[0])


def test_the_kernel_takes_the_place_of_the_body(library: Path, tmp_path: Path) -> None:
    for name, lib in (("body", None), ("native", library)):
        session(graph(), lib, tmp_path / f"{name}.onnx")
    kinds = {name: [n.op_type for n in onnx.load(tmp_path / f"{name}.onnx").graph.node] for name in ("body", "native")}
    assert kinds["native"] == ["BinaryLinearAttention"]
    assert "MatMul" in kinds["body"]


def test_what_the_operator_refuses(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = tuple(x[None] for x in draw(0, 1, 4, 3, 2))
    with pytest.raises(
        Exception, match=r"queries and keys \(..., N, b\) and values \(..., N, d\) must match, got other shapes"
    ):
        run(graph(), (inputs[0], inputs[1][:, :, :3], inputs[2]), library)
    wrong = graph()
    wrong.graph.node[0].attribute[0].s = b"half"
    with pytest.raises(Exception, match="numerator must be own_token or sum, got half"):
        session(wrong, library)
    monkeypatch.setenv(operators.ISA_ENVIRONMENT, "mmx")
    with pytest.raises(Exception, match=r"EDGETK_ISA must be one of those of this processor \(.*portable\), got mmx"):
        session(graph(), library)


def test_finding_the_library(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(operators.ENVIRONMENT, str(library))
    assert operators.library() == library.resolve()
    monkeypatch.setenv(operators.ENVIRONMENT, str(tmp_path / "none.so"))
    with pytest.raises(InputError, match="EDGETK_OPS: must name the operator library, got no file"):
        operators.library()
    monkeypatch.delenv(operators.ENVIRONMENT)
    monkeypatch.setattr("edgetk.__file__", str(tmp_path / "edgetk" / "__init__.py"))
    assert operators.library() is None
    built = tmp_path / "build" / "native" / operators.FILE
    built.parent.mkdir(parents=True)
    shutil.copy(library, built)
    assert operators.library() == built.resolve()


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    path = tmp_path / "text.so"
    path.write_text("text")
    with pytest.raises(InputError, match=r"text\.so: must be an operator library for this machine, got: .*; run: make native"):
        session(graph(), path)


# --- in exported graphs


class Layer(nn.Module):
    """Binary attention of two heads with a norm behind it."""

    def __init__(self, numerator: str) -> None:
        super().__init__()
        self.codes, self.value, self.norm, self.numerator = nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8), numerator

    def forward(self, x: Tensor) -> Tensor:
        codes, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in (torch.sign(self.codes(x)), self.value(x)))
        return self.norm(binary_linear_attention(codes, v, self.numerator).transpose(1, 2).flatten(2))


def bundle(numerator: str = "own_token") -> Bundle:
    torch.manual_seed(0)
    x, y = (TensorSpec(name, ("batch", 11, 8)) for name in ("x", "y"))
    return Bundle("layer", Layer(numerator).eval(), Signature((x,), (y,)))


@pytest.fixture(scope="module", params=NUMERATORS)
def lowered(request: pytest.FixtureRequest) -> Lowered:
    return lower(bundle(request.param), target(opset=18, ir_version=9))[0]


@pytest.mark.parametrize("version", [14, 16, 17, 18])
def test_lowered_graph_has_one_node_and_its_body_in_every_operator_set(lowered: Lowered, version: int) -> None:
    low = replace(lowered, graph=fit(lowered.graph, target(opset=version).stack, "layer"))
    onnx.checker.check_model(low.graph, full_check=True)
    kinds = [node.op_type for node in low.graph.graph.node]
    assert kinds.count("BinaryLinearAttention") == 1
    assert "ReduceSum" not in kinds
    (body,) = low.graph.functions
    assert opset_of(low.graph) == version == body.opset_import[0].version
    assert parity.prove(low, low.graph, 3).passed


def test_lowered_graph_with_the_library(lowered: Lowered, library: Path) -> None:
    proof = parity.prove(lowered, lowered.graph, 3, operators=library)
    assert proof.passed
    assert proof.runtime.endswith("operators of libedgetk_ops.so")


def test_meter_with_the_library(library: Path, tmp_path: Path) -> None:
    from edgetk.targets.meters.onnxruntime import OnnxRuntime

    path = tmp_path / "op.onnx"
    onnx.save(graph(), path)
    shapes = [("queries", 4), ("keys", 4), ("values", 3)]
    inputs = tuple(TensorSpec(name, (1, 1, 5, size)) for name, size in shapes)
    signature = Signature(inputs, (TensorSpec("attended", (1, 1, 5, 3)),))
    for meter, expected in ((OnnxRuntime(operators=library), operators.FILE), (OnnxRuntime(), None)):
        latency = meter.measure(path, signature, budget_s=0.05)[0]
        assert isinstance(latency, Measured)
        assert latency.conditions.get("operators") == expected
    with pytest.raises(InputError, match="must be an operator library for this machine"):
        OnnxRuntime(operators=path).measure(path, signature, budget_s=0.05)


def test_stacks_without_functions_get_standard_operators(lowered: Lowered) -> None:
    small = target(runtime="x-cube-ai").stack
    for graph in (lower(bundle(), target(runtime="x-cube-ai"))[0].graph, fit(lowered.graph, small, "layer")):
        assert not graph.functions
        assert not any(node.domain == "edgetk" for node in graph.graph.node)
    assert functions.kept_by(target(runtime="tensorrt").stack)
    assert not functions.kept_by(target(runtime="tensorrt", layer_norm=False).stack)
    assert functions.kept_by(target(layer_norm=False).stack)
    assert not functions.kept_by(target(ir_version=7).stack)
    assert not functions.kept_by(target(opset=12).stack)
    assert not functions.kept_by(target(operators=("MatMul",)).stack)


def test_conversion_inlines_the_users_functions_and_keeps_ours() -> None:
    model = graph(opset=18)
    text = '<opset_import: ["" : 18], domain: "mine"> Twice (x) => (y) { y = Add (x, x) }'
    model.functions.append(onnx.parser.parse_function(text))
    model.graph.node.append(onnx.helper.make_node("Twice", ["attended"], ["twice"], domain="mine"))
    model.opset_import.append(onnx.helper.make_opsetid("mine", 1))
    model.graph.output[0].name = "twice"
    assert fit(model, target(opset=18).stack, "mine") is model
    older = fit(model, target(opset=17).stack, "mine")
    assert [node.op_type for node in older.graph.node] == ["BinaryLinearAttention", "Add"]
    assert [(f.name, f.opset_import[0].version) for f in older.functions] == [("BinaryLinearAttention", 17)]
    inputs = tuple(x[None] for x in draw(0, 1, 4, 3, 2))
    np.testing.assert_array_equal(run(older, inputs), run(model, inputs))


def test_nodes_that_no_body_fits() -> None:
    model = graph()
    model.graph.node[0].attribute[0].s = b"half"
    with pytest.raises(PreconditionError, match="must have a numerator of own_token, sum, got 'half'; export it again"):
        functions.attach(model)
    model = graph()
    other = onnx.helper.make_node(
        "BinaryLinearAttention", ["queries", "keys", "values"], ["b"], domain="edgetk", numerator="sum"
    )
    model.graph.node.append(other)
    with pytest.raises(PreconditionError, match="nodes of a graph must have the same attributes, got 2 kinds; use one kind"):
        functions.attach(model)


# --- the sources on other machines


def test_sources_build_with_the_runtimes_own_header(tmp_path: Path) -> None:
    roots = [Path(r) for r in (os.environ.get("ONNXRUNTIME_ROOT"), "/usr", "/usr/local") if r]
    names = ("include/onnxruntime_c_api.h", "include/onnxruntime/onnxruntime_c_api.h")
    root = next((r for r in roots if any((r / n).is_file() for n in names)), None)
    if root is None:
        pytest.skip("no onnxruntime_c_api.h here; ONNXRUNTIME_ROOT names a folder that has it")
    built = make(tmp_path, f"ONNXRUNTIME_ROOT={root}", "CFLAGS=-O1 -Werror")
    inputs = tuple(x[None] for x in draw(0, 1, 4, 3, 2))
    np.testing.assert_allclose(run(graph(), inputs, built), run(graph(), inputs), rtol=0, atol=1e-5)


CHECK = """
#include "binary_attention.h"
#include <string.h>
int main(void) {
  enum { N = 37, B = 16, D = 33 };
  static float q[N * B], v[N * D], a[N * D], b[N * D];
  for (int i = 0; i < N * B; ++i) q[i] = (float)(i * i % 7 % 3 - 1);
  for (int i = 0; i < N * D; ++i) v[i] = (float)(i % 101) / 7.0f - 6.0f;
  const edgetk_attention problem = {q, q, v, 1, N, B, D, EDGETK_OWN_TOKEN};
  if (edgetk_binary_attention(&problem, a, 0, "neon")) return 2;
  if (edgetk_binary_attention(&problem, b, 0, "portable")) return 3;
  return memcmp(a, b, sizeof a) != 0;
}
"""


def test_sources_build_for_arm_and_neon_equals_plain_c(tmp_path: Path) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64-static")
    if compiler is None:
        pytest.skip("no aarch64-linux-gnu-gcc here")
    make(tmp_path, f"CC={compiler}", "CFLAGS=-O1 -Werror")
    (tmp_path / "check.c").write_text(CHECK)
    sources = [*operators.SOURCES.glob("isa_*.c"), operators.SOURCES / "binary_attention.c", tmp_path / "check.c"]
    flags = ["-std=c99", "-O1", "-ffp-contract=off", "-static", "-I", operators.SOURCES, "-o", tmp_path / "check"]
    subprocess.run([compiler, *flags, *sources], check=True)
    if emulator is None:
        pytest.skip("built, but no qemu-aarch64-static here to run it")
    assert subprocess.run([emulator, tmp_path / "check"], check=False).returncode == 0
