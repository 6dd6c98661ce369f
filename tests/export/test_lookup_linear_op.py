"""edgetk::LookupLinear: body and kernels compute what torch computes, integers to the last bit whatever the order of loops."""

from __future__ import annotations

import ctypes
import itertools
import shutil
import subprocess
import threading
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
from edgetk.core.errors import PreconditionError
from edgetk.core.signature import Signature, TensorSpec
from edgetk.export import functions, operators, parity
from edgetk.export.lower import lower
from edgetk.models.layers.memory_hash import WEIGHTINGS
from edgetk.models.layers.memory_layer import MemoryLayer, QuantMemoryLayer
from edgetk.targets.count import count

Array = np.ndarray
ORDERS = {"auto": 0, "tokens": 1, "tables": 2}


class Problem(ctypes.Structure):
    """`edgetk_lookup` of lookup_linear.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "rows", "scale", "bias")),
        *((name, ctypes.c_int64) for name in ("tokens", "tables", "bits", "outputs")),
        ("temperature", ctypes.c_float),
        ("weighting", ctypes.c_int32),
    )


def kernel(
    library: Path, isa: str, layer: QuantMemoryLayer, x: Array, order: str = "auto", shares: list[tuple[int, ...]] | None = None
) -> Array:
    """Outputs (N, h); with `shares`, each computed by a thread of its own."""
    kept = [np.ascontiguousarray(t.numpy()) for t in (layer.weight, layer.scale, layer.bias)]
    out = np.full((len(x), layer.out_features), -77.0, np.float32)
    problem = Problem(
        x.ctypes.data, *(t.ctypes.data for t in kept), len(x), layer.count, layer.bits, layer.out_features,
        layer.temperature, WEIGHTINGS.index(layer.weighting),
    )  # fmt: skip
    call = ctypes.CDLL(str(library)).edgetk_lookup_linear
    results = []

    def run(share: tuple[int, ...] | None) -> None:
        part = (ctypes.c_int64 * 4)(*share) if share else None
        results.append(call(ctypes.byref(problem), ctypes.c_void_p(out.ctypes.data), part, ORDERS[order], isa.encode()))

    threads = [threading.Thread(target=run, args=(share,)) for share in shares or [None]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [0] * len(threads)
    return out


def packed(seed: int, count: int, bits: int, outputs: int, weighting: str = "p", temperature: float = 1.0) -> QuantMemoryLayer:
    torch.manual_seed(seed)
    layer = MemoryLayer(count * bits, outputs, bits, weighting, temperature, std=1.0)  # type: ignore[arg-type]
    nn.init.normal_(layer.bias)
    return QuantMemoryLayer.of(layer)


def tokens(seed: int, n: int, inputs: int) -> Array:
    return np.random.default_rng(seed).standard_normal((n, inputs)).astype(np.float32)


def of_integers(layer: QuantMemoryLayer) -> QuantMemoryLayer:
    """The same tables without scale and bias, so that outputs are the sums as far as float32 holds them."""
    layer.scale.fill_(2.0 ** (14 if layer.weighting in ("p", "one") else 11))
    layer.bias.zero_()
    return layer


def graph(layer: QuantMemoryLayer) -> onnx.ModelProto:
    """One node with its body, for x (B, N, inputs)."""
    inputs, outputs = layer.in_features, layer.out_features
    node = onnx.helper.make_node(
        "LookupLinear", ["x", "tables", "scale", "bias"], ["y"], domain="edgetk", weighting=layer.weighting,
        temperature=layer.temperature, powers=[2.0**i for i in range(layer.bits)],
        offsets=[k * 2**layer.bits for k in range(layer.count)],
    )  # fmt: skip
    value = onnx.helper.make_tensor_value_info
    stored = {"tables": layer.weight, "scale": layer.scale, "bias": layer.bias}
    made = onnx.helper.make_graph(
        [node],
        "lookup",
        [value("x", onnx.TensorProto.FLOAT, ["B", "N", inputs])],
        [value("y", onnx.TensorProto.FLOAT, ["B", "N", outputs])],
        [onnx.numpy_helper.from_array(t.numpy(), name) for name, t in stored.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("edgetk", 1)]
    return functions.attach(onnx.helper.make_model(made, opset_imports=opsets, ir_version=8))


def run(model: onnx.ModelProto, x: Array, library: Path | None = None) -> Array:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if library is not None:
        operators.register(options, library)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: Array = session.run(None, {"x": x})[0]
    return result


# --- what it computes


def by_hand() -> tuple[QuantMemoryLayer, Array]:
    layer = QuantMemoryLayer(4, 3, 2, "l1")
    layer.weight.copy_(torch.arange(24).view(2, 4, 3))
    layer.scale.copy_(torch.tensor([1.0, 2.0, 0.5]))
    layer.bias.copy_(torch.tensor([0.0, 10.0, 100.0]))
    # [1, -2] names row 1 of the first table with weight 3, [-1, 4] row 2 of the second with weight 5:
    # 3 * (3, 4, 5) + 5 * (18, 19, 20) = (99, 107, 115)
    return layer, np.array([[1, -2, -1, 4]], np.float32)


def test_kernel_by_hand(library: Path, isa: str) -> None:
    layer, x = by_hand()
    assert kernel(library, isa, layer, x).tolist() == [[99.0, 2 * 107.0 + 10, 115.0 / 2 + 100]]
    assert layer(torch.from_numpy(x)).tolist() == [[99.0, 224.0, 157.5]]


def test_body_by_hand() -> None:
    layer, x = by_hand()
    assert run(graph(layer), x[None]).tolist() == [[[99.0, 224.0, 157.5]]]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.one_of(st.just(1), st.integers(1, 150)),
    count=st.integers(1, 20),
    bits=st.integers(1, 10),
    outputs=st.one_of(st.sampled_from([64, 128]), st.integers(1, 150)),
    weighting=st.sampled_from(WEIGHTINGS),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_every_kernel_in_every_order_gives_the_same_bits_and_what_torch_gives(
    library: Path, seed: int, n: int, count: int, bits: int, outputs: int, weighting: str, temperature: float
) -> None:
    layer, x = packed(seed, count, bits, outputs, weighting, temperature), tokens(seed, n, count * bits)
    first = kernel(library, "portable", layer, x, "tokens")
    every = operators.isas(library)
    every = (*every, "avx512bw") if "avx512" in every else every  # AVX-512 without VNNI, where "avx512" may use that
    for isa, order in itertools.product(every, ORDERS):
        np.testing.assert_array_equal(kernel(library, isa, layer, x, order), first)
    expected = layer(torch.from_numpy(x)).numpy()
    # a weight may be rounded to the code beside, which is one row more or less of each table
    step = 127 * layer.scale.numpy() * 2.0 ** -(14 if weighting in ("p", "one") else 11) * count
    np.testing.assert_allclose(first, expected, rtol=1e-6, atol=float(step.max()) + 1e-6)
    assert np.mean(np.abs(first - expected) > 1e-6 * np.abs(expected).max()) < 0.2


def test_weights_are_rarely_rounded_otherwise_than_by_torch(library: Path) -> None:
    layer, x = packed(0, 1, 8, 1), tokens(1, 20_000, 8)
    layer = of_integers(layer)
    layer.weight.fill_(1)
    codes = kernel(library, "portable", layer, x)[:, 0]
    _, expected = layer.codes(torch.from_numpy(x))
    difference = np.abs(codes - expected[:, 0].numpy())
    assert difference.max() <= 1
    assert difference.mean() < 0.005


def test_sums_are_exact_at_the_most_tables(library: Path, isa: str) -> None:
    for weighting, most in (("one", 1032), ("l1", 516)):
        layer = of_integers(packed(0, most, 1, 3, weighting))
        layer.weight.fill_(127)
        x = np.full((2, most), 100.0, np.float32)
        code = 16384 if weighting == "one" else 32767
        assert kernel(library, isa, layer, x).tolist() == [[float(np.float32(127 * code * most))] * 3] * 2


@pytest.mark.parametrize("n", [1, 70])
def test_threads_take_shares_and_change_no_bit(library: Path, isa: str, n: int) -> None:
    layer, x = packed(3, 24, 4, 200, "l1p"), tokens(3, n, 96)
    expected = kernel(library, isa, layer, x)
    columns = [(0, n, first, min(first + 64, 200)) for first in range(0, 200, 64)]
    odd = [(0, n, 0, 37), (0, n, 37, 38), (0, n, 38, 200)]
    rows = [(first, min(first + 23, n), 0, 200) for first in range(0, n, 23)]
    for shares, order in itertools.product((columns, odd, rows), ORDERS):
        np.testing.assert_array_equal(kernel(library, isa, layer, x, order, shares), expected)


def test_a_share_writes_nothing_else(library: Path, isa: str) -> None:
    layer, x = packed(0, 4, 4, 100), tokens(0, 9, 16)
    out = kernel(library, isa, layer, x, shares=[(2, 5, 10, 90)])
    inside = np.zeros(out.shape, bool)
    inside[2:5, 10:90] = True
    assert (out[~inside] == -77).all()
    np.testing.assert_array_equal(out[inside], kernel(library, isa, layer, x)[inside])
    assert (kernel(library, isa, layer, x, shares=[(3, 3, 0, 100)]) == -77).all()


def test_zeros_and_their_signs_and_very_large_numbers(library: Path, isa: str) -> None:
    layer = packed(1, 2, 4, 20)
    x = np.array([[0.0, -0.0, 1e-30, -1e-30, 3e38, -3e38, np.inf, -np.inf]], np.float32)
    expected = layer(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(kernel(library, isa, layer, x), expected, rtol=1e-6)


@pytest.mark.parametrize("weighting", ["p", "l1p", "l1"])
def test_a_token_that_is_no_number_gives_none_and_spoils_no_other(library: Path, isa: str, weighting: str) -> None:
    layer, x = packed(1, 3, 4, 70, weighting), tokens(1, 12, 12)
    expected = kernel(library, isa, layer, x)
    x[5, 7] = np.nan
    out = kernel(library, isa, layer, x)
    assert np.isnan(out[5]).all()
    np.testing.assert_array_equal(np.delete(out, 5, 0), np.delete(expected, 5, 0))
    assert np.isnan(run(graph(layer), x[None])[0, 5]).all()


# --- in ONNX Runtime


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_graph_gives_the_same_with_and_without_the_library(
    library: Path, isa: str, monkeypatch: pytest.MonkeyPatch, weighting: str
) -> None:
    monkeypatch.setenv(operators.ISA_ENVIRONMENT, isa)
    layer, x = packed(5, 12, 4, 50, weighting, 1.5), tokens(5, 22, 48)
    model = graph(layer)
    onnx.checker.check_model(model, full_check=True)
    native, body = run(model, x.reshape(2, 11, 48), library), run(model, x.reshape(2, 11, 48))
    np.testing.assert_array_equal(native.reshape(22, 50), kernel(library, isa, layer, x))
    np.testing.assert_allclose(body, native, rtol=0, atol=2e-4 * np.abs(native).max())


def test_what_the_operator_refuses(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = packed(0, 2, 4, 3)
    model = graph(layer)
    attributes = {a.name: a for a in model.graph.node[0].attribute}
    attributes["weighting"].s = b"half"
    with pytest.raises(Exception, match="LookupLinear: weighting must be p, l1p, l1 or one, got half"):
        run(model, tokens(0, 1, 8)[None], library)
    model = graph(layer)
    next(a for a in model.graph.node[0].attribute if a.name == "temperature").f = 0.0
    with pytest.raises(Exception, match="LookupLinear: temperature must be above 0, got another number"):
        run(model, tokens(0, 1, 8)[None], library)
    for field, wrong, text in (
        ("weight", torch.zeros(2, 12, 3, dtype=torch.int8), r"tables must be \(K, 2\^bits, h\) with 1 to 16 bits"),
        ("scale", torch.ones(4), r"x \(..., K \* bits\), scale and bias \(h\) must match tables"),
        ("weight", torch.zeros(3, 16, 3, dtype=torch.int8), r"x \(..., K \* bits\), scale and bias \(h\) must match tables"),
    ):
        other = packed(0, 2, 4, 3)
        setattr(other, field, wrong)
        with pytest.raises(Exception, match=f"LookupLinear: {text}"):
            run(graph(other), tokens(0, 1, 8)[None], library)
    many = packed(0, 516, 1, 1, "l1p")
    many.weight, many.in_features = torch.zeros(517, 2, 1, dtype=torch.int8), 517
    with pytest.raises(Exception, match=r"LookupLinear: tables must be at most 1032 \(p, one\) or 516, or sums overflow"):
        run(graph(many), tokens(0, 1, 517)[None], library)
    monkeypatch.setenv(operators.ISA_ENVIRONMENT, "mmx")
    with pytest.raises(Exception, match=r"LookupLinear: EDGETK_ISA must be one of those of this processor \(.*\), got mmx"):
        run(graph(layer), tokens(0, 1, 8)[None], library)


# --- in exported graphs


class Net(nn.Module):
    """Two memory layers with a norm between."""

    def __init__(self, quantized: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.second = MemoryLayer(12, 20, 3, std=1.0), nn.LayerNorm(20), MemoryLayer(20, 7, 4, std=1.0)
        nn.init.normal_(self.first.bias)
        if quantized:
            self.first, self.second = QuantMemoryLayer.of(self.first), QuantMemoryLayer.of(self.second)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.norm(self.first(x)))
        return y


def bundle(quantized: bool) -> Bundle:
    x, y = TensorSpec("x", ("batch", 11, 12)), TensorSpec("y", ("batch", 11, 7))
    return Bundle("net", Net(quantized).eval(), Signature((x,), (y,)))


@pytest.fixture(scope="module")
def lowered() -> dict[bool, Lowered]:
    return {quantized: lower(bundle(quantized), target(opset=18, ir_version=9))[0] for quantized in (False, True)}


def test_lowered_graph_has_one_node_for_each_layer(lowered: dict[bool, Lowered], library: Path) -> None:
    for quantized, name in ((True, "LookupLinear"), (False, "LookupLinearFloat")):
        low = lowered[quantized]
        onnx.checker.check_model(low.graph, full_check=True)
        assert [n.op_type for n in low.graph.graph.node if n.domain == "edgetk"] == [name, name]
        assert [f.name for f in low.graph.functions] == [name]
        assert low.hashed
        assert low.precision == ("int8" if quantized else "float32")
        assert parity.prove(low, low.graph, 3).max_abs < 1e-3
    assert parity.prove(lowered[True], lowered[True].graph, 3, operators=library).max_abs < 1e-3
    stored = {t.name: t.data_type for t in lowered[True].graph.graph.initializer}
    assert list(stored.values()).count(onnx.TensorProto.INT8) == 2


def test_work_is_counted_as_the_paper_counts_it(lowered: dict[bool, Lowered]) -> None:
    for quantized, entry in ((False, 4), (True, 1)):
        work = count(lowered[quantized].graph, lowered[quantized].signature)
        assert work.unknown == ()
        assert work.macs == 11 * (4 * (3 + 20) + 5 * (4 + 7))
        tables = 4 * 8 * 20 + 5 * 16 * 7
        assert tables * entry < work.weight_bytes < tables * entry + 700


def test_stacks_without_functions_get_standard_operators(lowered: dict[bool, Lowered]) -> None:
    for quantized in (False, True):
        low = lower(bundle(quantized), target(runtime="x-cube-ai"))[0]
        assert not low.graph.functions
        assert not any(node.domain == "edgetk" for node in low.graph.graph.node)
        x = parity.random_inputs(low.signature, 2)
        assert low.reference is not None
        np.testing.assert_allclose(parity.run_once(low.graph.SerializeToString(), x)[0], low.reference(*x)[0], atol=1e-3)


def test_nodes_that_no_body_fits() -> None:
    for name in ("LookupLinear", "LookupLinearFloat"):
        with pytest.raises(PreconditionError, match=f"{name} must have a weighting of p, l1p, l1, one, got 'half'; export"):
            functions.BODIES[name]({"weighting": "half"})


# --- the sources on other machines

CHECK = """
#include "lookup_linear.h"
#include <string.h>
int main(void) {
  enum { N = 19, K = 7, BITS = 5, H = 83 };
  static float x[N * K * BITS], scale[H], bias[H], a[N * H], b[N * H];
  static signed char rows[K << BITS][H];
  for (int i = 0; i < N * K * BITS; ++i) x[i] = (float)(i * i % 113) / 40.0f - 1.4f;
  for (int i = 0; i < (K << BITS) * H; ++i) rows[i / H][i % H] = (signed char)(i * 7 % 255 - 127);
  for (int i = 0; i < H; ++i) scale[i] = 0.01f * (float)i, bias[i] = (float)i;
  for (int weighting = 0; weighting < 4; ++weighting) {
    const edgetk_lookup problem = {x, rows[0], scale, bias, N, K, BITS, H, 1.3f, weighting};
    if (edgetk_lookup_linear(&problem, a, 0, EDGETK_TOKENS, "neon")) return 2;
    if (edgetk_lookup_linear(&problem, b, 0, EDGETK_TABLES, "portable")) return 3;
    if (memcmp(a, b, sizeof a)) return 4;
  }
  return 0;
}
"""


def test_sources_build_for_arm_and_neon_equals_plain_c(tmp_path: Path) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64-static")
    if compiler is None:
        pytest.skip("no aarch64-linux-gnu-gcc here")
    make(tmp_path, f"CC={compiler}", "CFLAGS=-O1 -Werror")
    (tmp_path / "check.c").write_text(CHECK)
    sources = [*operators.SOURCES.glob("lookup_*.c"), operators.SOURCES / "isa_choice.c", tmp_path / "check.c"]
    flags = ["-std=c99", "-O2", "-ffp-contract=off", "-static", "-I", operators.SOURCES, "-o", tmp_path / "check"]
    subprocess.run([compiler, *flags, *sources], check=True)
    if emulator is None:
        pytest.skip("built, but no qemu-aarch64-static here to run it")
    assert subprocess.run([emulator, tmp_path / "check"], check=False).returncode == 0
