"""Generated C against onnxruntime, operator by operator: integer products to the last bit, the rest to a stated bound."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from c_graphs import Maker, needs_cc, reference, run

pytestmark = needs_cc


def dense(inputs: int, outputs: int, kind: str, form: str, seed: int = 0) -> Maker:
    """x -> 8 bits -> product with int8 weights, with a bias in one of the ways that graphs have."""
    rng, made = np.random.default_rng(seed), Maker()
    codes, scale = rng.integers(-127, 128, (inputs, outputs)), rng.uniform(1e-3, 2e-3, outputs)
    bias = rng.standard_normal(outputs)
    x = made.rounded(made.input("x", 1, inputs), 0.02, 117 if kind == "uint8" else -3, np.dtype(kind))
    made.output("y", 1, outputs)
    if form == "gemm":
        made.node("Gemm", x, made.weights(codes.T, scale, 0), made.value(bias), out="y", transB=1)
    else:
        product = made.node("MatMul", x, made.weights(codes, scale, 1))
        other = made.value(-bias if form == "Sub" else bias)
        made.node(form, product, other, out="y")
    return made


@pytest.mark.parametrize(
    ("inputs", "outputs", "kind", "form"), [(64, 32, "uint8", "Sub"), (70, 277, "uint8", "Add"), (5, 3, "int8", "gemm")]
)
def test_integer_products_are_exact(inputs: int, outputs: int, kind: str, form: str, tmp_path: Path) -> None:
    """Sums of codes are integers; the float32 arithmetic around them is the same, operation by operation."""
    model = dense(inputs, outputs, kind, form).model()
    x = np.random.default_rng(1).standard_normal((1, 8, 1, inputs)).astype(np.float32) * 2
    got = run(model, (x,), tmp_path)[0]
    expected = reference(model, (x,))[0]
    if form == "Sub":  # what onnxruntime makes an integer kernel of
        np.testing.assert_array_equal(got, expected)
    else:
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_a_product_by_hand(tmp_path: Path) -> None:
    """x = (1, -1, 0.26), scale 0.5, zero 10: codes (12, 8, 11), values (1, -1, 0.5); rows (2, 3, 4) * 0.25 and (-1, 0, 1)."""
    made = Maker()
    x = made.rounded(made.input("x", 1, 3), 0.5, 10)
    made.output("y", 1, 2)
    made.node("MatMul", x, made.weights(np.array([[2, -1], [3, 0], [4, 1]]), np.array([0.25, 1.0]), 1), out="y")
    got = run(made.model(), (np.array([[[[1.0, -1.0, 0.26]]]], np.float32),), tmp_path)[0]
    np.testing.assert_array_equal(got.reshape(-1), [0.25, -0.5])


def test_rounding_goes_to_the_even_code_and_stops_at_the_ends(tmp_path: Path) -> None:
    made = Maker()
    x = made.rounded(made.input("x", 1, 8), 1.0, 2)
    made.output("y", 1, 8)
    made.node("Mul", x, made.value(1.0), out="y")
    given = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -9.0, 252.5, 1e9], np.float32)
    got = run(made.model(), (given.reshape(1, 1, 1, 8),), tmp_path)[0]
    np.testing.assert_array_equal(got.reshape(-1), [0, 2, 2, 0, -2, -2, 252, 253])


def gelu(made: Maker, x: str) -> str:
    half = made.node("Erf", made.node("Div", x, made.value(math.sqrt(2))))
    return made.node("Mul", made.node("Mul", x, made.node("Add", half, made.value(1.0))), made.value(0.5))


def test_activations_before_a_rounding_are_tables(tmp_path: Path) -> None:
    """Every float32 argument gets the code of the exact function; onnxruntime's own erf may cross an edge of two codes."""
    made = Maker()
    x = made.node("Add", made.input("x", 1, 4096), made.value(np.zeros(4096)))
    again = made.node("Mul", x, made.value(np.ones(4096)))
    made.output("y", 1, 4096)
    made.node("Mul", made.rounded(gelu(made, again), 0.0123, 14), made.value(1.0), out="y")
    given = np.linspace(-6, 5, 4096).astype(np.float32).reshape(1, 1, 1, -1)
    model = made.model()
    got = run(model, (given,), tmp_path)[0].reshape(-1)
    assert "edgetk_lookup" in (tmp_path / "net.c").read_text()
    exact = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in given.reshape(-1).astype(float)])
    codes = np.clip(np.rint(exact / np.float32(0.0123)) + 14, 0, 255)
    np.testing.assert_array_equal(np.rint(got / np.float32(0.0123)) + 14, codes)
    assert np.mean(got != reference(model, (given,))[0].reshape(-1)) < 1e-3


