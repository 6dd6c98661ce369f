"""Micro-benchmarks of products: layers of weights, convolutions, attention, and matrices that each token has for itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgetk.targets.suite_chain import COPIES, Case, Chain, Shape

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
#: tokens that each have a matrix of their own, which their numbers meet: batches of small products
_OWN = ((60, 24), (150, 48), (200, 72), (300, 88), (400, 104))


def products() -> Iterator[Case]:
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


def convolutions() -> Iterator[Case]:
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


def attention() -> Iterator[Case]:
    """Products without weights: of queries, keys and values, and of tokens with matrices of their own."""
    for heads, length, width in _HEADS:
        chain = Chain((1, heads, length, width))
        for _ in range(2):
            chain.add("MatMul", "k")
            chain.shift()
            chain.add("MatMul", "v")
        more = {"k": (1, heads, width, length), "v": (1, heads, length, width)}
        yield chain.case(f"attention {heads}x{length}x{width}", more)
    for tokens, width in _OWN:
        chain = Chain((tokens, 1, width))
        for _ in range(2):
            for name in "kv":
                chain.add("MatMul", name)
                chain.shift()
        yield chain.case(f"own matrices {tokens}x{width}", dict.fromkeys("kv", (tokens, width, width)))
