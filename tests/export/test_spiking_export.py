"""Spiking neurons in exported graphs: their nodes, counted by hand, and their bits, equal in every form of a network."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Lowered
from edgetk.core.errors import ParityError, PreconditionError
from edgetk.core.signature import StateSpec
from edgetk.core.target import Stack
from edgetk.export import metadata, neurons, opset, parity
from edgetk.export.graph import fingerprint
from edgetk.export.lower import lower
from edgetk.export.to_onnx import EXPORTER
from edgetk.models._lmuformer_stream import LOOKAHEAD
from edgetk.models.layers.lif import LIF
from edgetk.models.layers.norm import BatchNorm
from edgetk.models.layers.quantized import QuantLinear
from edgetk.models.lmuformer_spiking import SpikingLMUFormer, build
from edgetk.targets import board, firing
from edgetk.tasks.speech_commands import TASK

STEP = ["Add", "Mul", "GreaterOrEqual", "Cast", "Where"]
SCANS = Stack("a stack with everything", "onnxruntime")
PLAIN = Stack("a plain stack", "onnxruntime", operators=(*STEP, "Split", "Concat"))
FRAMES, WIDTH = 7, 3
THRESHOLD, REST = [1.0, 0.5, 0.25], [0.25, 0.0, -0.5]


def captured(batch: int | str, frames: int | str = FRAMES, layers: int = 1) -> onnx.ModelProto:
    """A graph of nothing but neuron layers, as a tidy one has them."""
    shape = [batch, frames, WIDTH]
    names = ["x", *(f"s{i}" for i in range(layers))]
    nodes = [
        helper.make_node("LIF", [names[i], "a.threshold", "a.rest"], [names[i + 1]], name=f"a{i}/LIF", domain="edgetk")
        for i in range(layers)
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]
    weights = {"a.threshold": THRESHOLD, "a.rest": REST}
    initializers = [numpy_helper.from_array(np.array(x, np.float32), name) for name, x in weights.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[-1:], initializers, value_info=values[1:-1])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("edgetk", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def expanded(model: onnx.ModelProto, stack: Stack) -> onnx.ModelProto:
    whole = ir.from_proto(model)
    neurons.expand(whole, stack, "toy")
    return ir.to_proto(whole)


@cache
def session(stack: Stack, batch: int | str) -> Any:
    return parity._session(expanded(captured(batch), stack).SerializeToString(), True)


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def body(node: onnx.NodeProto) -> onnx.GraphProto:
    return next(a.g for a in node.attribute if a.name == "body")


def test_a_neuron_by_hand() -> None:
    """Membranes of the first channel: 0.625, 0.8125, 1 (fires, rests at 0.25), 0.125, 2.0625 (fires), 0.625, 0.8125."""
    x = np.zeros((1, FRAMES, WIDTH), np.float32)
    x[0, :, 0] = [1.0, 1.0, 1.1875, 0.0, 4.0, 1.0, 1.0]
    for stack in (SCANS, PLAIN):
        spikes = session(stack, "batch").run(None, {"x": x})[0]
        assert spikes[0, :, 0].tolist() == [0, 0, 1, 0, 1, 0, 0]
        assert not spikes[0, :, 1].any()
        assert not spikes[0, :, 2].any()


@settings(max_examples=25, deadline=None)
@given(batch=st.integers(1, 4), seed=st.integers(0, 2**16))
def test_scanned_and_written_out_neurons_are_those_in_memory(batch: int, seed: int) -> None:
    layer = LIF(WIDTH)
    layer.threshold, layer.rest = torch.tensor(THRESHOLD), torch.tensor(REST)
    x = torch.randn(batch, FRAMES, WIDTH, generator=torch.Generator().manual_seed(seed)) * 2
    expected = layer.clip(x).numpy()
    for stack in (SCANS, PLAIN):
        assert np.array_equal(session(stack, "batch").run(None, {"x": x.numpy()})[0], expected)
        one = session(stack, 1).run(None, {"x": x[:1].numpy()})[0]
        assert np.array_equal(one, expected[:1])


def test_nodes_of_one_layer() -> None:
    model = expanded(captured("batch"), SCANS)
    assert [node.op_type for node in model.graph.node] == ["Shape", "Concat", "Expand", "Scan"]
    assert [node.op_type for node in body(model.graph.node[-1]).node] == STEP
    assert [node.op_type for node in expanded(captured(2), SCANS).graph.node] == ["Scan"]
    steps = {"Add": 7, "Mul": 7, "GreaterOrEqual": 7, "Cast": 7, "Where": 6}  # nobody needs the last membrane
    assert kinds(expanded(captured("batch"), PLAIN)) == {**steps, "Split": 1, "Concat": 1}
    assert {o.domain for o in model.opset_import} == {""}


def test_layers_share_the_size_of_the_batch() -> None:
    model = expanded(captured("batch", layers=3), SCANS)
    assert kinds(model) == {"Shape": 1, "Concat": 1, "Expand": 3, "Scan": 3}
    assert [node.name for node in model.graph.node if node.op_type == "Scan"] == ["a0/LIF", "a1/LIF", "a2/LIF"]


def test_a_batch_that_no_input_has_is_taken_from_the_layer_itself() -> None:
    model = captured("batch")
    model.graph.node.insert(0, helper.make_node("Concat", ["x", "x"], ["twice"], name="twice", axis=0))
    model.graph.value_info.append(helper.make_tensor_value_info("twice", TensorProto.FLOAT, ["both", FRAMES, WIDTH]))
    model.graph.node[1].input[0] = "twice"
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "both"
    made = expanded(model, SCANS)
    onnx.checker.check_model(made, full_check=True)
    x = np.random.default_rng(0).standard_normal((2, FRAMES, WIDTH)).astype(np.float32)
    got = parity.run_once(made.SerializeToString(), [x])[0]
    assert np.array_equal(got, np.concatenate([session(SCANS, "batch").run(None, {"x": x})[0]] * 2))


def test_any_number_of_frames_needs_a_scan() -> None:
    made = expanded(captured("batch", "frames"), SCANS)
    x = np.random.default_rng(0).standard_normal((2, 5, WIDTH)).astype(np.float32)
    assert parity.run_once(made.SerializeToString(), [x])[0].shape == x.shape
    with pytest.raises(
        PreconditionError,
        match=r"lower: toy must have a fixed number of frames where a plain stack has no Scan, got frames;",
    ):
        expanded(captured("batch", "frames"), PLAIN)


def test_who_gets_a_scan() -> None:
    assert neurons.has_scan(SCANS)
    assert neurons.has_scan(replace(PLAIN, operators=("Scan", "Add")))
    assert not neurons.has_scan(PLAIN)
    boards = [board.load(name) for name in board.names()]
    without = {target.name for target in boards if not neurons.has_scan(target.stack)}
    assert without == {target.name for target in boards if target.kind == "mcu"} | {"coral-usb"}


@pytest.mark.parametrize("stack", [SCANS, PLAIN])
def test_older_operator_sets_read_them(stack: Stack) -> None:
    model = expanded(captured("batch"), stack)
    old = opset.fit(model, replace(stack, opset=13, operators=()), "toy")
    assert old.opset_import[0].version == 13
    onnx.checker.check_model(old, full_check=True)
    x = np.random.default_rng(0).standard_normal((2, FRAMES, WIDTH)).astype(np.float32)
    assert np.array_equal(parity.run_once(old.SerializeToString(), [x])[0], session(stack, "batch").run(None, {"x": x})[0])


@pytest.mark.parametrize("stack", [SCANS, PLAIN])
@pytest.mark.parametrize("batch", ["batch", 2])
def test_every_value_says_its_shape_as_inference_finds_it(stack: Stack, batch: int | str) -> None:
    model = expanded(captured(batch, layers=2), stack)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    for graph in (model.graph, *(body(n) for n in model.graph.node if n.op_type == "Scan")):
        known = {v.name for v in (*graph.value_info, *graph.output) if v.type.tensor_type.HasField("shape")}
        assert {name for node in graph.node for name in node.output} <= known


def test_names_are_used_once() -> None:
    model = expanded(captured("batch", layers=2), SCANS)
    graphs = [model.graph, *(body(n) for n in model.graph.node if n.op_type == "Scan")]
    made = [name for graph in graphs for node in graph.node for name in (node.name, *node.output)]
    made += [value.name for graph in graphs[1:] for value in graph.input]
    assert len(set(made)) == len(made)


def folded(bundle: Bundle) -> Bundle:
    net = bundle.module
    assert isinstance(net, SpikingLMUFormer)
    assert net.fold_norms()
    return replace(bundle, signature=net.stream_signature())


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """What `exported` has made."""
    return {}


@pytest.fixture
def exported(spiking: Bundle, kept: dict[str, Any]) -> tuple[Bundle, list[Lowered]]:
    """A folded model and its two forms."""
    if not kept:
        kept["bundle"] = folded(spiking)
        kept["lowered"] = lower(kept["bundle"], board.load("host"))
    return kept["bundle"], kept["lowered"]


def frames_of(bundle: Bundle, low: Lowered, n: int = 4) -> tuple[np.ndarray, ...]:
    """Whole clips in the layout of a proof."""
    assert bundle.data is not None
    assert bundle.clip is not None
    clips = bundle.data.calibration(n).numpy()
    return (clips if low.form == "clip" else parity.steps_of(clips, bundle.clip.inputs[0], low.signature.inputs[0]),)


def assert_bit_exact(bundle: Bundle, low: Lowered) -> None:
    """Every output and state of whole clips, optimised and not; nothing of edgetk's own is left in the graph."""
    assert low.exact
    onnx.checker.check_model(low.graph, full_check=True)
    assert {o.domain for o in low.graph.opset_import} == {""}
    assert {node.domain for node in low.graph.graph.node} == {""}
    for optimise in (True, False):
        proof = parity.prove(low, low.graph, frames_of(bundle, low), optimise=optimise)
        assert (proof.max_abs, proof.bound) == (0.0, 0.0)
        assert str(proof).startswith("bit-exact with the model in memory (n=4, ")
        assert proof.scale > 0


