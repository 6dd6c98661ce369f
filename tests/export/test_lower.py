"""Lowering: interface, operator set, names, integer weights, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_toys import QuantLinear, QuantNet, causal, plain, quantized, target
from onnx import TensorProto, helper
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Lowered
from edgetk.core.errors import InputError, PreconditionError
from edgetk.core.signature import Signature, StateSpec, TensorSpec
from edgetk.export import parity
from edgetk.export.graph import opset_of
from edgetk.export.lower import lower
from edgetk.export.opset import fit
from edgetk.models.layers import quantized as integer


@pytest.fixture(scope="module")
def both() -> dict[str, Lowered]:
    return {low.form: low for low in lower(causal(), target())}


def kinds(low: Lowered) -> list[str]:
    return [node.op_type for node in low.graph.graph.node]


def test_gives_the_clip_form_first_and_the_stream_form_static(both: dict[str, Lowered]) -> None:
    assert list(both) == ["clip", "stream"]
    assert both["clip"].graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    for value in (*both["stream"].graph.graph.input, *both["stream"].graph.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_value == 1
    assert [v.name for v in both["stream"].graph.graph.input] == ["features", "state_taps_past", "state_memory"]
    assert [v.name for v in both["stream"].graph.graph.output] == ["logits", "state_taps_past_out", "state_memory_out"]


def test_graph_is_clean(both: dict[str, Lowered]) -> None:
    for low in both.values():
        onnx.checker.check_model(low.graph, full_check=True)
        assert opset_of(low.graph) == 17
        assert low.graph.ir_version == 8
        assert not {"Identity", "If", "Loop", "Scan", "Constant"} & set(kinds(low))
        graph = low.graph.graph
        used = {name for node in graph.node for name in node.input} | {v.name for v in graph.output}
        assert {i.name for i in graph.initializer} <= used
        assert len({i.SerializeToString() for i in graph.initializer}) == len(graph.initializer)
        assert not any(node.metadata_props or node.doc_string for node in graph.node)
        assert b".py" not in low.graph.SerializeToString()


def test_names_come_from_module_paths(both: dict[str, Lowered]) -> None:
    graph = both["stream"].graph.graph
    assert {"taps.weight", "taps.bias", "head.weight"} <= {i.name for i in graph.initializer}
    names = [node.name for node in graph.node]
    assert {"taps/Gemm", "gate/Gemm", "norm/LayerNormalization"} <= set(names)
    assert len(names) == len(set(names))


def test_the_same_model_gives_the_same_bytes(both: dict[str, Lowered]) -> None:
    again = lower(causal(), target(), ["stream"])[0]
    assert again.graph.SerializeToString(deterministic=True) == both["stream"].graph.SerializeToString(deterministic=True)


def test_export_is_quiet_and_keeps_the_training_mode(capfd: pytest.CaptureFixture[str]) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5))
    net.train()
    lower(plain(net, (3,), (4,)), target())
    assert net.training
    assert net[1].training
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def native() -> Lowered:
    """A graph of the exporter's own operator set, with what changed since 13."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.pad = nn.LayerNorm(6), nn.Parameter(torch.randn(1, 6))

        def forward(self, x: Tensor) -> Tensor:
            x = torch.cat([self.pad.expand(x.shape[0], 1, 6), x], dim=1)
            a, b = self.norm(x).chunk(2, dim=-1)
            return nn.functional.pad((a * b).mean(1), (1, 1)).amax(-1, keepdim=True)

    return lower(plain(Net(), (5, 6), (1,)), target(opset=18, ir_version=9))[0]


@pytest.mark.parametrize("version", [13, 14, 15, 16, 17, 18])
def test_every_opset_computes_the_same(native: Lowered, version: int) -> None:
    assert {"LayerNormalization", "Split", "Pad", "ReduceMean", "Shape", "Expand"} <= set(kinds(native))
    low = replace(native, graph=fit(native.graph, target(opset=version).stack, "plain"))
    onnx.checker.check_model(low.graph, full_check=True)
    assert opset_of(low.graph) == version
    assert ("LayerNormalization" in kinds(low)) == (version >= 17)
    assert parity.prove(low, low.graph, 3).passed


def test_layer_norm_is_decomposed_where_the_stack_lacks_it() -> None:
    low = lower(plain(nn.LayerNorm([5, 6]), (5, 6), (5, 6)), target(layer_norm=False))[0]
    assert opset_of(low.graph) == 17
    assert "LayerNormalization" not in kinds(low)
    assert "Sqrt" in kinds(low)
    assert parity.prove(low, low.graph).passed


def test_large_constants_are_computed_at_export() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("a", torch.randn(200, 100))
            self.register_buffer("b", torch.randn(200, 28))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, torch.cat([self.a, self.b], dim=1))

    low = lower(plain(Net(), (128,), (200,)), target())[0]
    assert kinds(low) in (["Gemm"], ["MatMul"])


