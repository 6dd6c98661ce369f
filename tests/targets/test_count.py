"""Counting, against numbers worked out by hand and the published counts of the MLPerf Tiny networks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from target_graphs import Quantized, auto_encoder, dense, ds_cnn, model, stream

from edgetk.core.errors import InputError
from edgetk.core.signature import Signature, StateSpec, TensorSpec
from edgetk.core.workload import Op
from edgetk.targets.count import count
from edgetk.targets.kinds import weights_read


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def single(kind: str, inputs: dict[str, list[int]], constants: dict[str, np.ndarray], **attributes: object) -> ModelProto:
    node = helper.make_node(kind, [*inputs, *constants], ["y"], name="n", **attributes)
    return model([node], inputs, {"y": None}, constants)


def only(graph: ModelProto) -> Op:
    workload = count(graph)
    assert workload.unknown == ()
    (op,) = workload.ops
    return op


def test_gemm() -> None:
    workload = count(dense(out=3, batch="B"))
    (op,) = workload.ops
    assert op == Op("Gemm", "fc", macs=15, elements=3, weight_bytes=4 * 18, activation_bytes=4 * (5 + 3))
    assert (workload.parameters, workload.weight_bytes, workload.peak_activation_bytes) == (18, 72, 32)


def test_gemm_transposed() -> None:
    op = only(single("Gemm", {"x": [5, 2]}, {"w": ones(3, 5)}, transA=1, transB=1))
    assert op.macs == 2 * 3 * 5


def test_matmul_of_a_batch() -> None:
    op = only(single("MatMul", {"a": [4, 7, 5], "b": [4, 5, 3]}, {}))
    assert (op.macs, op.elements, op.weight_bytes, op.activation_bytes) == (4 * 7 * 5 * 3, 84, 0, 4 * (140 + 60 + 84))


def test_conv_2d() -> None:
    op = only(single("Conv", {"x": [1, 2, 6, 6]}, {"w": ones(4, 2, 3, 3), "b": ones(4)}))
    assert op.macs == 4 * 4 * 4 * (2 * 3 * 3)  # 4 channels of 4 x 4, 18 taps each
    assert op.weight_bytes == 4 * (72 + 4)


def test_conv_1d_with_stride() -> None:
    assert only(single("Conv", {"x": [1, 3, 9]}, {"w": ones(5, 3, 3)}, strides=[2])).macs == 5 * 4 * 9


def test_depthwise() -> None:
    assert only(single("Conv", {"x": [1, 8, 5, 5]}, {"w": ones(8, 1, 3, 3)}, group=8, pads=[1, 1, 1, 1])).macs == 8 * 25 * 9


def test_transposed_conv() -> None:
    assert only(single("ConvTranspose", {"x": [1, 2, 4]}, {"w": ones(2, 3, 5)})).macs == (2 * 4) * (3 * 5)


def test_einsum() -> None:
    assert only(single("Einsum", {"a": [2, 3, 4], "b": [2, 5, 4]}, {}, equation="bik,bjk->bij")).macs == 2 * 3 * 4 * 5
    workload = count(single("Einsum", {"a": [2, 3]}, {}, equation="ij->ji"))
    assert workload.unknown == ("Einsum n: only einsum of two operands without an ellipsis has a rule",)


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent(kind: str, gates: int) -> None:
    weights = {"w": ones(1, gates * 3, 5), "r": ones(1, gates * 3, 3)}
    assert only(single(kind, {"x": [7, 1, 5]}, weights, hidden_size=3)).macs == 7 * gates * 3 * (5 + 3)


def test_integer_operators() -> None:
    zero, scale = np.array(0, np.uint8), np.array(0.1, np.float32)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="dq"),
        helper.make_node("MatMulInteger", ["q", "w", "z", "wz"], ["i"], name="mm"),
        helper.make_node("Cast", ["i"], ["y"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("QLinearMatMul", ["q", "s", "z", "w8", "ws", "wz", "ws", "uz"], ["ql"], name="ql"),
        helper.make_node("DequantizeLinear", ["ql", "ws", "uz"], ["y2"], name="d"),
    ]
    constants = {
        "w": np.ones((4, 3), np.int8),
        "w8": np.ones((4, 2), np.int8),
        "wz": np.array(0, np.int8),
        "uz": zero,
        "ws": scale,
    }
    workload = count(model(nodes, {"x": [1, 4]}, {"y": None, "y2": None}, constants))
    assert workload.unknown == ()
    ops = {op.name: op for op in workload.ops}
    assert (ops["mm"].macs, ops["mm"].dtype) == (12, "int8")
    assert (ops["ql"].macs, ops["ql"].dtype) == (8, "int8")
    assert workload.parameters == 12 + 8
    assert workload.macs_by_dtype() == {"int8": 20}


def test_quantize_dequantize_counts_as_integers() -> None:
    q = Quantized()
    q.add("MatMul", [q.pair("x"), q.weight("w", np.array([[0, 1, 2], [3, 0, 0]]))], "y")
    workload = count(model(q.nodes, {"x": [1, 2]}, {"y": [1, 3]}, q.constants))
    ops = {op.name: op for op in workload.ops}
    assert ops["y"].dtype == "int8"
    assert ops["y"].macs == 6
    assert ops["y"].sparsity == 0.5
    assert ops["y"].weight_bytes == 6 + 5  # six int8 weights, their scale and zero point
    assert ops["y"].activation_bytes == 2 + 4 * 3  # x as int8, y as float32
    assert ops["x_q"].activation_bytes == 4 * 2 + 2  # the input arrives as float32
    assert ops["x_dq"].activation_bytes == ops["w_dq"].activation_bytes == 0
    assert workload.weight_bytes == 6 + 5
    assert workload.parameters == 6


def test_weights_alone_in_int8_leave_the_arithmetic_in_float() -> None:
    q = Quantized()
    q.add("MatMul", ["x", q.weight("w", np.ones((2, 3)))], "y")
    workload = count(model(q.nodes, {"x": [1, 2]}, {"y": [1, 3]}, q.constants))
    assert workload.macs_by_dtype() == {"float32": 6}
    assert workload.ops[-1].weight_bytes == 6 + 5


def test_sparsity_is_relative_to_the_zero_point_of_each_channel() -> None:
    constants = {"w": np.array([[1, 2], [1, 0]], np.int8), "s": ones(2), "z": np.array([1, 2], np.int8)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"], name="wd", axis=1),
        helper.make_node("MatMul", ["x", "wd"], ["y"], name="y"),
    ]
    assert count(model(nodes, {"x": [1, 2]}, {"y": None}, constants)).ops[-1].sparsity == 0.75


def test_a_constant_used_twice_is_stored_once() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    workload = count(model(nodes, {"x": [1, 3]}, {"y": None}, {"w": ones(3, 3)}))
    assert [op.weight_bytes for op in workload.ops] == [36, 36]
    assert (workload.weight_bytes, workload.parameters) == (36, 9)


def test_four_bit_weights_are_packed() -> None:
    w = helper.make_tensor("w", TensorProto.INT4, [4, 3], [1] * 12)
    node = helper.make_node("DequantizeLinear", ["w", "s"], ["wd"])
    graph = model(
        [node, helper.make_node("MatMul", ["x", "wd"], ["y"])], {"x": [1, 4]}, {"y": None}, {"s": np.array(1, np.float32)}
    )
    graph.graph.initializer.append(w)
    graph.opset_import[0].version = 21
    workload = count(graph)
    assert workload.weight_bytes == 6 + 4
    assert workload.unknown == ()


def test_constant_nodes_and_what_follows_from_constants_alone() -> None:
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(ones(3, 5))),
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Transpose", ["w"], ["wt"], name="t"),
        helper.make_node("MatMul", ["x", "wt"], ["h"], name="m"),
        helper.make_node("Mul", ["h", "two"], ["y"], name="mul"),
    ]
    workload = count(model(nodes, {"x": [1, 5]}, {"y": None}))
    assert [(op.name, op.macs, op.weight_bytes, op.activation_bytes) for op in workload.ops] == [
        ("t", 0, 0, 0),
        ("m", 15, 60, 4 * 8),
        ("mul", 0, 4, 4 * 6),
    ]
    assert workload.parameters == 15


def test_a_table_is_read_where_it_is_selected() -> None:
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["y"], name="look-up"),
        helper.make_node("Shape", ["x"], ["s"], name="shape"),
        helper.make_node("Gather", ["s", "i"], ["i2"], name="axis"),
        helper.make_node("Gather", ["table", "i2"], ["z"], name="again"),
    ]
    constants = {"table": ones(100, 4), "i": np.array([1], np.int64)}
    nodes.append(helper.make_node("Slice", ["x", "i", "i"], ["part"], name="slice"))
    workload = count(model(nodes, {"x": [10, 10]}, {"z": None, "part": None}, constants))
    ops = {op.name: op for op in workload.ops}
    assert (ops["again"].weight_bytes, ops["again"].activation_bytes) == (1600, 8 + 2 * 16)
    assert weights_read(ops["again"]) == 0
    assert ops["shape"].activation_bytes == 2 * 8
    assert workload.weight_bytes == 1608


def test_state_by_signature_and_by_name() -> None:
    signature = Signature(
        (TensorSpec("x", (1, 4)),), (TensorSpec("y", (1, 2)),), (StateSpec(TensorSpec("state_a", (1, 4))),), period_s=0.01
    )
    named, given_one = count(stream()), count(stream(), signature)
    assert named.state_bytes == given_one.state_bytes == 16
    assert (named.period_s, given_one.period_s) == (None, 0.01)
    graph = stream()
    graph.metadata_props.add(key="period_s", value="0.02")
    assert count(graph).period_s == 0.02
    graph.metadata_props[0].value = ""
    assert count(graph).period_s is None
    graph.metadata_props[0].value = "soon"
    with pytest.raises(InputError, match="count: period_s in the metadata must be a number, got 'soon'; export it again"):
        count(graph)


def test_functions_of_edgetk_are_counted_by_their_body() -> None:
    body = helper.make_function(
        "edgetk", "Twice", ["x", "w"], ["y"],
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    graph = model(
        [helper.make_node("Twice", ["x", "w"], ["y"], domain="edgetk")], {"x": [1, 3]}, {"y": None}, {"w": ones(3, 3)}
    )
    graph.functions.append(body)
    assert count(graph).macs == 18
    assert count(graph).unknown == ()


def test_what_cannot_be_counted_is_named() -> None:
    nodes = [
        helper.make_node("Mystery", [], ["h"], name="m", domain="other"),  # it has no input whose shape it might have
        helper.make_node("MatMul", ["h", "w"], ["y"], name="fc"),
    ]
    workload = count(model(nodes, {"x": [1, 3]}, {"y": None}, {"w": ones(3, 3)}))
    assert workload.unknown == (
        "Mystery m: no rule for the domain other",
        "MatMul fc: the shape of h cannot be inferred",
        "peak of live activations: the shape of h and 1 more cannot be inferred",
    )
    assert workload.to_json()["unknown"] == list(workload.unknown)


def test_behind_an_operator_that_onnx_does_not_know_a_shape_is_assumed_and_said() -> None:
    nodes = [
        helper.make_node("Mystery", ["x"], ["h"], name="m", domain="other"),
        helper.make_node("MatMul", ["h", "w"], ["y"], name="fc"),
    ]
    workload = count(model(nodes, {"x": [1, 3]}, {"y": None}, {"w": ones(3, 5)}))
    assert workload.unknown == ("Mystery m: no rule for the domain other",)
    assert workload.assumed == ("h is taken to have the shape that x has",)
    assert workload.to_json()["assumed"] == list(workload.assumed)
    assert workload.macs == 3 * 5
    assert workload.peak_activation_bytes == 4 * (3 + 5)


def test_a_shape_that_the_file_declares_goes_before_an_assumed_one() -> None:
    nodes = [
        helper.make_node("Mystery", ["x"], ["h"], name="m", domain="other"),
        helper.make_node("MatMul", ["h", "w"], ["y"], name="fc"),
    ]
    graph = model(nodes, {"x": [1, 3]}, {"y": None}, {"w": ones(4, 5)})
    graph.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["batch", 4]))
    workload = count(graph)
    assert workload.assumed == ("h is taken to have the shape that the file declares",)
    assert workload.macs == 4 * 5


def test_a_product_that_does_not_match_what_was_assumed_is_not_counted() -> None:
    nodes = [
        helper.make_node("Mystery", ["x"], ["h"], name="m", domain="other"),
        helper.make_node("MatMul", ["h", "w"], ["y"], name="fc"),
    ]
    workload = count(model(nodes, {"x": [1, 3]}, {"y": None}, {"w": ones(4, 5)}))
    assert workload.unknown == ("Mystery m: no rule for the domain other", "MatMul fc: the shape of y cannot be inferred")
    assert workload.macs == 0


def test_loops_are_named() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["a", "a"], ["b"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, [3]),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("b", TensorProto.FLOAT, [3])],
    )
    node = helper.make_node("Loop", ["n", "yes", "x"], ["y"], name="loop", body=body)
    constants = {"n": np.array(4, np.int64), "yes": np.array(True)}
    workload = count(model([node], {"x": [3]}, {"y": None}, constants))
    assert workload.unknown[0] == "Loop loop: no rule for this operator"


def test_a_comparison_computes_in_the_format_of_what_it_compares() -> None:
    nodes = [
        helper.make_node("Greater", ["x", "b"], ["more"], name="more"),
        helper.make_node("Cast", ["more"], ["y"], to=TensorProto.FLOAT),
    ]
    op = count(model(nodes, {"x": [1, 4]}, {"y": None}, {"b": ones(4)})).ops[0]
    assert (op.dtype, op.activation_bytes) == ("float32", 16 + 4)


def test_graphs_it_refuses() -> None:
    graph = dense()
    graph.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(
        InputError, match="count: all weights must be in the model, got some in other files; save it as a single"
    ):
        count(graph)
    graph = dense()
    del graph.opset_import[:]
    with pytest.raises(InputError, match=r"count: the graph must be valid ONNX, got .*; export it again"):
        count(graph)
    text = single("Constant", {}, {}, value_string="a")
    with pytest.raises(InputError, match="count: a Constant must hold a tensor or numbers, got value_string; export it again"):
        count(text)


def test_an_operator_that_onnx_does_not_know_is_named() -> None:
    workload = count(single("NoSuchOperator", {"x": [1, 5]}, {}))
    assert workload.unknown[0] == "NoSuchOperator n: the shape of y cannot be inferred"


def test_peak_counts_branches_and_shares_views() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),  # x 40, a 40
        helper.make_node("Reshape", ["a", "shape"], ["b"]),  # the same memory
        helper.make_node("Exp", ["b"], ["c"]),  # b 40, c 40
        helper.make_node("Neg", ["c"], ["d"]),  # b is still needed: 120
        helper.make_node("Add", ["b", "d"], ["e"]),  # b, d, e: 120
        helper.make_node("ReduceSum", ["e"], ["y"], keepdims=0),
    ]
    workload = count(model(nodes, {"x": [1, 10]}, {"y": []}, {"shape": np.array([2, 5], np.int64)}))
    assert workload.peak_activation_bytes == 120
    assert workload.ops[1].activation_bytes == 0
    assert workload.parameters == 0


def test_the_published_counts_of_mlperf_tiny() -> None:
    spotter, detector = count(ds_cnn()), count(auto_encoder())
    assert spotter.macs_by_dtype() == {"int8": 2_656_768}
    assert spotter.parameters == 22_016
    assert spotter.peak_activation_bytes == 16_000
    assert detector.macs_by_dtype() == {"int8": 264_192}
    assert detector.parameters == 264_192


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(3, 8))
def test_twice_the_output_channels_are_twice_the_macs(inputs: int, outputs: int, kernel: int, size: int) -> None:
    def macs(channels: int) -> int:
        return count(single("Conv", {"x": [1, inputs, size]}, {"w": ones(channels, inputs, kernel)})).macs

    assert macs(2 * outputs) == 2 * macs(outputs) > 0
