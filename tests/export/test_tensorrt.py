"""The TensorRT exporter: graphs for each version, float16 in the graph, and what is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
from export_toys import causal
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetk.core import registry
from edgetk.core.artifact import Parity
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Lowered
from edgetk.core.errors import PreconditionError
from edgetk.core.signature import Signature, TensorSpec
from edgetk.core.target import Stack, Target
from edgetk.export import functions, parity, tensorrt_graph, to_tensorrt
from edgetk.export import graph as graphs
from edgetk.export.lower import lower
from edgetk.export.tensorrt_half import half
from edgetk.export.tensorrt_versions import Version, operators, version_of
from edgetk.export.to_tensorrt import EXPORTER

NEW, OLD = "TensorRT 10.3, JetPack 6.2", "TensorRT 8.5, JetPack 5.1"


def stack(name: str = NEW, runtime: str = "tensorrt") -> Stack:
    return Stack(name, runtime, exports=("onnx", "tensorrt"))


def jetson(name: str = NEW) -> Target:
    return Target("toy", "a toy board", "gpu", "as it is", stack(name), 1e9, 1, {}, 1e9, 2**30, 2**30)


@cache
def toy() -> tuple[Bundle, tuple[Lowered, ...]]:
    """A small model with both forms, lowered once for all tests."""
    bundle = causal()
    return bundle, tuple(lower(bundle, jetson()))


def form(text: str, **weights: np.ndarray) -> Lowered:
    """A lowered graph from ONNX text; `weights` become initializers."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17, "edgetk" : 1]>\n{text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    signature = graphs.signature_of(model)
    precision = graphs.precision_of(model)
    return Lowered("clip", model, signature, precision, lambda *x: parity.run_once(model.SerializeToString(), x))


def fitted(low: Lowered, name: str) -> onnx.ModelProto:
    return tensorrt_graph.fit(low, stack(name), "net").graph


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def same(low: Lowered, model: onnx.ModelProto, x: np.ndarray) -> bool:
    a, b = (parity.run_once(m.SerializeToString(), (x,)) for m in (low.graph, model))
    return all(np.array_equal(left, right) for left, right in zip(a, b, strict=True))


def quantized(kind: type = np.int8, zero: int = 0) -> Lowered:
    """Codes are moved about before the product, as windows of frames are; the weight is stored as int8, the bias as int32."""
    text = f"""
    net (float[batch, 4] x) => (float[batch, 3] y) {{
        codes = QuantizeLinear (x, step, zero)
        {"left = Slice (codes, start, end, axis)" if zero == 0 else "plain = DequantizeLinear (codes, step, zero)"}
        {"back = DequantizeLinear (left, step, zero)" if zero == 0 else "back = Slice (plain, start, end, axis)"}
        weight = DequantizeLinear <axis: int = 1> (w, scales, none)
        bias = DequantizeLinear (b, fine)
        product = MatMul (back, weight)
        y = Add (product, bias)
    }}"""
    rng = np.random.default_rng(0)
    return form(
        text,
        step=np.float32(0.5),
        zero=np.array(zero, kind),
        start=np.array([1]),
        end=np.array([3]),
        axis=np.array([1]),
        w=rng.integers(-127, 128, (2, 3)).astype(np.int8),
        scales=np.array([0.1, 0.2, 0.3], np.float32),
        none=np.zeros(3, np.int8),
        b=np.array([10, -20, 30], np.int32),
        fine=np.float32(0.01),
    )


def test_is_a_plugin_that_every_board_with_tensorrt_names() -> None:
    assert registry.load("exporter", "tensorrt") is EXPORTER
    from edgetk.targets import board

    boards = [made for made in map(board.load, board.names()) if made.stack.runtime == "tensorrt"]
    assert "jetson-orin-nano-8g" in [made.name for made in boards]
    assert {made.stack.exports for made in boards} == {("onnx", "tensorrt")}
    for made in boards:
        EXPORTER.check(causal(), made)


