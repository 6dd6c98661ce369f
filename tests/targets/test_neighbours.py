"""What a node is to its neighbours, on graphs by hand."""

from __future__ import annotations

import numpy as np
from onnx import helper
from target_graphs import Quantized, model

from edgetk.core.workload import Op
from edgetk.targets.count import count


def by_name(graph: object) -> dict[str, Op]:
    return {op.name: op for op in count(graph).ops}  # type: ignore[arg-type]


def test_the_source_is_the_one_operator_that_nobody_else_reads() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="relu"),
        helper.make_node("Reshape", ["a", "shape"], ["v"], name="view"),
        helper.make_node("Exp", ["v"], ["b"], name="exp"),
        helper.make_node("Add", ["b", "x"], ["c"], name="residual"),
        helper.make_node("Neg", ["c"], ["d"], name="neg"),
        helper.make_node("Mul", ["c", "d"], ["y"], name="both"),
    ]
    ops = by_name(model(nodes, {"x": [1, 4]}, {"y": None}, {"shape": np.array([1, 4], np.int64)}))
    found = {name: op.source for name, op in ops.items()}
    # c has two readers: neg has no source, and of what `both` reads only neg's output is its alone
    assert found == {"relu": "", "view": "relu", "exp": "relu", "residual": "exp", "neg": "", "both": "neg"}


def test_requantized_outputs_and_strided_transpositions() -> None:
    q = Quantized()
    x = q.pair("x")
    first = q.add("Conv", [x, q.weight("w0", np.ones((4, 4, 1, 1)))], "first")
    second = q.add("Conv", [q.pair(q.add("Relu", [first], "relu")), q.weight("w1", np.ones((4, 2, 1, 1)))], "second", group=2)
    q.add("Transpose", [second], "rows", perm=[0, 2, 1, 3])
    q.add("Transpose", ["rows"], "y", perm=[0, 3, 1, 2])
    ops = by_name(model(q.nodes, {"x": [1, 4, 3, 3]}, {"y": None}, q.constants))
    assert (ops["first"].requantized, ops["second"].requantized) == (True, False)
    assert (ops["first"].groups, ops["second"].groups) == (1, 2)
    assert ops["second"].source == "relu"
    assert (ops["rows"].strided, ops["y"].strided) == (False, True)
    assert ops["first"].depth == 4
