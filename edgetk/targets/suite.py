"""Micro-benchmark suite: small graphs of known work, whose times on a device tell what its stack's kernels cost.

Most cases are chains of operators of one kind, with a cheap addition between them where a runtime would merge them; the others
are small random networks (`suite_networks`). Sizes are spread over what small networks use; none is taken from a model of the
zoo. Weights of a chain are distinct, so that a long one does not stay in the smallest cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from edgetk.targets.suite_chain import Case, Chain, Shape, case
from edgetk.targets.suite_networks import networks, neurons, scan

#: how many times an operator stands in its chain
COPIES = 6
_SIZES: tuple[Shape, ...] = ((1, 64), (1, 40, 100), (1, 100, 320), (1, 300, 400), (1, 800, 600))
#: short rows, for what handles rows one by one
_SHORT: tuple[Shape, ...] = ((1, 900, 40), (1, 250, 56), (1, 60, 24), (4, 300, 72), (6, 50, 48))
_MATRICES = ((32, 32), (64, 128), (128, 128), (96, 288), (192, 192), (256, 512), (320, 320), (512, 384))
_VECTORS = ((24, 48, 4), (64, 64, 4), (128, 160, 4), (200, 200, 3), (256, 384, 3), (384, 384, 8), (640, 640, 4))
_IMAGES = (
    (16, 24, 3),
    (32, 12, 3),
    (48, 20, 1),
    (64, 10, 3),
    (96, 14, 1),
    (128, 7, 3),
    (160, 7, 1),
    (96, 30, 3),
    (80, 32, 3),
    (40, 16, 3),
    (144, 32, 3),
    (220, 26, 3),
)
_FIRST = ((3, 40, 3, 24, 1), (1, 60, 5, 32, 2), (3, 64, 7, 48, 4), (1, 128, 3, 16, 1))
_HEADS = (
    (1, 100, 32),
    (2, 50, 32),
    (3, 80, 64),
    (4, 60, 24),
    (6, 49, 32),
    (2, 200, 16),
    (4, 150, 32),
    (3, 500, 32),
    (1, 900, 48),
)
_TRANSPOSED: tuple[tuple[Shape, Shape], ...] = (
    ((1, 40, 100), (0, 2, 1)),
    ((1, 100, 320), (0, 2, 1)),
    ((1, 50, 4, 16), (0, 2, 1, 3)),
    ((1, 150, 5, 32), (0, 2, 1, 3)),
    ((1, 4, 64, 40), (0, 2, 3, 1)),
    ((1, 900, 96), (0, 2, 1)),
    ((1, 256, 256), (0, 2, 1)),
    ((1, 64, 512), (0, 2, 1)),
    ((1, 1024, 192), (0, 2, 1)),
    ((1, 400, 8, 48), (0, 2, 1, 3)),
    ((1, 2000, 100), (0, 2, 1)),
    ((1, 900, 40), (0, 2, 1)),
    ((1, 40, 900), (0, 2, 1)),
    ((1, 72, 300), (0, 2, 1)),
    ((1, 128, 512), (0, 2, 1)),
    ((1, 48, 1024), (0, 2, 1)),
    ((1, 60, 6, 40), (0, 2, 3, 1)),
    ((1, 5, 70, 40), (0, 1, 3, 2)),
    ((1, 300, 2, 40), (0, 2, 1, 3)),
    ((1, 30, 3, 24), (0, 2, 1, 3)),
    ((1, 3, 40, 28), (0, 2, 1, 3)),
    ((1, 500, 12, 8), (0, 2, 1, 3)),
    ((1, 1024, 112), (0, 2, 1)),
    ((1, 200, 1024), (0, 2, 1)),
    ((1, 32, 2048), (0, 2, 1)),
    ((1, 512, 160), (0, 2, 1)),
    ((1, 1500, 64), (0, 2, 1)),
    ((1, 640, 3, 32), (0, 2, 3, 1)),
)
#: tokens that choose rows of a table as wide as they are
_CHOSEN: tuple[Shape, ...] = ((1, 12, 48), (1, 50, 96), (1, 300, 40), (1, 700, 280))
#: rows of a table
_ROWS = 64
#: tokens, width and rows of a table that does not fit the nearest cache
_TABLES = (
    (200, 40, 2000),
    (300, 96, 3000),
    (400, 64, 20_000),
    (500, 112, 12_000),
    (100, 256, 8000),
    (900, 250, 500),
    (1600, 120, 900),
    (500, 400, 300),
)
#: operators of one input, and their attributes
_PLAIN: Mapping[str, Mapping[str, Any]] = {
    **{kind: {} for kind in "Sqrt Exp Log Erf Sigmoid Tanh Neg Abs Sign Round Floor Reciprocal Relu".split()},  # noqa: SIM905
    "Softmax": {"axis": -1},
}


def cases() -> tuple[Case, ...]:
    """The whole suite, in an order that does not depend on anything."""
    chains = (*_tensors(), *_products(), *_convolutions(), *_attention(), *_elements(), *_moves(), *_loops())
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


def _products() -> Iterator[Case]:
    """Weights that many rows meet, and weights that one row meets, in float32 and in int8."""
    for precision in ("float32", "int8"):
        for a, b in _MATRICES:
            for rows in (3, 12, 60, 150) if a < 300 else (6, 100):
                yield _layers(f"matrix {rows}x{a}x{b}", "MatMul", (1, rows, a), a, b, 2, precision)
        for a, b, pairs in _VECTORS:
            yield _layers(f"vector {a}x{b}x{2 * pairs}", "Gemm", (1, a), a, b, pairs, precision)


def _layers(name: str, kind: str, shape: Shape, a: int, b: int, pairs: int, precision: str) -> Case:
    chain = Chain(shape)
    for first, second in ((a, b), (b, a)) * pairs:
        weight = chain.weights(second, first).T.copy()
        chain.add(kind, chain.quantized(weight, 1) if precision == "int8" else chain.constant(weight))
    return chain.case(f"{name} {precision}")


def _convolutions() -> Iterator[Case]:
    """Convolutions that follow one another; that stand alone among tokens, as in vision transformers; that read integers."""
    for channels, side, kernel in _IMAGES:
        for groups in (1, channels) if kernel > 1 else (1,):
            what = f"{channels}x{side}x{side} k{kernel} groups {groups}"
            settings: dict[str, Any] = {"pads": [kernel // 2] * 4, "group": groups}
            shape = (channels, channels // groups, kernel, kernel)
            picture = (1, channels, side, side)
            chain, lone, integer = Chain(picture), Chain((1, side * side, channels)), Chain(picture)
            for _ in range(COPIES):
                chain.add("Conv", chain.constant(chain.weights(*shape)), **settings)
                chain.add("Relu")
            for _ in range(COPIES // 2):
                lone.add("Transpose", perm=[0, 2, 1])
                lone.reshape(1, channels, side, side)
                lone.add("Conv", lone.constant(lone.weights(*shape)), **settings)
                lone.reshape(1, channels, side * side)
                lone.add("Transpose", perm=[0, 2, 1])
                lone.add("Tanh")
                integer.add("Conv", integer.quantized(integer.weights(*shape), 0), **settings)
                integer.add("Tanh")
            yield chain.case(f"convolution {what}")
            yield lone.case(f"lone convolution {what}")
            yield integer.case(f"integer convolution {what}")
    for channels, side, kernel, out, stride in _FIRST:
        chain = Chain((1, channels, side, side))
        weight = chain.constant(chain.weights(out, channels, kernel, kernel))
        chain.add("Conv", weight, pads=[kernel // 2] * 4, strides=[stride, stride])
        yield chain.case(f"first convolution {channels}x{side}x{side} k{kernel}")


def _attention() -> Iterator[Case]:
    for heads, length, width in _HEADS:
        chain = Chain((1, heads, length, width))
        for _ in range(2):
            chain.add("MatMul", "k")
            chain.shift()
            chain.add("MatMul", "v")
        more = {"k": (1, heads, width, length), "v": (1, heads, length, width)}
        yield chain.case(f"attention {heads}x{length}x{width}", more)


Write = Callable[[Chain], object]


def _repeated(name: str, size: Shape, write: Write) -> Case:
    chain = Chain(size)
    for _ in range(COPIES):
        write(chain)
        chain.shift()
    return chain.case(f"{name} {'x'.join(map(str, size))}")


def _elements() -> Iterator[Case]:
    writers: dict[str, Write] = {kind: partial(Chain.add, kind=kind, **settings) for kind, settings in _PLAIN.items()}
    writers |= {kind: partial(_with_number, kind=kind) for kind in ("Mul", "Sub", "Div", "Max", "Pow")}
    writers |= {f"{kind} of a vector": partial(_with_vector, kind=kind) for kind in ("Add", "Mul")}
    writers |= {f"{kind} of two": partial(_with_input, kind=kind) for kind in ("Add", "Mul", "Sub", "Div", "Max")}
    writers |= {kind: partial(_reduced, kind=kind) for kind in ("ReduceMean", "ReduceL2", "ReduceSum")}
    writers["ReduceMean of frames"] = partial(_reduced, kind="ReduceMean", axis=-2)
    writers |= {"Clip": _clip, "Where": _where, "Cast": _cast, "QuantizeLinear": _quantize, "Gelu": Chain.gelu}
    writers |= {"LayerNormalization": _normalize, "SkipLayerNormalization": _normalize_sum}
    for size in _SIZES:
        for name, write in writers.items():
            yield _repeated(name, size, write)
    for size in _SHORT:
        for name in ("Softmax", "LayerNormalization", "SkipLayerNormalization", "ReduceMean", "ReduceL2", "ReduceSum"):
            yield _repeated(name, size, writers[name])


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


def _cast(chain: Chain) -> None:
    chain.add("Greater", chain.constant(0.0))
    chain.add("Cast", to=TensorProto.FLOAT)


def _quantize(chain: Chain) -> None:
    chain.quantize()
    chain.add("Cast", to=TensorProto.FLOAT)


def _normalize(chain: Chain) -> None:
    chain.add("LayerNormalization", chain.vector(1.0), chain.vector(0.0), axis=-1)


def _normalize_sum(chain: Chain) -> None:
    chain.add("Add", "x")
    _normalize(chain)


def _moves() -> Iterator[Case]:
    for size in _SIZES:
        yield _repeated("Concat", size, _halves)
        yield _grown(size)
        yield _shortened(size)
        yield _repeated("Split", size, _split)
        yield _repeated("Reshape", size, _regroup)
        yield _repeated("Shape", size, _shape)
    for size in _SIZES[1:3]:
        yield _repeated("Pad", size, _pad)
        yield _repeated("Expand", size, _expand)
        yield _repeated("Gather", size, _gather)
    for size in _CHOSEN:
        yield _repeated("ArgMax", size, _largest)
        yield _repeated("Gather of rows", size, _rows)
    for tokens, width, rows in _TABLES:
        yield _repeated("Gather of rows", (1, tokens, width), partial(_far_rows, rows=rows))
    for size in _SHORT:
        yield _repeated("Split", size, _split)
        yield _repeated("Concat", size, _halves)
    for size, order in _TRANSPOSED:
        yield _repeated("Transpose", size, partial(_transpose, order=order))


def _halves(chain: Chain) -> None:
    whole = chain.last
    chain.slice(0, chain.shape[-1] // 2)
    chain.add("Concat", whole, axis=-1)
    chain.slice(0, chain.shape[-1])


def _grown(size: Shape) -> Case:
    """Frames that are put in front of others, as the edges of windows are."""
    chain = Chain(size)
    edge = chain.constant(np.zeros((*size[:-2], 1, size[-1]), np.float32))
    for _ in range(COPIES):
        behind, chain.last = chain.last, edge
        chain.add("Concat", behind, axis=len(size) - 2)
        chain.shift()
    return chain.case(f"frames in front {'x'.join(map(str, size))}")


def _shortened(size: Shape) -> Case:
    """Windows of frames: a slice that is one shorter each time; of a single frame, of its numbers."""
    chain, axis = Chain(size), len(size) - 2 if size[-2] > COPIES else len(size) - 1
    for index in range(COPIES):
        chain.slice(1, size[axis] - index, axis)
        chain.shift()
    return chain.case(f"Slice {'x'.join(map(str, size))}")


def _split(chain: Chain) -> None:
    first = chain.add("Split", outputs=2, axis=-1)
    chain.add("Concat", f"{first.rpartition('_')[0]}_1", axis=-1)


def _regroup(chain: Chain) -> None:
    chain.reshape(-1, chain.shape[-1] // 2)
    chain.shift()
    chain.add("Reshape", chain.integers(*chain.shape))


def _pad(chain: Chain) -> None:
    chain.add("Pad", chain.integers(0, 1, 0, 0, 0, 0))
    chain.slice(1, chain.shape[1] + 1, 1)


def _expand(chain: Chain) -> None:
    chain.slice(0, 1, 1)
    chain.add("Expand", chain.integers(*chain.shape))


def _shape(chain: Chain) -> None:
    """The shape of a tensor cut, joined and laid on it again, as exporters write what depends on the batch."""
    value = chain.last
    chain.add("Shape")
    chain.slice(0, len(chain.shape) - 1, 0)
    chain.add("Concat", chain.integers(chain.shape[-1]), axis=0)
    shape, chain.last = chain.last, value
    chain.add("Reshape", shape)


def _gather(chain: Chain) -> None:
    chain.add("Gather", chain.constant(np.array(0, np.int64)), axis=1)
    chain.add("Unsqueeze", chain.integers(1))
    chain.add("Add", "x")


def _largest(chain: Chain) -> None:
    chain.add("ArgMax", axis=-1, keepdims=1)
    chain.add("Cast", to=TensorProto.FLOAT)
    chain.add("Add", "x")


def _rows(chain: Chain) -> None:
    """Each token takes the row that its largest number, of the first ones, names."""
    table = chain.constant(chain.weights(_ROWS, chain.shape[-1]))
    chain.slice(0, min(_ROWS, chain.shape[-1]))
    chosen = chain.add("ArgMax", axis=-1, keepdims=0)
    chain.last = table
    chain.add("Gather", chosen, axis=0)
    chain.add("Add", "x")


def _far_rows(chain: Chain, rows: int) -> None:
    """Each token takes a row that its first number names, of a table of its own."""
    table = chain.constant(chain.weights(rows, chain.shape[-1]))
    chain.slice(0, 1)
    chain.add("Squeeze", chain.integers(-1))
    chain.add("Mul", chain.constant(0.3 * rows))
    chain.add("Abs")
    chain.add("Min", chain.constant(float(rows - 1)))
    chosen = chain.add("Cast", to=TensorProto.INT64)
    chain.last = table
    chain.add("Gather", chosen, axis=0)
    chain.add("Add", "x")


def _transpose(chain: Chain, order: Shape) -> None:
    chain.add("Transpose", perm=list(order))
    chain.reshape(*chain.shape)


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