@pytest.mark.parametrize(("name", "version"), [(NEW, (10, 3)), (OLD, (8, 5)), ("TensorRT 11.4.1, JetPack 7.2", (11, 4))])
def test_the_version_is_in_the_name_of_the_stack(name: str, version: tuple[int, int]) -> None:
    assert version_of(stack(name)) == version


def test_other_stacks_are_refused() -> None:
    with pytest.raises(PreconditionError, match="the target's stack must run TensorRT, got arm; choose a board that has it"):
        version_of(stack("arm", "onnxruntime"))
    with pytest.raises(PreconditionError, match=r"stack\.name must hold its version, .*, got 'TensorRT'; add it"):
        version_of(stack("TensorRT"))


@pytest.mark.parametrize(
    ("version", "opset", "typed", "flag"),
    [((8, 2), 13, False, False), ((8, 5), 16, False, False), ((8, 6), 17, False, False), ((10, 3), 20, True, True),
     ((11, 0), 25, True, False)],
)  # fmt: skip
def test_what_a_version_reads(version: tuple[int, int], opset: int, typed: bool, flag: bool) -> None:
    known = Version(*version)
    assert (known.max_opset, known.is_typed, known.needs_typed_flag) == (opset, typed, flag)
    assert ("LayerNormalization" in operators(known)) == (version >= (8, 6))
    assert ("Gelu" in operators(known)) == (version >= (11, 0))
    assert "DFT" not in operators(known)


def test_the_batch_is_one_and_other_open_dimensions_are_refused() -> None:
    low = quantized()
    assert tensorrt_graph.fit(low, stack(), "net").signature.inputs[0].shape == (1, 4)
    open_time = Signature((TensorSpec("x", ("batch", "T")),), (TensorSpec("y", ("batch", 3)),))
    with pytest.raises(PreconditionError, match="net must have fixed dimensions but for the batch, got 'T' in x; fix it"):
        tensorrt_graph.batch_of_one(open_time, "net")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_pairs_of_q_and_dq_compute_the_same_bits(seed: int) -> None:
    low = quantized()
    x = np.random.default_rng(seed).normal(0, 20, (1, 4)).astype(np.float32)
    assert same(low, fitted(low, OLD), x)
    assert same(low, fitted(low, NEW), x)


@pytest.mark.parametrize("name", [OLD, NEW])
def test_shapes_of_the_one_batch_are_written_out(name: str) -> None:
    low = form(
        """net (float[batch, 2, 3] x) => (float[batch, 4, 3] y) {
            all = Shape (x)
            batch = Slice (all, none, one)
            target = Concat <axis = 0> (batch, one, three)
            edge = Expand (zero, target)
            y = Concat <axis = 1> (edge, x, edge)
        }""",
        none=np.array([0]),
        one=np.array([1]),
        three=np.array([3]),
        zero=np.zeros((1, 1, 1), np.float32),
    )
    model = fitted(low, name)
    assert kinds(model) == {"Concat": 1}
    assert same(low, model, np.arange(6, dtype=np.float32).reshape(1, 2, 3))


