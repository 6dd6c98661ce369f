"""Recorded rates, against spikes worked out by hand; what is and what is not taken for spikes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from target_graphs import SPIKING_INPUT, Shape, dense, model, scanned, spiking, spiking_signature

from edgetk.core.errors import InputError
from edgetk.core.signature import Signature, TensorSpec
from edgetk.targets.count import count
from edgetk.targets.firing import Activity, Firing, record


def signature(*shape: int | str, output: Shape = ("B", 3), name: str = "x") -> Signature:
    return Signature((TensorSpec(name, shape),), (TensorSpec("y", tuple(output)),))


def activity(graph: ModelProto, values: Any, product: str = "y") -> Activity | None:
    array = np.asarray(values, np.float32)
    return record(graph, signature("B", *array.shape[1:]), {"x": array}, "some").products.get(product)


@pytest.mark.parametrize("integer", [False, True])
def test_a_stream_by_hand(integer: bool) -> None:
    firing = record(spiking(integer), spiking_signature(), {"x": SPIKING_INPUT}, "two steps made up")
    assert firing.products == {
        "a_drive": Activity("x", 0.5, spikes=False),  # 2 0 0, 0 2 1: real numbers
        "b_drive": Activity("window", 5 / 16, spikes=True),  # 0000 1001, 1001 0100
    }
    assert firing.rates == {"window": 5 / 16}
    assert (firing.inputs, firing.steps, str(firing)) == (1, 2, "two steps made up (n=1 of 2 steps)")
    assert Firing.from_json(json.loads(json.dumps(firing.to_json()))) == firing


def test_every_stream_starts_anew() -> None:
    twice = record(spiking(), spiking_signature(), {"x": np.concatenate([SPIKING_INPUT] * 2)}, "twice")
    assert twice.products["b_drive"].nonzero == pytest.approx(5 / 16)
    assert (twice.inputs, twice.steps) == (2, 2)


def test_counted_work_takes_the_rates() -> None:
    firing = record(spiking(), spiking_signature(), {"x": SPIKING_INPUT}, "two steps made up")
    workload = count(spiking(), spiking_signature(), firing)
    a, b = (op for op in workload.ops if op.macs)
    assert (a.macs, a.spike_rate, a.density) == (12, None, 0.5)
    assert (b.macs, b.spike_rate, b.density, b.accumulates) == (16, 5 / 16, 5 / 16, 5)
    assert workload.accumulates == workload.to_json()["accumulates"] == 5
    assert workload.rates_from == "two steps made up (n=1 of 2 steps)"
    plain = count(spiking(), spiking_signature())
    assert (plain.accumulates, plain.rates_from) == (0, "")
    assert [op.density for op in plain.ops] == [None] * len(plain.ops)


@pytest.mark.parametrize("n", [1, 16, 33])
def test_batches_of_clips(n: int) -> None:
    spikes = (np.random.default_rng(0).random((n, 5)) < 0.3).astype(np.float32)
    spikes[0, 0] = 1
    assert activity(dense(batch="B"), spikes) == Activity("x", pytest.approx(float(spikes.mean())), spikes=True)


def test_a_fixed_batch_is_fed_one_by_one() -> None:
    values = np.eye(5, dtype=np.float32)[:, None]
    firing = record(dense(), signature(1, 5), {"x": values}, "rows")
    assert firing.products["y"] == Activity("x", pytest.approx(0.2), spikes=True)


@pytest.mark.parametrize(
    ("values", "spikes"),
    [
        ([[0, 1, 1, 0, 1]], True),
        ([[0, 1, 1, 0, 0.5]], False),
        ([[0, 1, 1, 0, -1]], False),
        ([[0, 1, 1, 0, np.nan]], False),
        ([[0, 0, 0, 0, 0]], False),  # never 1: nothing shows that it speaks in spikes
        ([[0, 2, 2, 0, 0]], False),
    ],
)
def test_only_zeros_and_ones_are_spikes(values: Any, spikes: bool) -> None:
    found = activity(dense(batch="B"), values)
    assert found is not None
    assert found.spikes is spikes
    assert found.nonzero == pytest.approx(np.mean(np.array(values) != 0))


SILENT = np.zeros_like(SPIKING_INPUT)


@pytest.mark.parametrize("integer", [False, True])
def test_neurons_that_never_fire_send_spikes_all_the_same(integer: bool) -> None:
    """Their window is built of comparisons and a state that starts at 0; the real input that stays 0 is none."""
    firing = record(spiking(integer), spiking_signature(), {"x": SILENT}, "silence")
    assert firing.products == {
        "a_drive": Activity("x", 0.0, spikes=False),
        "b_drive": Activity("window", 0.0, spikes=True),
    }


def test_a_state_that_does_not_start_as_spikes_is_none() -> None:
    sig = spiking_signature()
    odd = replace(sig, state=tuple(replace(s, init=(0.5,) * 4) if s.name == "state_past" else s for s in sig.state))
    firing = record(spiking(), odd, {"x": SILENT[:, :1]}, "silence")
    assert not firing.products["b_drive"].spikes


def test_a_state_that_is_not_carried_on_as_spikes_is_none() -> None:
    graph = spiking()
    (keep,) = (node for node in graph.graph.node if node.name == "keep")
    keep.op_type = "Neg"
    firing = record(graph, spiking_signature(), {"x": SILENT}, "silence")
    assert not firing.products["b_drive"].spikes


def test_silent_neurons_over_time() -> None:
    """The sequence that a Scan writes is spikes, the membrane it carries is not; padding and slicing leave it at that."""
    scan = scanned(3, 2)
    nodes = [
        *scan.graph.node,
        helper.make_node("Pad", ["y", "pads"], ["padded"]),
        helper.make_node("Slice", ["padded", "one", "three"], ["part"]),
        helper.make_node("MatMul", ["part", "w"], ["z"]),
        helper.make_node("MatMul", ["v_last", "w"], ["u"]),
    ]
    constants = {i.name: numpy_helper.to_array(i) for i in scan.graph.initializer}
    constants |= {"pads": np.array([1, 0, 0, 1, 0, 0]), "one": np.array([1]), "three": np.array([3])}
    graph = model(nodes, {"v0": [1, 2], "x": [3, 1, 2]}, {"z": None, "u": None}, constants)
    sig = Signature(
        (TensorSpec("v0", (1, 2)), TensorSpec("x", (3, 1, 2))), (TensorSpec("z", (2, 1, 2)), TensorSpec("u", (1, 2)))
    )
    firing = record(graph, sig, {"v0": np.zeros((1, 1, 2)), "x": np.zeros((1, 3, 1, 2))}, "silence")
    assert {name: a.spikes for name, a in firing.products.items()} == {"z": True, "u": False}


def test_constant_factors_are_no_inputs() -> None:
    """A matrix of zeros and ones, on either side, does not make its product an addition; real inputs decide."""
    constants = {"w": np.eye(3, dtype=np.float32), "v": np.eye(3, dtype=np.float32)}
    nodes = [
        helper.make_node("MatMul", ["w", "v"], ["folded"]),
        helper.make_node("MatMul", ["x", "folded"], ["h"]),
        helper.make_node("MatMul", ["w", "h"], ["y"]),
    ]
    graph = model(nodes, {"x": ["B", 3, 3]}, {"y": None}, constants)
    firing = record(graph, signature("B", 3, 3), {"x": np.full((2, 3, 3), 0.5, np.float32)}, "halves")
    assert firing.products == {"h": Activity("x", 1.0, spikes=False), "y": Activity("h", 1.0, spikes=False)}


def test_what_does_not_depend_on_the_input_is_no_spike() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Expand", ["one", "shape"], ["ones"]),
        helper.make_node("MatMul", ["ones", "w"], ["mask"]),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "mask"], ["y"]),
    ]
    constants = {"one": np.ones(1, np.float32), "w": np.ones((3, 3), np.float32)}
    graph = model(nodes, {"x": ["B", 3]}, {"y": None}, constants)
    firing = record(graph, signature("B", 3), {"x": np.ones((2, 3), np.float32)}, "ones")
    assert list(firing.products) == ["h"]
    assert {op.name: op.spike_rate for op in count(graph, None, firing).ops if op.macs} == {"mask": None, "h": 1.0}


def test_views_share_their_source_and_are_seen_through() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("Reshape", ["t", "shape"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["y"]),
        helper.make_node("MatMul", ["t", "v"], ["z"]),
    ]
    constants = {"shape": np.array([-1, 6], np.int64), "w": np.ones((6, 2), np.float32), "v": np.ones((2, 2), np.float32)}
    graph = model(nodes, {"x": ["B", 2, 3]}, {"y": None, "z": None}, constants)
    values = np.zeros((4, 2, 3), np.float32)
    values[:, 0] = 1
    firing = record(graph, signature("B", 2, 3), {"x": values}, "halves")
    assert firing.products == {"y": Activity("x", 0.5, spikes=True), "z": Activity("x", 0.5, spikes=True)}
    assert firing.rates == {"x": 0.5}


def test_of_two_activations_the_rarer_spikes_decide() -> None:
    nodes = [
        helper.make_node("Greater", ["x", "half"], ["more"]),
        helper.make_node("Cast", ["more"], ["spikes"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["spikes"], ["keys"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["x", "keys"], ["y"]),
    ]
    graph = model(nodes, {"x": ["B", 2, 2]}, {"y": None}, {"half": np.array(0.5, np.float32)})
    assert activity(graph, [[[1.0, 0.25], [0.25, 0.25]]]) == Activity("spikes", 0.25, spikes=True)


def test_convolutions() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1])]
    graph = model(nodes, {"x": ["B", 2, 4]}, {"y": None}, {"w": np.ones((3, 2, 3), np.float32)})
    assert activity(graph, [[[0, 1, 0, 0], [0, 0, 1, 0]]]) == Activity("x", 0.25, spikes=True)


def test_integer_products_are_read_as_numbers() -> None:
    """Stored 3 with zero point 3 is 0; a scale makes numbers of the others where the operator has one."""
    constants = {
        "s": np.array(0.5, np.float32),
        "one": np.array(1, np.float32),
        "z": np.array(3, np.uint8),
        "w": np.ones((4, 2), np.int8),
        "wz": np.array(0, np.int8),
        "oz": np.array(0, np.uint8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("QLinearMatMul", ["q", "s", "z", "w", "one", "wz", "one", "oz"], ["ql"]),
        helper.make_node("DequantizeLinear", ["ql", "one", "oz"], ["y"]),
        helper.make_node("MatMulInteger", ["q", "w", "z", "wz"], ["i"]),
        helper.make_node("Cast", ["i"], ["y2"], to=TensorProto.FLOAT),
        helper.make_node("DynamicQuantizeLinear", ["x"], ["dq", "ds", "dz"]),
        helper.make_node("MatMulInteger", ["dq", "w"], ["plain"]),
        helper.make_node("Cast", ["plain"], ["y3"], to=TensorProto.FLOAT),
    ]
    graph = model(nodes, {"x": ["B", 4]}, {"y": None, "y2": None, "y3": None}, constants)
    firing = record(graph, signature("B", 4), {"x": np.array([[0, 1, 0, 0]], np.float32)}, "one spike")
    assert firing.products["ql"] == Activity("x", 0.25, spikes=True)
    assert firing.products["i"] == Activity("x", 0.25, spikes=False)  # steps of 0.5: the stored number is 2
    assert firing.products["plain"] == Activity("x", 0.25, spikes=False)  # stored as 255


def test_products_inside_a_scan_are_left_dense() -> None:
    graph = scanned(3, 2)
    sig = Signature(
        (TensorSpec("v0", (1, 2)), TensorSpec("x", (3, 1, 2))), (TensorSpec("v_last", (1, 2)), TensorSpec("y", (3, 1, 2)))
    )
    firing = record(graph, sig, {"v0": np.zeros((1, 1, 2)), "x": np.ones((1, 3, 1, 2))}, "ones")
    assert firing.products == {}
    assert [op.spike_rate for op in count(graph, sig, firing).ops if op.macs] == [None]


def test_functions_are_looked_into() -> None:
    body = helper.make_function(
        "edgetk", "Product", ["x", "w"], ["y"], [helper.make_node("MatMul", ["x", "w"], ["y"])], [helper.make_opsetid("", 17)]
    )  # fmt: skip
    nodes = [helper.make_node("Product", ["x", "w"], ["y"], domain="edgetk")]
    graph = model(nodes, {"x": ["B", 3]}, {"y": None}, {"w": np.ones((3, 3), np.float32)})
    graph.functions.append(body)
    firing = record(graph, signature("B", 3), {"x": np.eye(3, dtype=np.float32)}, "rows")
    (op,) = count(graph, None, firing).ops
    assert op.spike_rate == pytest.approx(1 / 3)


X = np.ones((2, 5), np.float32)


@pytest.mark.parametrize(
    ("inputs", "origin", "text"),
    [
        ({}, "a", "firing: inputs must be x, got none; name them as the signature does"),
        ({"z": X}, "a", "firing: inputs must be x, got z; name them as the signature does"),
        ({"x": X[:, :4]}, "a", r"firing: x must have shape \(n, 5\) and hold something, got \(2, 4\); stack whole examples"),
        ({"x": X[0]}, "a", r"firing: x must have shape \(n, 5\) and hold something, got \(5,\)"),
        ({"x": X[:0]}, "a", r"firing: x must have shape \(n, 5\) and hold something, got \(0, 5\)"),
        ({"x": X}, " ", "firing: origin must say which inputs these are, got ' '; name the split and the clips"),
    ],
)
def test_inputs_it_refuses(inputs: dict[str, np.ndarray], origin: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        record(dense(batch="B"), signature("B", 5), inputs, origin)


def test_streams_it_refuses() -> None:
    text = r"firing: x must have shape \(n, steps, 1, 3\) and hold something, got \(2, 1, 3\)"
    with pytest.raises(InputError, match=text):
        record(spiking(), spiking_signature(), {"x": SPIKING_INPUT[0]}, "a")


def test_inputs_of_different_length() -> None:
    graph = model([helper.make_node("MatMul", ["a", "b"], ["y"])], {"a": ["B", 2, 2], "b": ["B", 2, 2]}, {"y": None})
    sig = Signature((TensorSpec("a", ("B", 2, 2)), TensorSpec("b", ("B", 2, 2))), (TensorSpec("y", ("B", 2, 2)),))
    with pytest.raises(
        InputError, match=r"firing: all inputs must hold the same number of examples and steps, got .*; cut them"
    ):
        record(graph, sig, {"a": np.ones((2, 2, 2)), "b": np.ones((1, 2, 2))}, "a")


def test_a_graph_that_does_not_run() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Mystery", ["h"], ["y"], domain="other"),
    ]
    graph = model(nodes, {"x": ["B", 5]}, {"y": None}, {"w": np.ones((5, 5), np.float32)})
    with pytest.raises(InputError, match=r"firing: the graph must run in ONNX Runtime, got .*; export it again"):
        record(graph, signature("B", 5), {"x": X}, "a")


def test_rates_of_another_graph_are_refused() -> None:
    firing = Firing({"elsewhere": Activity("x", 0.1, spikes=True)}, 1, 1, "a")
    text = "count: firing must be recorded from this graph, got the product elsewhere, which it lacks; record it again"
    with pytest.raises(InputError, match=text):
        count(dense(), None, firing)
