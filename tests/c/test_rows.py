"""Operators of whole clips in generated C against onnxruntime: rows, axes, parts of tensors, several rows at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from c_graphs import Maker, needs_cc, program, reference, run
from hypothesis import given
from hypothesis import strategies as st

from edgetk.core.errors import PreconditionError
from edgetk.export.c.elementwise import index
from edgetk.export.c.operands import Constant
from edgetk.export.c.steps import Convolve, Strided


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.lists(st.booleans(), min_size=4, max_size=4), st.integers(0, 3))
def test_operands_repeat_as_numpy_repeats_them(sizes: list[int], once: list[bool], missing: int) -> None:
    shape = tuple(sizes)
    own = tuple(1 if o else s for o, s in zip(once, shape, strict=False))[min(missing, len(shape) - 1) :]
    places = np.arange(int(np.prod(own))).reshape(own)
    text = index(Constant(places), shape)
    found = [eval(text.replace("/", "//"), {"i": i}) for i in range(int(np.prod(shape)))]
    assert found == np.broadcast_to(places, shape).reshape(-1).tolist()


def check(made: Maker, folder: Path, *shape: int, atol: float = 2e-6, seed: int = 0) -> None:
    """Two steps of C and of onnxruntime, with differences as a share of the largest result."""
    model = made.model()
    x = np.random.default_rng(seed).standard_normal((1, 2, *shape)).astype(np.float32)
    got, expected = run(model, (x,), folder)[0], reference(model, (x,))[0]
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol * max(1.0, float(np.abs(expected).max())))


@needs_cc
def test_rows_and_axes(tmp_path: Path) -> None:
    """Layer norm, softmax, sum, mean and length, over the last axis and over others, root, power and sign."""
    rng, made = np.random.default_rng(1), Maker()
    x = made.input("x", 1, 5, 6, 19)
    made.output("y", 1, 5, 6, 19)
    normed = made.node(
        "LayerNormalization", x, made.value(rng.uniform(0.5, 2, 19)), made.value(rng.standard_normal(19)), axis=-1
    )
    bare = made.node("LayerNormalization", x, made.value(np.ones(19)), axis=-1, epsilon=1e-3)
    attention = made.node("Softmax", made.node("Mul", x, made.value(5.0)), axis=-1)
    length = made.node("ReduceL2", x, axes=[-1], keepdims=1)
    mean = made.node("ReduceMean", made.node("Pow", x, made.value(2.0)), axes=[2, 3], keepdims=1)
    total = made.node("ReduceSum", x, made.value([1], np.int64), keepdims=1)
    root = made.node("Pow", made.node("Abs", x), made.value(0.5))
    signed = made.node("Mul", made.node("Sign", x), made.node("Sqrt", length))
    terms = [normed, bare, attention, mean, total, root, signed]
    for term in terms[1:-1]:
        terms[0] = made.node("Add", terms[0], term)
    made.node("Sub", terms[0], signed, out="y")
    check(made, tmp_path, 1, 5, 6, 19)


@needs_cc
def test_roots_and_softmax_at_the_ends(tmp_path: Path) -> None:
    made = Maker()
    x = made.input("x", 1, 6)
    made.output("root", 1, 6)
    made.output("share", 1, 6)
    made.node("Sqrt", x, out="root")
    made.node("Softmax", x, out="share", axis=1)
    given = np.array([0.0, 1e-20, 4.0, 1e30, 2.0, -0.0], np.float32)
    root, share = run(made.model(), (given.reshape(1, 1, 1, 6),), tmp_path)
    np.testing.assert_allclose(root.reshape(-1), np.sqrt(given), rtol=3e-7, atol=2e-20)
    np.testing.assert_allclose(share.reshape(-1), [0, 0, 0, 1, 0, 0], rtol=0, atol=1e-37)


@needs_cc
def test_axes_in_another_order_and_tensors_side_by_side(tmp_path: Path) -> None:
    made = Maker()
    x = made.input("x", 1, 7, 3, 8)
    made.output("y", 1, 3, 12, 7)
    turned = made.node("Transpose", x, perm=[0, 2, 1, 3])
    sizes = made.value([3, 3, 2], np.int64)
    made.nodes.append(_split(turned, sizes))
    rows = made.node("Concat", "c", "b", "a", axis=-1)
    slope = made.node(
        "Slice",
        rows,
        made.value([0], np.int64),
        made.value([8], np.int64),
        made.value([3], np.int64),
        made.value([2], np.int64),
    )
    made.node("Transpose", made.node("Concat", rows, slope, axis=3), perm=[0, 1, 3, 2], out="y")
    check(made, tmp_path, 1, 7, 3, 8, atol=0)
    assert sum(isinstance(step, Strided) for step in program(made.model()).plan.steps) >= 4


def _split(x: str, sizes: str):  # type: ignore[no-untyped-def]
    from onnx import helper

    return helper.make_node("Split", [x, sizes], ["a", "b", "c"], name="split", axis=-1)


@needs_cc
def test_several_rows_and_products_of_two_tensors(tmp_path: Path) -> None:
    """Codes by int8 weights with a bias, a matrix for each head, and attention's two products, for 6 rows."""
    rng, made = np.random.default_rng(2), Maker()
    x = made.rounded(made.input("x", 1, 6, 10), 0.02, 117)
    made.output("y", 1, 2, 6, 4)
    dense = made.node("MatMul", x, made.weights(rng.integers(-127, 128, (10, 16)), rng.uniform(1e-3, 2e-3, 16), 1))
    biased = made.node("Sub", dense, made.value(rng.standard_normal(16)))
    heads = made.node("Transpose", made.node("Reshape", biased, made.value([1, 6, 2, 8], np.int64)), perm=[0, 2, 1, 3])
    other = made.node("MatMul", heads, made.value(rng.standard_normal((1, 2, 8, 4))))
    weights = made.node("MatMul", other, made.node("Transpose", other, perm=[0, 1, 3, 2]))
    made.node("MatMul", made.node("Softmax", weights, axis=-1), other, out="y")
    check(made, tmp_path, 1, 6, 10, atol=1e-5)


