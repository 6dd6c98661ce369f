"""A Scan counts as its body, once for each iteration: the same as the graph unrolled over time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from target_graphs import model, neuron_constants, scanned, unrolled

from edgetk.core.workload import Workload
from edgetk.targets.count import count
from edgetk.targets.kinds import weights_read


def totals(workload: Workload) -> dict[str, int]:
    assert workload.unknown == ()
    return {
        "macs": workload.macs,
        "elements": sum(op.elements for op in workload.ops),
        "activation_bytes": sum(op.activation_bytes for op in workload.ops),
        "weights_read": sum(weights_read(op) for op in workload.ops),
        "neurons": workload.neurons,
        "calls": sum(op.calls for op in workload.ops if op.kind != "Scan"),
        "weight_bytes": workload.weight_bytes,
        "parameters": workload.parameters,
    }


def test_by_hand() -> None:
    workload = count(scanned(5, 4))
    ops = {op.name: op for op in workload.ops}
    assert (ops["scan"].kind, ops["scan"].elements, ops["scan"].activation_bytes, ops["scan"].calls) == ("Scan", 0, 0, 1)
    product = ops["scan/product"]
    assert (product.macs, product.weight_bytes, product.activation_bytes, product.calls) == (5 * 16, 64, 5 * 32, 5)
    assert weights_read(product) == 5 * 64
    decision = ops["scan/n_fires"]
    assert (decision.neurons, decision.elements, decision.activation_bytes) == (20, 20, 5 * (16 + 4))
    assert ops["scan/n_sum"].activation_bytes == 5 * 3 * 16  # membrane and drive read, their sum written
    assert (workload.parameters, workload.weight_bytes) == (16 + 4 + 4, 4 * (16 + 4 + 4 + 1))


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 7), st.integers(1, 5))
def test_scan_counts_as_unrolled(steps: int, width: int) -> None:
    assert totals(count(scanned(steps, width))) == totals(count(unrolled(steps, width)))


def test_a_dead_last_reset_is_still_an_update() -> None:
    assert count(unrolled(5, 4, last=False)).neurons == count(unrolled(5, 4)).neurons == 20


def scan(body: list[NodeProto], outputs: tuple[str, str], name: str = "scan", **attributes: object) -> NodeProto:
    """A Scan with the carried a (3) and the slice e (3)."""
    graph = helper.make_graph(
        body,
        "body",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in ("a", "e")],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in ("b", "f")],
    )
    return helper.make_node("Scan", ["x", "xs"], list(outputs), name=name, body=graph, num_scan_inputs=1, **attributes)


ADD = [helper.make_node("Add", ["a", "e"], ["b"], name="add"), helper.make_node("Identity", ["b"], ["f"], name="id")]


def test_the_axis_of_a_sequence() -> None:
    graph = model([scan(ADD, ("l", "y"), scan_input_axes=[1])], {"x": [3], "xs": [3, 7]}, {"l": None, "y": None})
    workload = count(graph)
    assert [(op.name, op.calls, op.elements) for op in workload.ops] == [
        ("scan", 1, 0),
        ("scan/add", 7, 21),
        ("scan/id", 7, 21),
    ]


def test_the_peak_holds_the_sequences_and_one_iteration() -> None:
    workload = count(model([scan(ADD, ("l", "y"))], {"x": [3], "xs": [4, 3]}, {"l": None, "y": None}))
    # outside: x 12, xs 48, l 12, y 48; inside, besides slices of them: the carried a and b
    assert workload.peak_activation_bytes == 120 + 24


def test_two_bodies_with_constants_of_one_name() -> None:
    def body(value: float, width: int) -> list[NodeProto]:
        constant = numpy_helper.from_array(np.full(width, value, np.float32))
        return [
            helper.make_node("Constant", [], ["c"], value=constant),
            helper.make_node("Mul", ["e", "c"], ["scaled"]),
            helper.make_node("Add", ["a", "scaled"], ["b"]),
            helper.make_node("Identity", ["b"], ["f"]),
        ]

    nodes = [scan(body(1, 3), ("l1", "y1"), "one"), scan(body(2, 1), ("l2", "y2"), "two")]
    workload = count(model(nodes, {"x": [3], "xs": [4, 3]}, dict.fromkeys(("l1", "y1", "l2", "y2"))))
    assert (workload.unknown, workload.parameters, workload.weight_bytes) == ((), 3 + 1, 4 * (3 + 1))


def test_a_scan_in_a_scan() -> None:
    inner = helper.make_graph(
        [helper.make_node("Add", ["c", "s"], ["d"], name="add"), helper.make_node("Identity", ["d"], ["t"], name="id")],
        "inner",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, []) for n in ("c", "s")],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, []) for n in ("d", "t")],
    )
    body = [
        helper.make_node("ReduceSum", ["e"], ["zero"], name="sum", keepdims=0),
        helper.make_node("Scan", ["zero", "e"], ["end", "f"], name="inner", body=inner, num_scan_inputs=1),
        helper.make_node("Add", ["a", "end"], ["b"], name="add"),
    ]
    workload = count(model([scan(body, ("l", "y"))], {"x": [3], "xs": [4, 3]}, {"l": None, "y": None}))
    assert workload.unknown == ()
    assert {op.name: op.calls for op in workload.ops}["scan/inner/add"] == 4 * 3
    assert {op.name: op.elements for op in workload.ops}["scan/inner/add"] == 4 * 3


def test_functions_with_a_scan_are_counted() -> None:
    """As exporters write neurons over time: an edgetk function around a Scan, the threshold among its inputs."""
    inside = scanned(5, 4).graph.node[0]
    body = helper.make_function(
        "edgetk", "Neurons", ["v0", "x", "w", "half", "n_t", "n_r"], ["v_last", "y"], [inside], [helper.make_opsetid("", 17)]
    )  # fmt: skip
    call = helper.make_node(
        "Neurons", ["v0", "x", "w", "half", "n_t", "n_r"], ["v_last", "y"], domain="edgetk", name="neurons"
    )  # fmt: skip
    constants = {**neuron_constants("n", 4), "w": np.eye(4, dtype=np.float32)}
    graph = model([call], {"v0": [1, 4], "x": [5, 1, 4]}, {"v_last": None, "y": None}, constants)
    graph.functions.append(body)
    assert totals(count(graph)) == totals(count(scanned(5, 4)))


def test_what_is_inside_and_cannot_be_counted_is_named() -> None:
    body = [helper.make_node("Mystery", ["a"], ["b"], name="m", domain="other"), helper.make_node("Identity", ["e"], ["f"])]
    workload = count(model([scan(body, ("l", "y"))], {"x": [3], "xs": [4, 3]}, {"l": None, "y": None}))
    assert "Mystery scan/m: no rule for the domain other" in workload.unknown


def shapeless() -> ModelProto:
    nodes = [helper.make_node("Mystery", [], ["x"], name="m", domain="other"), scan(ADD, ("l", "y"))]
    return model(nodes, {"xs": [4, 3]}, {"l": None, "y": None})


def old() -> ModelProto:
    body = helper.make_graph(
        ADD,
        "body",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in ("a", "e")],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in ("b", "f")],
    )
    node = helper.make_node("Scan", ["", "x", "xs"], ["l", "y"], name="scan", body=body, num_scan_inputs=1)
    graph = model([node], {"x": [1, 3], "xs": [1, 4, 3]}, {"l": None, "y": None})
    graph.opset_import[0].version = 8
    return graph


@pytest.mark.parametrize(
    ("graph", "text"),
    [
        (shapeless, "Scan scan: the shape of x cannot be inferred"),
        (old, "Scan scan: only the Scan of operator set 9 and later has a rule"),
    ],
)
def test_a_scan_without_a_rule_is_named(graph: object, text: str) -> None:
    assert callable(graph)
    assert text in count(graph()).unknown
