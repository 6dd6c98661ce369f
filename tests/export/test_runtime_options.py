"""Sessions of ONNX Runtime: integer sums that reach far beyond 16 bits are exact, and files with tied weights open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetk.core import runtime_options
from edgetk.core.runtime_options import open_session, session_options
from edgetk.targets.meters.agent import ort as agent

WIDTH = 64
OPENERS = pytest.mark.parametrize(
    ("options", "opener"), [(session_options, open_session), (agent.options, agent.open_session)], ids=["here", "agent"]
)


def products(layers: int, weight: int) -> onnx.ModelProto:
    """`layers` quantized products one after another, with one int8 matrix for all of them."""
    stored = {
        "weight": np.full((WIDTH, WIDTH), weight, np.int8),
        "steps": np.full(WIDTH, 1 / WIDTH, np.float32),
        "zeros": np.zeros(WIDTH, np.int8),
        "step": np.float32(1),
        "zero": np.uint8(0),
    }
    nodes = [helper.make_node("DequantizeLinear", ["weight", "steps", "zeros"], ["w"], axis=1)]
    value = "x"
    for i in range(layers):
        nodes += [
            helper.make_node("QuantizeLinear", [value, "step", "zero"], [f"q{i}"]),
            helper.make_node("DequantizeLinear", [f"q{i}", "step", "zero"], [f"d{i}"]),
            helper.make_node("MatMul", [f"d{i}", "w"], [f"y{i}"]),
        ]
        value = f"y{i}"
    kind = TensorProto.FLOAT
    x, y = (helper.make_tensor_value_info(name, kind, [1, WIDTH]) for name in ("x", value))
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "products", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@OPENERS
def test_sums_of_the_largest_codes_are_exact(options: Callable[[], Any], opener: Callable[..., Any], tmp_path: Path) -> None:
    """Two products of 255 and 127 are 64,770: twice what 16 bits hold."""
    settings = options()
    settings.optimized_model_filepath = str(tmp_path / "fused.onnx")
    session = opener(products(1, 127).SerializeToString(), settings)
    y = session.run(None, {"x": np.full((1, WIDTH), 255, np.float32)})[0]
    np.testing.assert_array_equal(y, np.full((1, WIDTH), 255 * 127, np.float32))
    fused = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert "MatMulIntegerToFloat" in fused, "the integer kernel must be what ran"


@OPENERS
def test_a_matrix_that_two_products_share_opens(options: Callable[[], Any], opener: Callable[..., Any]) -> None:
    session = opener(products(2, 64).SerializeToString(), options())
    y = session.run(None, {"x": np.arange(WIDTH, dtype=np.float32)[None] % 3})[0]
    first = 64 * (np.arange(WIDTH) % 3).sum() / WIDTH
    np.testing.assert_array_equal(y, np.full((1, WIDTH), 64 * np.round(first), np.float32))


@OPENERS
def test_other_errors_are_raised(options: Callable[[], Any], opener: Callable[..., Any]) -> None:
    with pytest.raises(Exception, match=r"Failed to load model|INVALID_PROTOBUF"):
        opener(b"not a model", options())


def test_the_agent_sets_the_same_entry() -> None:
    """It travels alone to boards and cannot ask edgetk.core."""
    assert agent.EXACT_INTEGERS == runtime_options.EXACT_INTEGERS


def test_a_path_is_opened_as_its_content_is(tmp_path: Path) -> None:
    onnx.save(products(1, 1), tmp_path / "a.onnx")
    assert [i.name for i in open_session(tmp_path / "a.onnx", session_options()).get_inputs()] == ["x"]