def test_gelu_is_one_operator_in_onnxruntime(tmp_path: Path) -> None:
    low = lower(plain(nn.GELU(), (3,), (3,)), target())[0]
    assert optimised(low, tmp_path / "fused.onnx") == ["Gelu"]
    assert parity.prove(low, low.graph).passed


def test_a_slice_that_keeps_everything_is_left_out() -> None:
    class Whole(nn.Module):
        def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            (frame,) = x.unbind(dim=1)
            return (frame + h)[:, None], frame[:, :4] * 2

    spec, state = TensorSpec("x", (1, 1, 4)), StateSpec(TensorSpec("state_h", (1, 4)))
    low = lower(Bundle("step", Whole(), Signature((spec,), (TensorSpec("y", (1, 1, 4)),), (state,))), target())[0]
    assert sorted(kinds(low)) == ["Add", "Mul", "Squeeze", "Unsqueeze"]
    assert parity.prove(low, low.graph, 2).max_abs == 0.0


def test_index_tables_are_32_bit() -> None:
    class Take(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("order", torch.tensor([2, 0, 1]))

        def forward(self, x: Tensor) -> Tensor:
            return torch.index_select(x, 1, self.order)

    low = lower(plain(Take(), (3,), (3,)), target())[0]
    assert [i.data_type for i in low.graph.graph.initializer] == [TensorProto.INT32]
    assert parity.prove(low, low.graph).max_abs == 0.0


def test_integer_inputs_keep_their_type() -> None:
    bundle = plain(nn.Embedding(5, 3), (4,), (4, 3))
    signature = replace(bundle.signature, inputs=(TensorSpec("x", ("batch", 4), "int64"),))
    low = lower(replace(bundle, signature=signature), target())[0]
    assert low.graph.graph.input[0].type.tensor_type.elem_type == TensorProto.INT64
    assert parity.prove(low, low.graph).passed


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_integer_weights_stay_integers_and_run_on_integer_kernels(kind: str, tmp_path: Path) -> None:
    low = lower(quantized(kind), target())[0]
    assert low.precision == "int8"
    stored = [i for i in low.graph.graph.initializer if i.data_type == TensorProto.INT8 and len(i.dims) == 2]
    assert sorted(sorted(i.dims) for i in stored) == [[8, 24], [16, 24]]
    assert not [i for i in low.graph.graph.initializer if i.data_type == TensorProto.FLOAT and len(i.dims) == 2]
    assert all(v.type.tensor_type.elem_type == TensorProto.FLOAT for v in (low.graph.graph.input[0], low.graph.graph.output[0]))
    exact = parity.prove(low, low.graph, optimise=False)
    assert exact.max_abs < 2e-5 * exact.scale
    assert parity.prove(low, low.graph).passed
    fused = optimised(low, tmp_path / "fused.onnx")
    assert fused.count("QGemm") + fused.count("MatMulIntegerToFloat") + fused.count("QLinearMatMul") == 2
    assert not {"Gemm", "MatMul"} & set(fused)


def test_integer_weights_of_one_width_have_zero_points_of_their_own() -> None:
    """onnxruntime cannot make products exact on x86 without VNNI where two weights share one."""
    net = nn.Sequential(QuantLinear(16, 16, "uint8"), QuantLinear(16, 16, "uint8"))
    graph = lower(plain(net, (16,), (16,)), target())[0].graph.graph
    stored = {i.name: i for i in graph.initializer}
    zeros = [n.input[2] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in stored and len(n.input) > 2]
    integer = [z for z in zeros if stored[z].data_type == TensorProto.INT8]
    assert len(set(integer)) == len(integer) == 2


def test_unoptimised_integers_equal_the_module_bit_by_bit_with_float_biases() -> None:
    low = lower(quantized(), target(runtime="tensorrt"))[0]
    assert not [i for i in low.graph.graph.initializer if i.data_type == TensorProto.INT32]
    exact = parity.prove(low, low.graph, optimise=False)
    assert exact.max_abs < 1e-6 * exact.scale


def test_the_bias_of_a_quantized_product_is_subtracted() -> None:
    net = QuantNet("uint8")
    low = lower(plain(net, (5, 16), (8,)), target())[0]
    codes = {i.name: onnx.numpy_helper.to_array(i) for i in low.graph.graph.initializer}
    assert np.array_equal(codes["first.bias_negative"], -net.first.bias.detach().numpy())
    assert "first.bias" not in codes
    assert "Sub" in kinds(low)


def test_a_quantized_gemm_becomes_an_integer_product_even_without_bias_and_before_relu(tmp_path: Path) -> None:
    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.ModuleList([integer.QuantLinear(6, 5, "uint8"), integer.QuantLinear(5, 4, "uint8")])
            for layer in self.layers:
                layer.weight.copy_(torch.randint(-127, 128, layer.weight.shape))
                layer.scale.uniform_(0.01, 0.02)
                layer.input.scale.fill_(0.05)
            self.layers[1].bias.uniform_(-1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layers[1](torch.relu(self.layers[0](x)))

    spec = TensorSpec("x", (1, 6))
    low = lower(Bundle("step", Step().eval(), Signature((spec,), (TensorSpec("y", (1, 4)),))), target())[0]
    assert parity.prove(low, low.graph, optimise=False).passed
    fused = optimised(low, tmp_path / "fused.onnx")
    assert fused.count("MatMulIntegerToFloat") == 2
    assert not {"Gemm", "FusedGemm", "MatMul", "DequantizeLinear"} & set(fused)


def test_integer_biases_of_convolutions_are_rounded_to_the_accumulator_step() -> None:
    conv = integer.QuantConv(nn.Conv1d(3, 4, 3), "uint8")
    conv.weight.copy_(torch.randint(-127, 128, conv.weight.shape))
    conv.scale.uniform_(0.01, 0.02)
    conv.input.scale.fill_(0.05)
    conv.bias.uniform_(-1, 1)
    low = lower(plain(conv, (3, 7), (4, 5)), target())[0]
    codes = {i.name: onnx.numpy_helper.to_array(i) for i in low.graph.graph.initializer}
    scale = 0.05 * conv.scale.numpy()
    assert codes["bias_int32"].dtype == np.int32
    assert np.allclose(codes["bias_int32"] * scale, conv.bias.numpy(), atol=0.51 * scale.max())
    assert parity.prove(low, low.graph).passed


def optimised(low: Lowered, path: Path) -> list[str]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path), 3
    ort.InferenceSession(low.graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(path).graph.node]


def user_graph(opset: int = 17, kind: str = "Relu", state: bool = False) -> Bundle:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3]) for n in ("x", "state_a", "y", "state_a_out")]
    nodes = [helper.make_node(kind, ["x"], ["y"])]
    inputs, outputs = [values[0]], [values[2]]
    if state:
        nodes.append(helper.make_node("Add", ["x", "state_a"], ["state_a_out"]))
        inputs, outputs = values[:2], values[2:]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    states = (StateSpec(TensorSpec("state_a", (1, 3))),) if state else ()
    return Bundle("user", model, Signature((TensorSpec("x", (1, 3)),), (TensorSpec("y", (1, 3)),), states))