def test_before_10_every_dq_follows_a_q_and_weights_are_floats() -> None:
    model = fitted(quantized(), OLD)
    made = {output: node.op_type for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            assert made[node.input[0]] == "QuantizeLinear"
        if node.op_type == "Slice":
            assert made[node.input[0]] == "DequantizeLinear"
    assert kinds(model)["QuantizeLinear"] == kinds(model)["DequantizeLinear"] == 3
    assert all(
        i.data_type != onnx.TensorProto.INT8 or not np.any(onnx.numpy_helper.to_array(i)) for i in model.graph.initializer
    )


def test_from_10_on_weights_stay_int8_and_biases_become_floats() -> None:
    model = fitted(quantized(), NEW)
    assert kinds(model) == Counter(QuantizeLinear=1, Slice=1, DequantizeLinear=2, MatMul=1, Add=1)
    add = next(node for node in model.graph.node if node.op_type == "Add")
    bias = next(onnx.numpy_helper.to_array(i) for i in model.graph.initializer if i.name == add.input[1])
    assert bias.dtype == np.float32
    np.testing.assert_allclose(bias, [0.1, -0.2, 0.3], rtol=1e-6)


def test_uint8_around_128_is_written_as_int8_around_0() -> None:
    low = quantized(np.uint8, 128)
    model = fitted(low, NEW)
    zeros = [onnx.numpy_helper.to_array(i) for i in model.graph.initializer if i.data_type == onnx.TensorProto.UINT8]
    assert zeros == []
    assert same(low, model, np.array([[-70.0, 0.2, 63.9, 1.0]], np.float32))


def test_codes_that_are_not_symmetric_int8_are_refused() -> None:
    with pytest.raises(
        PreconditionError, match=r"net must be quantized to int8 with zero point 0, got uint8 with zero point 3 in .*activation"
    ):
        fitted(quantized(np.uint8, 3), NEW)
    with pytest.raises(PreconditionError, match="got int8 with zero point 5"):
        fitted(quantized(np.int8, 5), NEW)


def test_what_the_parser_refuses_is_named_before_it_sees_it() -> None:
    parts = form(
        "net (float[1, 4] x) => (float[1, 2] y) { a = Mish (x)\n y = Compress <axis: int = 1> (a, kept) }",
        kept=np.array([True, False, True, False]),
    )
    with pytest.raises(
        PreconditionError,
        match=r"that the parser of TensorRT 10\.3 reads, got Compress, Mish; replace those layers",
    ):
        fitted(parts, NEW)
    whole = form("net (int32[2, 2] x) => (int32[2, 2] y) { y = MatMul (x, x) }")
    with pytest.raises(PreconditionError, match="net must multiply matrices of floating-point numbers, got integers in"):
        fitted(whole, NEW)
    wide = form("net (double[2, 2] x) => (double[2, 2] y) { y = Add (x, x) }")
    with pytest.raises(PreconditionError, match="net must not hold float64 numbers, which the parser narrows, got "):
        fitted(wide, NEW)
    foreign = form("net (float[2, 2] x) => (float[2, 2] y) { y = edgetk.Odd (x) }")
    with pytest.raises(PreconditionError, match=r"reads, got edgetk::Odd; replace"):
        tensorrt_graph.lint(foreign.graph, Version(10, 3), "net")


def attention() -> Lowered:
    text = """net (float[1, 2, 5, 4] q) => (float[1, 2, 5, 4] y) {
        y = edgetk.BinaryLinearAttention <numerator = "own_token"> (q, q, q)
    }"""
    low = form(text)
    return replace(low, graph=functions.attach(low.graph))


def test_functions_stay_from_9_on_and_are_written_out_before() -> None:
    low = attention()
    new, old = fitted(low, NEW), fitted(low, OLD)
    assert [f.name for f in new.functions] == ["BinaryLinearAttention"]
    assert (list(old.functions), kinds(old)["MatMul"]) == ([], 3)
    signs = np.sign(np.random.default_rng(0).normal(size=(1, 2, 5, 4))).astype(np.float32)
    assert same(low, new, signs)
    assert same(low, old, signs)


def test_layer_norm_and_newer_operator_sets_go_down_with_the_version() -> None:
    low = next(x for x in toy()[1] if x.form == "stream")
    assert "LayerNormalization" in kinds(fitted(low, "TensorRT 8.6"))
    old = fitted(low, OLD)
    assert "LayerNormalization" not in kinds(old)
    assert next(o.version for o in old.opset_import if o.domain == "") == 16
    oldest = fitted(form("net (float[1, 4] x) => (float[2, 2] y) { y = Reshape <allowzero = 1> (x, s) }", s=np.array([2, 2])),
                    "TensorRT 8.2")  # fmt: skip
    assert next(o.version for o in oldest.opset_import if o.domain == "") == 13


def smooth() -> Lowered:
    text = """net (float[1, 4] x) => (float[1, 3] y, float[1, 3] z) {
        a = MatMul (x, w)
        y = Relu (a)
        e = Softmax (y)
        z = Mul (e, two)
    }"""
    rng = np.random.default_rng(0)
    return form(text, w=rng.normal(size=(4, 3)).astype(np.float32), two=np.float32(2))


def test_float16_is_in_the_graph_and_sums_stay_float32() -> None:
    low = smooth()
    model = half(low.graph, "net")
    onnx.checker.check_model(model, full_check=True)
    assert [v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)] == [onnx.TensorProto.FLOAT] * 3
    assert {i.data_type for i in model.graph.initializer} == {onnx.TensorProto.FLOAT16}
    types = {v.name: v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    product = next(node for node in model.graph.node if node.op_type == "MatMul")
    assert types[softmax.output[0]] == onnx.TensorProto.FLOAT
    assert types[product.output[0]] == onnx.TensorProto.FLOAT16
    x = np.array([[-1.0, 2.0, 0.5, -3.0]], np.float32)
    wanted, got = (parity.run_once(m.SerializeToString(), (x,)) for m in (low.graph, model))
    for a, b in zip(wanted, got, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-3)
    assert not np.array_equal(wanted[0], got[0])


def test_graphs_that_float16_cannot_hold() -> None:
    with pytest.raises(
        PreconditionError, match="written in float16 must be plain float32, got DequantizeLinear in net; use it"
    ):
        half(quantized().graph, "net")
    large = form("net (float[1, 2] x) => (float[1, 2] y) { y = Mul (x, w) }", w=np.array([1.0, 1e5], np.float32))
    with pytest.raises(PreconditionError, match=r"must hold numbers up to 65504, got 1e\+05 in w of net; use it in float32"):
        half(large.graph, "net")


def test_every_form_comes_in_both_precisions_with_a_proof_and_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_tensorrt.tensorrt_build, "find", lambda: "no TensorRT can be imported here (none)")
    bundle, forms = toy()
    EXPORTER.check(bundle, jetson())
    files = EXPORTER(forms, bundle, jetson(), {"recipe_sha256": "ab"})
    assert [(e.name, e.format, e.lowered.precision) for e in files] == [
        ("tensorrt/model.onnx", "onnx", "float32"),
        ("tensorrt/model.float16.onnx", "onnx", "float16"),
        ("tensorrt/model.stream.onnx", "onnx", "float32"),
        ("tensorrt/model.stream.float16.onnx", "onnx", "float16"),
        ("tensorrt/build_engine.sh", "sh", "float32"),
    ]
    proofs = [e.parity for e in files[:-1]]
    assert all(isinstance(p, Parity) and p.passed for p in proofs)
    model = onnx.load_from_string(files[0].content)
    assert {p.key: p.value for p in model.metadata_props}["recipe_sha256"] == "ab"
    assert graphs.signature_of(model).inputs[0].shape == (1, 6, 5)
    assert files[-1].notes == (
        "no engine: no TensorRT can be imported here (none)",
        "builds engines of 4 graphs on the board, with the trtexec of TensorRT 10.3",
    )


def test_why_there_is_no_float16_file_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_tensorrt.tensorrt_build, "find", lambda: "no")
    low = form("net (float[1, 2] x) => (float[1, 2] y) { y = Mul (x, w) }", w=np.array([1.0, 1e5], np.float32))
    bundle = Bundle("net", low.graph, low.signature)
    for lowered, why in ((low, "must hold numbers up to 65504"), (replace(low, exact=True), "are exact in float32 only")):
        files = EXPORTER([lowered], bundle, jetson())
        assert [e.name for e in files] == ["tensorrt/model.onnx", "tensorrt/build_engine.sh"]
        assert why in files[0].notes[0]


def test_boards_without_tensorrt_and_open_dimensions_are_refused_before_any_work() -> None:
    bundle = causal()
    board = replace(jetson(), stack=stack("arm", "onnxruntime"))
    with pytest.raises(PreconditionError, match="must run TensorRT"):
        EXPORTER.check(bundle, board)
    long = Signature((TensorSpec("x", ("batch", "T")),), (TensorSpec("y", ("batch",)),))
    with pytest.raises(PreconditionError, match="fixed dimensions but for the batch"):
        EXPORTER.check(Bundle("net", onnx.ModelProto(), long), jetson())