def test_activations_in_float32(tmp_path: Path) -> None:
    """To 4e-7 of the exact functions, or of their size where that is larger."""
    made = Maker()
    x = made.input("x", 1, 999)
    for kind in ("Erf", "Tanh", "Sigmoid", "Exp"):
        made.output(kind.lower(), 1, 999)
        made.node(kind, x, out=kind.lower())
    given = np.linspace(-20, 10, 999).astype(np.float32)
    got = run(made.model(), (given.reshape(1, 1, 1, -1),), tmp_path)
    wide = given.astype(np.float64)
    exact = (np.array([math.erf(v) for v in wide]), np.tanh(wide), 1 / (1 + np.exp(-wide)), np.exp(wide))
    for ours, right in zip(got, exact, strict=True):
        assert np.max(np.abs(ours.reshape(-1) - right) / np.maximum(np.abs(right), 1.0)) < 4e-7


def test_elementwise_operators_and_states(tmp_path: Path) -> None:
    """A leaky neuron, a delay line, a running sum: all operators of spiking streams, over twelve steps."""
    made = Maker()
    x, v = made.input("x", 1, 6), made.input("state_v", 1, 6)
    line, total = made.input("state_line", 1, 4), made.input("state_total", 1, 6)
    for name, size in (("y", 6), ("state_v_out", 6), ("state_line_out", 4), ("state_total_out", 6)):
        made.output(name, 1, size)
    one, half = made.value(1.0), made.value(0.5)
    charged = made.node("Add", made.node("Mul", v, half), made.node("Max", x, made.node("Neg", x)))
    fired = made.node("GreaterOrEqual", charged, one)
    made.node("Where", fired, made.value(np.arange(6) / 8), charged, out="state_v_out")
    spikes = made.node("Cast", fired, to=1)
    first = made.node("Slice", spikes, made.value([0], np.int64), made.value([2], np.int64), made.value([1], np.int64))
    late = made.node("Slice", line, made.value([0], np.int64), made.value([2], np.int64), made.value([1], np.int64))
    made.node("Concat", first, late, out="state_line_out", axis=1)  # moves to the right: must not overwrite what it reads
    picked = made.node("Gather", line, made.value([3, 3, 0, 1, 2, 2], np.int64), axis=1)
    quiet = made.node("Not", made.node("And", fired, made.node("Less", x, made.value(2.0))))
    clipped = made.node("Clip", made.node("Round", made.node("Div", x, made.value(0.3))), made.value(-2.0), made.value(3.0))
    summed = made.node("Add", made.node("Add", clipped, picked), made.node("Cast", quiet, to=1))
    made.node("Sub", made.node("Add", total, summed), made.node("Min", spikes, half), out="state_total_out")
    made.node("Relu", "state_total_out", out="y")
    model = made.model()
    given = np.random.default_rng(3).standard_normal((2, 12, 1, 6)).astype(np.float32)
    np.testing.assert_array_equal(run(model, (given,), tmp_path)[0], reference(model, (given,))[0])


@pytest.mark.parametrize("groups", [1, 3])
def test_convolutions(groups: int, tmp_path: Path) -> None:
    """Dense and depthwise, with padding and strides."""
    rng, made = np.random.default_rng(5), Maker()
    x = made.rounded(made.input("x", 1, 3, 7, 5), 0.03, 100)
    outputs = 3 if groups > 1 else 4
    scale = rng.uniform(1e-3, 2e-3, outputs)
    w = made.weights(rng.integers(-127, 128, (outputs, 3 // groups, 3, 2)), scale, 0)
    bias = made.node(
        "DequantizeLinear", made.value(rng.integers(-999, 999, outputs), np.int32), made.value(scale * np.float32(0.03)),
        made.value(np.zeros(outputs), np.int32), axis=0,
    )  # fmt: skip
    made.output("y", 1, outputs, 4, 4)
    made.node("Conv", x, w, bias, out="y", group=groups, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 0])
    model = made.model()
    given = rng.standard_normal((1, 2, 1, 3, 7, 5)).astype(np.float32)
    got, expected = run(model, (given,), tmp_path)[0], reference(model, (given,))[0]
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("inputs", "outputs"), [(33, 1), (20, 37), (40, 130)])
def test_float_products(inputs: int, outputs: int, tmp_path: Path) -> None:
    rng, made = np.random.default_rng(7), Maker()
    made.output("y", 1, outputs)
    w, b = made.value(rng.standard_normal((inputs, outputs))), made.value(rng.standard_normal(outputs))
    made.node("Gemm", made.input("x", 1, inputs), w, b, out="y")
    model = made.model()
    given = rng.standard_normal((1, 3, 1, inputs)).astype(np.float32)
    got, expected = run(model, (given,), tmp_path)[0], reference(model, (given,))[0]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * inputs**0.5)