@pytest.mark.parametrize("state", [False, True])
def test_a_users_graph_goes_through_unchanged(state: bool) -> None:
    bundle = user_graph(state=state)
    low = lower(bundle, target())[0]
    assert low.graph is bundle.body
    assert low.form == ("stream" if state else "clip")
    assert parity.prove(low, low.graph).max_abs == 0.0


def test_a_users_newer_graph_is_converted_and_proven_against_the_original() -> None:
    bundle = user_graph(opset=20)
    low = lower(bundle, target(opset=15, ir_version=7))[0]
    assert (opset_of(low.graph), low.graph.ir_version) == (15, 7)
    assert opset_of(bundle.body) == 20
    assert parity.prove(low, low.graph).max_abs == 0.0


def test_refuses_an_operator_without_conversion() -> None:
    with pytest.raises(PreconditionError, match=r"user must fit operator set 17 of toy stack, got .*Mish.*newer stack"):
        lower(user_graph(opset=18, kind="Mish"), target())
    with pytest.raises(PreconditionError, match=r"must fit operator set 17 of toy stack, got .*Gelu.*newer stack"):
        lower(user_graph(opset=20, kind="Gelu"), target())


def test_refuses_operators_that_the_stack_does_not_list() -> None:
    with pytest.raises(PreconditionError, match="plain must use operators that toy stack has, got Erf; choose another target"):
        lower(plain(nn.GELU(), (3,), (3,)), target(operators=("Add", "Mul", "Div")))


def test_refuses_a_form_that_the_model_does_not_have() -> None:
    with pytest.raises(PreconditionError, match="plain must have a stream form, got clip; ask for one it has"):
        lower(plain(nn.Linear(3, 2), (3,), (2,)), target(), ["stream"])


def test_refuses_modules_that_break_their_signature() -> None:
    with pytest.raises(InputError, match=r"plain: must accept x \[2, 4\] \(clip form\), got: mat1 and mat2 .*mend the module"):
        lower(plain(nn.Linear(3, 2), (4,), (2,)), target())
    with pytest.raises(InputError, match=r"plain: output y must have shape \[2, 3\] in the clip form, got \[2, 2\]"):
        lower(plain(nn.Linear(3, 2), (3,), (3,)), target())

    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(InputError, match=r"plain: must return 1 tensors \(y\) in its clip form, got 2; mend the module"):
        lower(plain(Two(), (3,), (3,)), target())


def test_refuses_a_module_that_decides_by_value() -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(PreconditionError, match=r"clip form of plain must be exportable to ONNX, got: .*change that operation"):
        lower(plain(Branch(), (3,), (3,)), target())