@needs_cc
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolutions_in_float(depthwise: bool, tmp_path: Path) -> None:
    rng, made = np.random.default_rng(3), Maker()
    x = made.input("x", 1, 4, 9, 6)
    outputs = 4 if depthwise else 5
    made.output("y", 1, outputs, 5, 6)
    weights, bias = (
        made.value(rng.standard_normal((outputs, 1 if depthwise else 4, 3, 3))),
        made.value(rng.standard_normal(outputs)),
    )
    made.node("Conv", x, weights, bias, out="y", pads=[1, 1, 1, 1], strides=[2, 1], group=4 if depthwise else 1)
    check(made, tmp_path, 1, 4, 9, 6)
    (step,) = (s for s in program(made.model()).plan.steps if isinstance(s, Convolve))
    assert step.scale is None


def refused(*nodes: tuple[str, list[object], dict[str, object]], shape: tuple[int, ...] = (1, 4, 6)) -> str:
    made = Maker()
    x = made.input("x", *shape)
    made.output("y", *shape)
    for i, (kind, constants, attributes) in enumerate(nodes):
        stored = [made.value(c, np.asarray(c).dtype if np.asarray(c).dtype == np.int64 else np.float32) for c in constants]
        x = made.node(kind, x, *stored, out="y" if i == len(nodes) - 1 else None, **attributes)
    from onnx import helper

    graph = helper.make_graph(made.nodes, "net", made.inputs, made.outputs, made.constants)
    with pytest.raises(PreconditionError) as caught:
        program(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    return str(caught.value)


def test_each_limit_is_one_sentence() -> None:
    assert refused(("LayerNormalization", [np.ones((4, 6))], {"axis": 1})) == (
        "c: LayerNormalization must be along the last axis, with one output, got LayerNormalization_0; export it to onnx"
    )
    assert refused(("Softmax", [], {"axis": 1})) == "c: Softmax must be along the last axis, got Softmax_0; export it to onnx"
    assert refused(("ReduceMean", [], {"axes": [0, 2], "keepdims": 1}), shape=(2, 4, 6)) == (
        "c: axes of ReduceMean must lie side by side, got ReduceMean_0 over [0, 2]; reduce them one by one"
    )
    assert refused(("Pow", [3.0], {})) == "c: Pow must have the exponent 2 or 0.5, got Pow_0; write it another way"
    assert refused(("MatMul", [np.ones((3, 6, 6))], {})) == (
        "c: products must have one constant matrix, or one for each head, got MatMul_0 of [1, 4, 6] and [3, 6, 6]; write it so"
    )
    assert refused(("Conv", [np.ones((4, 4, 3))], {"pads": [1, 1]})) == (
        "c: convolutions must be over pictures, at batch 1, with constant weights, got Conv_0; export it to onnx"
    )
    order = np.random.default_rng(0).permutation(3000)
    assert refused(("Gather", [order], {"axis": 1}), shape=(1, 3000)) == (
        "c: elements must be moved in a regular order, got Gather Gather_0; write it another way"
    )


def test_products_of_two_tensors_need_the_same_axes() -> None:
    made = Maker()
    made.output("y", 2, 4, 4)
    made.node("MatMul", made.input("a", 2, 4, 6), made.input("b", 6, 4), out="y")
    with pytest.raises(PreconditionError) as caught:
        program(made.model())
    assert str(caught.value) == (
        "c: products must have constant weights, or two computed tensors of as many axes, got MatMul MatMul_0 of [2, 4, 6] "
        "and [6, 4]; write it so"
    )