def test_both_forms_are_bit_exact(exported: tuple[Bundle, list[Lowered]]) -> None:
    bundle, lows = exported
    for low in lows:
        assert_bit_exact(bundle, low)


def test_nodes_of_both_forms(exported: tuple[Bundle, list[Lowered]]) -> None:
    found = {low.form: kinds(low.graph) for low in exported[1]}
    clip = found["clip"]
    assert (clip["Scan"], clip["Shape"], clip["GreaterOrEqual"]) == (11, 1, 0)
    assert clip["Transpose"] == 1  # of the memory
    # 11 neurons of five operators and the choice of the drive; 7 additions elsewhere; one product rounds features, and ten turn
    # signs in front of the neurons whose norms had negative scales
    assert found["stream"] == {
        "Where": 22, "Add": 18, "Mul": 22, "GreaterOrEqual": 11, "Cast": 12, "Gemm": 13, "Concat": 6, "Slice": 6, "Div": 2,
        "Clip": 2, "Round": 1, "Greater": 1, "Gather": 1, "Split": 1, "Squeeze": 1, "Unsqueeze": 1,
    }  # fmt: skip


def test_files_say_what_spikes(exported: tuple[Bundle, list[Lowered]]) -> None:
    bundle, lows = exported
    told: dict[str, Any] = {}
    for low in lows:
        seen = firing.record(low.graph, low.signature, {"features": frames_of(bundle, low)[0]}, "made up")
        told[low.form] = seen.to_json()
    files = {e.lowered.form: e for e in EXPORTER(lows, bundle, board.load("host"), {"firing": told}) if e.parity}
    for form, emitted in files.items():
        assert str(emitted.parity).startswith("bit-exact with the model in memory (n=8, ")
        entries = {p.key: p.value for p in onnx.load_from_string(emitted.content).metadata_props}
        assert entries["parity"] == "bit-exact"
        products = json.loads(entries["firing"])["products"]
        assert products == told[form]["products"]
        # all 13 products but the first, which reads features, and the head, which reads counts
        assert sum(p["spikes"] for p in products.values()) == 11
    entries = {p.key: p.value for p in onnx.load_from_string(files["stream"].content).metadata_props}
    holds = {state["name"]: state["holds"] for state in json.loads(entries["states"])}
    assert Counter(holds.values()) == {"membrane": 11, "spikes": 5, "values": 3, "counts": 2}
    assert [name for name, kind in holds.items() if kind == "values"] == [
        "state_valid", "state_embed_conv0_past", "state_embed_residual",
    ]  # fmt: skip


