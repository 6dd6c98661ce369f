"""Small random networks for the micro-benchmark suite: a kernel costs more among others than in a chain of its own kind.

Transformer blocks, layers over windows of frames, single steps of streams and convolutions on pictures, of sizes drawn from
seeds; none is a model of the zoo, and none has its sizes on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from edgetk.targets.fit_device import NETWORKS
from edgetk.targets.suite_chain import Case, Chain

#: networks of each kind
COUNT = 6


def networks() -> Iterator[Case]:
    """All of them, each in float32 and, but for pictures, in int8."""
    kinds: dict[str, Callable[[np.random.Generator, bool], Chain]] = {
        "encoder": _encoder,
        "frames": _frames,
        "step": _step,
        "pictures": _pictures,
    }
    for name, write in kinds.items():
        for seed in range(COUNT):
            for precision in ("float32",) if write is _pictures else ("float32", "int8"):
                chain = write(np.random.default_rng(1000 + seed), precision == "int8")
                yield chain.case(f"{NETWORKS} {name} {seed} {precision}")


def _size(random: np.random.Generator, low: int, high: int, of: int = 8) -> int:
    """A multiple of `of`, as likely small as large."""
    return of * round(float(np.exp(random.uniform(np.log(low / of), np.log(high / of)))))


def _linear(chain: Chain, kind: str, inputs: int, outputs: int, int8: bool) -> None:
    """A product with a bias: MatMul and Add, or Gemm; in int8 MatMul and Sub, as exported layers have it.

    ONNX Runtime makes one Gemm of MatMul and Add, which no longer runs in int8 and decodes its weights at every run.
    """
    weight = chain.weights(outputs, inputs).T.copy()
    bias = chain.constant(chain.weights(outputs))
    if int8:
        chain.add("MatMul", chain.quantized(weight, 1))
        chain.add("Sub", bias)
    elif kind == "Gemm":
        chain.add("Gemm", chain.constant(weight), bias)
    else:
        chain.add("MatMul", chain.constant(weight))
        chain.add("Add", bias)


def _encoder(random: np.random.Generator, int8: bool) -> Chain:
    """Blocks of attention and of two layers with GELU, norms in front, sums around."""
    tokens, heads = int(random.integers(20, 220)), int(random.choice([2, 3, 4, 6]))
    width = _size(random, 16, 56)
    dim, hidden = heads * width, heads * width * int(random.choice([2, 3, 4]))
    chain = Chain((1, tokens, dim))
    for _ in range(int(random.integers(1, 4))):
        start = chain.last
        chain.add("LayerNormalization", chain.vector(1.0), chain.vector(0.0), axis=-1)
        read, parts = chain.last, []
        for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
            chain.last = read
            _linear(chain, "MatMul", dim, dim, int8)
            chain.reshape(1, tokens, heads, width)
            parts.append(chain.add("Transpose", perm=order))
        chain.last = parts[0]
        chain.add("MatMul", parts[1])
        chain.add("Mul", chain.constant(float(width**-0.5)))
        chain.add("Softmax", axis=-1)
        chain.add("MatMul", parts[2])
        chain.add("Transpose", perm=[0, 2, 1, 3])
        chain.reshape(1, tokens, dim)
        _linear(chain, "MatMul", dim, dim, int8)
        middle = chain.add("Add", start)
        chain.add("LayerNormalization", chain.vector(1.0), chain.vector(0.0), axis=-1)
        _linear(chain, "MatMul", dim, hidden, int8)
        chain.gelu()
        _linear(chain, "MatMul", hidden, dim, int8)
        chain.add("Add", middle)
    return chain


def _frames(random: np.random.Generator, int8: bool) -> Chain:
    """Layers that each read windows of three frames, with sums around, and a head on the mean."""
    length, width = int(random.integers(30, 180)), _size(random, 24, 300)
    chain = Chain((1, length, width))
    edge = chain.constant(np.zeros((1, 1, width), np.float32))
    for _ in range(int(random.integers(2, 5))):
        start = chain.last
        chain.add("Concat", edge, axis=1)
        behind = chain.last
        chain.last = edge
        whole = chain.add("Concat", behind, axis=1)
        parts = []
        for first in range(3):
            chain.last = whole
            chain.slice(first, first + length, 1)
            parts.append(chain.last)
        chain.last = parts[0]
        chain.add("Concat", *parts[1:], axis=-1)
        _linear(chain, "MatMul", 3 * width, width, int8)
        chain.add("Relu")
        chain.add("Add", start)
    chain.add("ReduceMean", axes=[1], keepdims=0)
    _linear(chain, "Gemm", width, 12, False)
    return chain


def _step(random: np.random.Generator, int8: bool) -> Chain:
    """One frame: layers that read it with what was kept, a gate, a memory that decays."""
    width = _size(random, 40, 400)
    hidden = width * int(random.choice([1, 2, 3]))
    chain = Chain((1, width))
    for _ in range(int(random.integers(2, 6))):
        start = chain.last
        chain.add("Concat", "x", axis=-1)
        _linear(chain, "Gemm", 2 * width, hidden, int8)
        chain.add("Relu")
        _linear(chain, "Gemm", hidden, width, int8)
        gate = chain.add("Sigmoid")
        chain.last = start
        chain.add("Mul", gate)
        chain.add("Mul", chain.constant(chain.weights(width)))
        chain.add("Add", "x")
        value = chain.last
        chain.add("Greater", chain.constant(0.0))
        chain.add("Where", value, start)
        chain.slice(0, width // 2)
        half = chain.last
        chain.last = value
        chain.slice(width // 2, width)
        chain.add("Concat", half, axis=-1)
        chain.slice(0, width)
    _linear(chain, "Gemm", width - width % 2, 12, False)
    return chain


def _pictures(random: np.random.Generator, int8: bool) -> Chain:
    """Convolutions: a first one, then each channel alone and all together, by turns; a head on the mean."""
    side, channels = int(random.integers(14, 40)), _size(random, 16, 96)
    chain = Chain((1, 3, side, side))
    chain.add("Conv", chain.constant(chain.weights(channels, 3, 3, 3)), pads=[1] * 4)
    chain.add("Relu")
    for _ in range(int(random.integers(2, 5))):
        chain.add("Conv", chain.constant(chain.weights(channels, 1, 3, 3)), pads=[1] * 4, group=channels)
        chain.add("Relu")
        chain.add("Conv", chain.constant(chain.weights(channels, channels, 1, 1)))
        chain.add("Relu")
    chain.add("ReduceMean", axes=[2, 3], keepdims=0)
    _linear(chain, "Gemm", channels, 12, False)
    return chain


__all__ = ["COUNT", "networks"]
