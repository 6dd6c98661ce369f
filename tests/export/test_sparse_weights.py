"""The 2:4 pattern is found in stored matrices, whichever way they lie, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetk.export.sparse_weights import has_two_of_four


def graph(*matrices: np.ndarray) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(m, f"w{i}") for i, m in enumerate(matrices)]
    y = helper.make_tensor_value_info("w0", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph([], "g", [], [y], tensors))


def sparse(rows: int = 40, columns: int = 64, kept: int = 2) -> np.ndarray:
    """(rows, columns) with so many of each four columns, at random places."""
    rng = np.random.default_rng(0)
    order = rng.random((rows, columns // 4, 4)).argsort(-1)
    return ((order < kept) * (1 + rng.random(order.shape))).reshape(rows, columns).astype(np.float32)


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int8])
def test_found_along_either_axis(kind: type) -> None:
    matrix = sparse().astype(kind)
    assert has_two_of_four(graph(np.ones((64, 64), np.float32), matrix))
    assert has_two_of_four(graph(np.ascontiguousarray(matrix.T)))
    assert has_two_of_four(graph(sparse(kept=1).astype(kind)))


def test_not_found_elsewhere() -> None:
    dense = np.ones((64, 64), np.float32)
    assert not has_two_of_four(graph(dense))
    assert not has_two_of_four(graph(sparse(kept=3)))
    assert not has_two_of_four(graph(sparse(8, 64)))  # too small to matter
    assert not has_two_of_four(graph(np.zeros((4, 16, 64), np.float32)))  # no matrix
    broken = sparse()
    broken[7, :3] = 1.0
    assert not has_two_of_four(graph(broken))
    odd = np.concatenate([sparse(41), np.ones((41, 2), np.float32)], axis=1)  # 66 columns are no multiple of four
    assert not has_two_of_four(graph(odd))