def test_a_proof_is_not_taken_over_from_an_earlier_file() -> None:
    model = captured(1)
    helper.set_model_props(model, {"parity": "bit-exact", "firing": "{}", "author": "me"})
    kept = {"author": "me", "graph_sha256": fingerprint(model)}
    assert metadata.read(metadata.write(model, {"task": "a"})) == {**kept, "task": "a"}
    assert metadata.read(metadata.write(model, {"parity": "bit-exact"})) == {**kept, "parity": "bit-exact"}


def test_states_hold_what_they_say(exported: tuple[Bundle, list[Lowered]]) -> None:
    bundle, lows = exported
    low = next(low for low in lows if low.form == "stream")
    assert low.signature.state == bundle.signature.state
    assert low.reference is not None
    outputs = parity.stream(low.reference, low.signature, frames_of(bundle, low), LOOKAHEAD)
    for state, values in zip(low.signature.state, outputs[1:], strict=True):
        whole = bool((values == values.round()).all()) and float(values.min()) >= 0
        if state.holds == "spikes":
            assert set(np.unique(values)) == {0.0, 1.0}, state.name
        elif state.holds == "counts":
            assert whole, state.name
            assert values.max() > 1, state.name
        elif state.holds == "membrane":
            assert not whole, state.name


def test_what_a_state_holds_survives_a_file_and_older_files_say_nothing(spiking: Bundle) -> None:
    for state in spiking.signature.state:
        data = state.to_json()
        assert StateSpec.from_json(data).holds == state.holds
        del data["holds"]
        assert StateSpec.from_json(data).holds == "values"


