"""Which comparisons are neurons, and which only look like them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper
from target_graphs import model, spiking, spiking_signature

from edgetk.targets.count import count

Row = tuple[str, Sequence[str], str]
H = [("Add", ["state_v", "x"], "sum"), ("Mul", ["sum", "half"], "h")]
SPIKES: list[Row] = [*H, ("GreaterOrEqual", ["h", "t"], "fires"), ("Cast", ["fires"], "y")]
NEURONS: dict[str, list[Row]] = {
    "hard reset": [*SPIKES, ("Where", ["fires", "rest", "h"], "state_v_out")],
    "soft reset": [*SPIKES, ("Mul", ["y", "t"], "loss"), ("Sub", ["h", "loss"], "state_v_out")],
    "reset by a factor": [*SPIKES, ("Sub", ["one", "y"], "kept"), ("Mul", ["h", "kept"], "state_v_out")],
    "reset where a spike is above 0": [
        *SPIKES,
        ("Greater", ["y", "rest"], "is"),
        ("Where", ["is", "rest", "h"], "state_v_out"),
    ],
    "reset in the other branch": [
        *SPIKES,
        ("Not", ["fires"], "silent"),
        ("Where", ["silent", "h", "rest"], "state_v_out"),
    ],
    "threshold first": [
        *H,
        ("LessOrEqual", ["t", "h"], "fires"),
        ("Cast", ["fires"], "y"),
        ("Where", ["fires", "rest", "h"], "state_v_out"),
    ],
    "distance to the threshold": [
        *H,
        ("Sub", ["h", "t"], "over"),
        ("GreaterOrEqual", ["over", "rest"], "fires"),
        ("Where", ["fires", "one", "rest"], "y"),
        ("Where", ["fires", "rest", "h"], "state_v_out"),
    ],
    "a threshold of the input's shape": [
        *H,
        ("Expand", ["t", "shape_of_x"], "ts"),
        ("Greater", ["h", "ts"], "fires"),
        ("Cast", ["fires"], "y"),
        ("Where", ["fires", "rest", "h"], "state_v_out"),
    ],
}
OTHERS: dict[str, list[Row]] = {
    "leaky rectifier": [
        *H,
        ("Greater", ["h", "rest"], "is"),
        ("Mul", ["h", "half"], "less"),
        ("Where", ["is", "h", "less"], "y"),
        ("Identity", ["h"], "state_v_out"),
    ],
    "mask": [*SPIKES, ("Identity", ["h"], "state_v_out")],
    "mask of something else": [*SPIKES, ("Where", ["fires", "rest", "x"], "state_v_out")],
    "equality": [
        *H,
        ("Equal", ["h", "t"], "fires"),
        ("Cast", ["fires"], "y"),
        ("Where", ["fires", "rest", "h"], "state_v_out"),
    ],
}


def updates(rows: Sequence[Row]) -> int:
    def node(kind: str, inputs: Sequence[str], output: str) -> NodeProto:
        more = {"to": TensorProto.FLOAT} if kind == "Cast" else {}
        return helper.make_node(kind, inputs, [output], name=output, **more)

    nodes = [node("Shape", ["x"], "shape_of_x"), *(node(*row) for row in rows)]
    constants = {name: np.array(value, np.float32) for name, value in (("half", 0.5), ("rest", 0), ("one", 1), ("t", 1))}
    workload = count(model(nodes, {"x": [1, 3], "state_v": [1, 3]}, {"y": None, "state_v_out": None}, constants))
    assert workload.unknown == ()
    return workload.neurons


@pytest.mark.parametrize("rows", NEURONS.values(), ids=NEURONS.keys())
def test_neurons(rows: Sequence[Row]) -> None:
    assert updates(rows) == 3


@pytest.mark.parametrize("rows", OTHERS.values(), ids=OTHERS.keys())
def test_what_is_no_neuron(rows: Sequence[Row]) -> None:
    assert updates(rows) == 0


def test_the_decision_carries_the_count() -> None:
    workload = count(spiking(), spiking_signature())
    assert {op.name: op.neurons for op in workload.ops if op.neurons} == {"a_fires": 4, "b_fires": 2}
    assert workload.neurons == workload.to_json()["neuron_updates"] == 6
