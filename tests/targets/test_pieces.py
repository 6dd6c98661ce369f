"""Pieces that operators handle one by one, by hand and as a law."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from target_graphs import model

from edgetk.targets.count import count
from edgetk.targets.pieces import boxes, transposed


@pytest.mark.parametrize(
    ("shape", "order", "found"),
    [
        ((1, 6, 4, 8), (0, 2, 1, 3), 24),  # rows of 8 change places
        ((1, 6, 1, 8), (0, 2, 1, 3), 1),  # nothing does: axes of length 1 don't count
        ((1, 6, 8), (0, 2, 1), 48),
        ((4, 6, 8, 2), (1, 0, 2, 3), 24),
        ((3, 5), (0, 1), 1),
        ((0, 5), (1, 0), 0),
    ],
)
def test_pieces_of_a_transposition(shape: tuple[int, ...], order: tuple[int, ...], found: int) -> None:
    assert transposed(shape, order) == found


@pytest.mark.parametrize(
    ("shape", "order", "found"),
    [
        ((1, 6, 8), (0, 2, 1), (32, 6)),  # down 6 rows of 8 numbers
        ((1, 6, 4, 8), (0, 2, 3, 1), (128, 6)),
        ((1, 6, 4, 8), (0, 3, 1, 2), (32, 24)),  # two axes that follow one another are one column
        ((1, 6, 1, 8), (0, 3, 2, 1), (32, 6)),
        ((1, 6, 4, 8), (0, 3, 2, 1), (128, 6)),
        ((1, 6, 4, 8), (0, 2, 1, 3), (0, 0)),  # rows stay together
        ((3, 5), (0, 1), (0, 0)),
        ((1, 1), (1, 0), (0, 0)),
    ],
)
def test_columns_of_a_transposition(shape: tuple[int, ...], order: tuple[int, ...], found: tuple[int, int]) -> None:
    node = helper.make_node("Transpose", ["x"], ["y"], perm=list(order))
    (op,) = count(model([node], {"x": list(shape)}, {"y": [shape[axis] for axis in order]})).ops
    assert op.column == found


@pytest.mark.parametrize(
    ("part", "whole", "found"),
    [
        ((4, 3, 8), (4, 5, 8), 4),
        ((4, 5, 2), (4, 5, 8), 20),
        ((2, 5, 8), (4, 5, 8), 1),
        ((4, 5, 8), (4, 5, 8), 1),
        ((0, 2), (3, 2), 0),
    ],
)
def test_pieces_of_a_box(part: tuple[int, ...], whole: tuple[int, ...], found: int) -> None:
    assert boxes(part, whole) == found


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.randoms())
def test_pieces_divide_what_is_moved(shape: list[int], random: object) -> None:
    order = list(range(len(shape)))
    random.shuffle(order)  # type: ignore[attr-defined]
    found = transposed(tuple(shape), tuple(order))
    assert math.prod(shape) % found == 0
    moved = np.arange(math.prod(shape)).reshape(shape).transpose(order).ravel()
    assert found >= 1 + int(np.count_nonzero(np.diff(moved) != 1))  # each break between neighbours begins a piece


def test_pieces_of_each_kind() -> None:
    """Rows of norms, sums and choices; runs of joins and cuts; rows of a table; matrices of attention; others have none."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["a"], name="softmax", axis=-1),
        helper.make_node("ReduceMean", ["a"], ["b"], name="mean", axes=[1], keepdims=1),
        helper.make_node("Add", ["a", "b"], ["c"], name="add"),
        helper.make_node("Concat", ["c", "b"], ["d"], name="frames", axis=1),
        helper.make_node("Concat", ["d", "d"], ["e"], name="numbers", axis=2),
        helper.make_node("Slice", ["e", "zero", "three", "one"], ["f"], name="cut"),
        helper.make_node("Split", ["f"], ["g", "h"], name="split", axis=2),
        helper.make_node("Pad", ["g", "pads"], ["i"], name="pad"),
        helper.make_node("Transpose", ["h"], ["j"], name="turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["i", "j"], ["k"], name="attend"),
        helper.make_node("ArgMax", ["k"], ["l"], name="choice", axis=-1, keepdims=0),
        helper.make_node("Gather", ["table", "l"], ["y"], name="rows", axis=0),
    ]
    constants = {
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "three": np.array([3], np.int64),
        "pads": np.array([0, 1, 0, 0, 0, 0], np.int64),
        "table": np.zeros((9, 5), np.float32),
    }
    graph = model(nodes, {"x": [2, 6, 4]}, {"y": None}, constants)
    found = {op.name: op.pieces for op in count(graph).ops}
    assert found == {
        "softmax": 12, "mean": 12, "add": 0, "frames": 4, "numbers": 28, "cut": 2, "split": 12, "pad": 2, "turn": 24,
        "attend": 2, "choice": 8, "rows": 8,
    }  # fmt: skip