def test_norms_that_are_not_folded_round_alike(spiking: Bundle) -> None:
    assert any(isinstance(m, BatchNorm) for m in spiking.module.modules())
    (low,) = lower(spiking, board.load("host"), ["stream"])
    assert_bit_exact(spiking, low)


def test_a_stack_without_scan_gets_the_same_bits(spiking: Bundle) -> None:
    (low,) = lower(spiking, board.load("stm32h7a3"), ["clip"])
    assert_bit_exact(spiking, low)
    found = kinds(low.graph)
    assert not {"Scan", "Loop"} & found.keys()
    assert (found["Split"], found["GreaterOrEqual"], found["Where"]) == (11, 11 * 24, 11 * 23)


def test_integer_weights_on_power_of_two_grids_give_the_same_bits(spiking: Bundle) -> None:
    bundle = folded(spiking)
    integer(bundle)
    (low,) = lower(bundle, board.load("host"), ["clip"])
    assert low.precision == "int8"
    assert_bit_exact(bundle, low)


def integer(bundle: Bundle) -> None:
    """Every layer but the head as int8 with power-of-two scales; spikes and features keep their own steps."""
    net = bundle.module
    assert isinstance(net, SpikingLMUFormer)
    for name, layer in list(net.named_modules()):
        if type(layer) is torch.nn.Linear and name != "head":
            made = QuantLinear(layer.in_features, layer.out_features, "uint8")
            weight = layer.weight.detach()
            made.scale.copy_(torch.exp2(torch.ceil(torch.log2(weight.abs().amax(1).clamp_min(1e-9) / 127))))
            made.weight.copy_((weight / made.scale[:, None]).round())
            if layer.bias is not None:
                made.bias.copy_(layer.bias.detach())
            if name == "embed.convs.0.taps":
                made.input.scale.fill_(2.0**-6)
                made.input.zero_point.fill_(128)
            net.set_submodule(name, made)
    net.settle()


def test_real_clips_and_what_one_wrong_bit_does() -> None:
    features = TASK.open(None).split("test").features[::40]
    bundle = build("s", classes=16)
    net = bundle.module
    assert isinstance(net, SpikingLMUFormer)
    net.train()
    for norm in _norms(net):
        norm.momentum = 1.0
    with torch.no_grad():
        net.clip(features)
    net.eval()
    (low,) = lower(folded(bundle), board.load("host"), ["stream"])
    assert bundle.clip is not None
    frames = [parity.steps_of(features[:1].numpy(), bundle.clip.inputs[0], low.signature.inputs[0])]
    assert parity.prove(low, low.graph, frames).max_abs == 0.0
    wrong = onnx.ModelProto()
    wrong.CopyFrom(low.graph)
    threshold = next(i for i in wrong.graph.initializer if i.name == "mixer.hidden.neuron.threshold")
    moved = np.nextafter(numpy_helper.to_array(threshold), np.float32(np.inf)) * np.float32(1.01)
    threshold.CopyFrom(numpy_helper.from_array(moved, threshold.name))
    with pytest.raises(
        ParityError,
        match=r"output \w+ of the stream form \(float32\) must equal the model in memory bit for bit, got \d",
    ):
        parity.prove(low, wrong, frames)
    loose = parity.prove(replace(low, exact=False), low.graph, [frames[0][:, :8]])
    assert loose.bound == pytest.approx(1e-4 * loose.scale)
    assert str(loose).startswith("equal to the model in memory")


def _norms(net: torch.nn.Module) -> Iterator[BatchNorm]:
    return (m for m in net.modules() if isinstance(m, BatchNorm))


def test_features_as_they_are_promise_nothing() -> None:
    net = build("s", feature_step=0.0).module
    assert isinstance(net, SpikingLMUFormer)
    assert not net.exact_sums


def test_the_proof_flushes_what_waits_for_look_ahead(spiking: Bundle) -> None:
    assert parity.flush_steps(spiking.signature) == LOOKAHEAD
    others = tuple(state for state in spiking.signature.state if state.name != "state_valid")
    assert parity.flush_steps(replace(spiking.signature, state=others)) == 0
    assert parity.flush_steps(replace(spiking.signature, period_s=None)) == 0
    module, clip = spiking.module, spiking.clip
    assert clip is not None
    assert spiking.data is not None
    clips = spiking.data.calibration(2)

    def call(*x: np.ndarray) -> tuple[np.ndarray, ...]:
        with torch.no_grad():
            return tuple(y.numpy() for y in module(*map(torch.from_numpy, x)))

    frames = parity.steps_of(clips.numpy(), clip.inputs[0], spiking.signature.inputs[0])
    logits = parity.stream(call, spiking.signature, [frames], LOOKAHEAD)[0]
    with torch.no_grad():
        expected = module.running(clips).numpy()  # type: ignore[operator]
    assert np.array_equal(logits[:, LOOKAHEAD:].reshape(expected.shape), expected)
