"""Micro-benchmark suite: small graphs of known work, whose times on a device tell what its stack's kernels cost.

Most cases are chains of operators of one kind, with a cheap addition between them where a runtime would merge them; the others
are small random networks (`suite_networks`). Sizes are spread over what small networks use; none is taken from a model of the
zoo. Weights of a chain are distinct, so that a long one does not stay in the smallest cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from edgetk.targets.suite_chain import SHORT, SIZES, Case, Chain, Shape, Write, case, repeated
from edgetk.targets.suite_moves import moves
from edgetk.targets.suite_networks import networks, neurons, scan
from edgetk.targets.suite_products import attention, convolutions, products

#: few numbers in a row
_FEW: tuple[Shape, ...] = ((1, 200, 6), (1, 3000, 4), (1, 9000, 7))
#: more than a core's share of a last cache, for the kernels that tell best what a byte from beyond costs
_LARGE: tuple[Shape, ...] = ((1, 1100, 900), (1, 1500, 1400), (1, 2500, 1700))
_BOUND_BY_MEMORY = ("Mul", "Add of two", "Cast", "QuantizeLinear", "LayerNormalization")
#: operators of one input, and their attributes
_PLAIN: Mapping[str, Mapping[str, Any]] = {
    **{kind: {} for kind in "Sqrt Exp Log Erf Sigmoid Tanh Neg Abs Sign Round Floor Reciprocal Relu".split()},  # noqa: SIM905
    "Softmax": {"axis": -1},
}


def cases() -> tuple[Case, ...]:
    """The whole suite, in an order that does not depend on anything."""
    chains = (*_tensors(), *products(), *convolutions(), *attention(), *_elements(), *moves(), *_loops())
    return (*chains, *networks())


def _tensors() -> Iterator[Case]:
    """Many small tensors that go in and come out, and states of a stream that go in again."""
    for n in (2, 10, 24):
        nodes = [helper.make_node("Neg", [f"x{i}"], [f"y{i}"], name=f"n{i}") for i in range(n)]
        inputs, outputs = ({f"{letter}{i}": (1, 64) for i in range(n)} for letter in "xy")
        yield case(f"tensors {n}", nodes, inputs, dict(outputs))

    for n, width in ((4, 48), (9, 300), (18, 120)):
        nodes = [helper.make_node("Neg", [f"s{i}"], [f"s{i}_out"], name=f"n{i}") for i in range(n)]
        nodes.append(helper.make_node("Neg", ["x"], ["y"], name="last"))
        yield case(f"states {n}x{width}", nodes, {"x": (1, 64)}, {"y": (1, 64)}, states={f"s{i}": (1, width) for i in range(n)})


def _elements() -> Iterator[Case]:
    writers: dict[str, Write] = {kind: partial(Chain.add, kind=kind, **settings) for kind, settings in _PLAIN.items()}
    writers |= {kind: partial(_with_number, kind=kind) for kind in ("Mul", "Sub", "Div", "Max", "Min", "Pow")}
    writers |= {f"{kind} of a vector": partial(_with_vector, kind=kind) for kind in ("Add", "Mul")}
    writers |= {f"{kind} of two": partial(_with_input, kind=kind) for kind in ("Add", "Mul", "Sub", "Div", "Max")}
    writers |= {kind: partial(_reduced, kind=kind) for kind in ("ReduceMean", "ReduceL2", "ReduceSum")}
    writers["ReduceMean of frames"] = partial(_reduced, kind="ReduceMean", axis=-2)
    writers |= {
        "Clip": _clip,
        "Where": _where,
        "GreaterOrEqual": partial(_cast, kind="GreaterOrEqual"),
        "Cast": _cast,
        "QuantizeLinear": _quantize,
        "Gelu": Chain.gelu,
    }
    writers |= {"LayerNormalization": _normalize, "SkipLayerNormalization": _normalize_sum}
    for size in SIZES:
        for name, write in writers.items():
            yield repeated(name, size, write)
    for size in SHORT:
        for name in ("Softmax", "LayerNormalization", "SkipLayerNormalization", "ReduceMean", "ReduceL2", "ReduceSum"):
            yield repeated(name, size, writers[name])
    for size in _FEW:
        for name in ("ReduceMean", "ReduceSum", "Mul of a vector", "GreaterOrEqual"):
            yield repeated(name, size, writers[name])
    for size in _LARGE:
        for name in _BOUND_BY_MEMORY:
            yield repeated(name, size, writers[name])


def _with_number(chain: Chain, kind: str) -> None:
    chain.add(kind, chain.constant(2.0 if kind == "Pow" else 1.01))


def _with_vector(chain: Chain, kind: str) -> None:
    chain.add(kind, chain.vector(1.01))


def _with_input(chain: Chain, kind: str) -> None:
    chain.add(kind, "x")


def _reduced(chain: Chain, kind: str, axis: int = -1) -> None:
    if kind == "ReduceSum":
        chain.add(kind, chain.integers(axis), keepdims=1)
    else:
        chain.add(kind, axes=[axis], keepdims=1)
    chain.add("Add", "x")


def _clip(chain: Chain) -> None:
    chain.add("Clip", chain.constant(-2.0), chain.constant(2.0))


def _where(chain: Chain) -> None:
    value = chain.last
    chain.add("Greater", chain.constant(0.0))
    chain.add("Where", value, "x")


def _cast(chain: Chain, kind: str = "Greater") -> None:
    chain.add(kind, chain.constant(0.0))
    chain.add("Cast", to=TensorProto.FLOAT)


def _quantize(chain: Chain) -> None:
    chain.quantize()
    chain.add("Cast", to=TensorProto.FLOAT)


def _normalize(chain: Chain) -> None:
    chain.add("LayerNormalization", chain.vector(1.0), chain.vector(0.0), axis=-1)


def _normalize_sum(chain: Chain) -> None:
    chain.add("Add", "x")
    _normalize(chain)


def _loops() -> Iterator[Case]:
    """Scans whose body adds the slice to a state that decays; longer ones compare it too, which tells a turn from a body."""
    short = [
        helper.make_node("Add", ["s", "e"], ["y"], name="add"),
        helper.make_node("Mul", ["y", "half"], ["s_out"], name="decay"),
    ]
    full = [
        helper.make_node("Mul", ["s", "half"], ["d"], name="decay"),
        helper.make_node("Add", ["d", "e"], ["m"], name="add"),
        helper.make_node("GreaterOrEqual", ["m", "half"], ["b"], name="compare"),
        helper.make_node("Cast", ["b"], ["y"], name="spike", to=TensorProto.FLOAT),
        helper.make_node("Where", ["b", "half", "m"], ["s_out"], name="reset"),
    ]
    for nodes, sizes in ((full, ((20, 32), (60, 128), (120, 64), (90, 320))), (short, ((30, 48), (110, 96), (80, 400)))):
        for length, width in sizes:
            chain = Chain((length, 1, width))
            chain.constants["half"] = np.array(0.5, np.float32)
            for index in range(2):
                scan(chain, index, width, nodes)
            yield chain.case(f"scan {length}x{width} of {len(nodes)}")
    for length, width in ((100, 80), (150, 200), (60, 600)):
        chain = Chain((length, 1, width))
        for index in range(2):
            neurons(chain, index, width, f"threshold{index}")
        yield chain.case(f"neurons {length}x{width}")
