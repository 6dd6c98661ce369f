"""Small random networks for the micro-benchmark suite: a kernel costs more among others than in a chain of its own kind.

Transformer blocks, layers over windows of frames, single steps of streams and convolutions on pictures, of sizes drawn from
seeds; none is a model of the zoo, and none has its sizes on purpose. Small ones fit the second cache, large ones do not: what
an operator reads has been pushed out by the operators between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto, helper

from edgetk.targets.fit_device import NETWORKS
from edgetk.targets.suite_chain import Case, Chain, floats

#: small networks of each kind, and large ones
COUNT, LARGE = 14, 8


@dataclass(frozen=True)
class Draw:
    """Sizes of one network, by chance: of a large one the layers are more and wider."""

    random: np.random.Generator
    large: bool

    def between(self, low: int, high: int) -> int:
        """low to high - 1."""
        return int(self.random.integers(low, high))

    def one_of(self, *values: int) -> int:
        return int(self.random.choice(values))

    def layers(self, low: int, high: int) -> int:
        return self.between(low, high) * (3 if self.large else 1)

    def width(self, low: int, high: int, of: int = 8) -> int:
        """A multiple of `of`, as likely small as large."""
        if self.large:
            low, high = round((low * high) ** 0.5), round(1.4 * high)
        return of * round(float(np.exp(self.random.uniform(np.log(low / of), np.log(high / of)))))


def networks() -> Iterator[Case]:
    """All of them, each in float32 and, but for pictures, in int8."""
    kinds: dict[str, Callable[[Draw, bool], Chain]] = {
        "encoder": _encoder,
        "frames": _frames,
        "step": _step,
        "stream": _stream,
        "pictures": _pictures,
        "patches": _patches,
        "spikes": _spikes,
        "tables": _tables,
    }
    for name, write in kinds.items():
        for seed in range(COUNT + LARGE):
            for precision in ("float32", "int8") if write in _QUANTIZED else ("float32",):
                chain = write(Draw(np.random.default_rng(1000 + seed), seed >= COUNT), precision == "int8")
                yield chain.case(f"{NETWORKS} {name} {seed} {precision}")


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


def _attend(chain: Chain, tokens: int, heads: int, width: int, int8: bool) -> None:
    """Attention of the last tensor to itself, projections included, behind a norm; the sum around it."""
    dim, start = heads * width, chain.last
    chain.add("LayerNormalization", chain.vector(1.0, dim), chain.vector(0.0, dim), axis=-1)
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
    chain.add("Add", start)


def _encoder(draw: Draw, int8: bool) -> Chain:
    """Blocks of attention and of two layers with GELU, norms in front, sums around."""
    tokens, heads = draw.between(20, 220), draw.one_of(2, 3, 4, 6)
    width = draw.width(16, 56)
    dim, hidden = heads * width, heads * width * draw.one_of(2, 3, 4)
    chain = Chain((1, tokens, dim))
    for _ in range(draw.layers(1, 4)):
        _attend(chain, tokens, heads, width, int8)
        middle = chain.last
        chain.add("LayerNormalization", chain.vector(1.0), chain.vector(0.0), axis=-1)
        _linear(chain, "MatMul", dim, hidden, int8)
        chain.gelu()
        _linear(chain, "MatMul", hidden, dim, int8)
        chain.add("Add", middle)
    return chain


def _frames(draw: Draw, int8: bool) -> Chain:
    """Layers that each read windows of three frames, with sums around, and a head on the mean."""
    length, width = draw.between(30, 180), draw.width(24, 300)
    chain = Chain((1, length, width))
    edge = chain.constant(np.zeros((1, 1, width), np.float32))
    for _ in range(draw.layers(2, 5)):
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


def _step(draw: Draw, int8: bool) -> Chain:
    """One frame: layers that read it with what was kept, a gate, a memory that decays."""
    width = draw.width(40, 400)
    hidden = width * draw.one_of(1, 2, 3)
    chain = Chain((1, width))
    for _ in range(draw.layers(2, 6)):
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


def _stream(draw: Draw, int8: bool) -> Chain:
    """One frame of layers that keep windows of past frames, a memory that decays, and a mean of all frames."""
    width, past = draw.width(24, 320), draw.between(1, 5)
    chain = Chain((1, width))
    for _ in range(draw.layers(2, 7)):
        start, window = chain.last, chain.state(1, past * width)
        chain.last = window
        behind = chain.add("Concat", start, axis=-1)
        chain.slice(width, (past + 1) * width)
        chain.keep(window)
        chain.last = behind
        _linear(chain, "Gemm", (past + 1) * width, width, int8)
        chain.add("Relu")
        chain.add("Add", start)
    start, memory = chain.last, chain.state(1, width)
    chain.add("Mul", chain.constant(0.1))
    driven = chain.last
    chain.last = memory
    chain.add("Mul", chain.constant(0.9 * np.ones(width, np.float32)))
    chain.add("Add", driven)
    chain.keep(memory)
    chain.add("Concat", start, axis=-1)
    _linear(chain, "Gemm", 2 * width, 12, False)
    decided, total = chain.last, chain.state(1, 12)
    chain.last = total
    chain.add("Add", decided)
    chain.keep(total)
    chain.add("Mul", chain.constant(0.01))
    return chain


def _pictures(draw: Draw, int8: bool) -> Chain:
    """Convolutions: a first one, then each channel alone and all together, by turns; a head on the mean."""
    side, channels = draw.between(14, 40), draw.width(16, 96)
    chain = Chain((1, 3, side, side))
    chain.add("Conv", chain.constant(chain.weights(channels, 3, 3, 3)), pads=[1] * 4)
    chain.add("Relu")
    for _ in range(draw.layers(2, 5)):
        chain.add("Conv", chain.constant(chain.weights(channels, 1, 3, 3)), pads=[1] * 4, group=channels)
        chain.add("Relu")
        chain.add("Conv", chain.constant(chain.weights(channels, channels, 1, 1)))
        chain.add("Relu")
    chain.add("ReduceMean", axes=[2, 3], keepdims=0)
    _linear(chain, "Gemm", channels, 12, False)
    return chain


def _patches(draw: Draw, int8: bool) -> Chain:
    """Patches of a picture as tokens: attention, and two layers with a convolution of each channel alone between them."""
    side, heads = draw.between(5, 27), draw.one_of(1, 2, 3, 4)
    width = draw.width(16, 48)
    dim, tokens = heads * width, side * side
    hidden = dim * draw.one_of(2, 3, 4)
    chain = Chain((1, 3, 2 * side, 2 * side))
    chain.add("Conv", chain.constant(chain.weights(dim, 3, 2, 2)), strides=[2, 2])
    chain.reshape(1, dim, tokens)
    chain.add("Transpose", perm=[0, 2, 1])
    for _ in range(draw.layers(1, 4)):
        if tokens < 300:
            _attend(chain, tokens, heads, width, int8)
        start = chain.last
        chain.add("LayerNormalization", chain.vector(1.0, dim), chain.vector(0.0, dim), axis=-1)
        _linear(chain, "MatMul", dim, hidden, int8)
        chain.add("Transpose", perm=[0, 2, 1])
        chain.reshape(1, hidden, side, side)
        chain.add("Conv", chain.constant(chain.weights(hidden, 1, 3, 3)), pads=[1] * 4, group=hidden)
        chain.reshape(1, hidden, tokens)
        chain.add("Transpose", perm=[0, 2, 1])
        chain.gelu()
        _linear(chain, "MatMul", hidden, dim, int8)
        chain.add("Add", start)
    return chain


def _spikes(draw: Draw, int8: bool) -> Chain:
    """Layers over frames, each with neurons that carry a membrane from frame to frame and spike, in a Scan."""
    length, width = draw.between(30, 160), draw.width(24, 360)
    chain = Chain((length, width))
    chain.constants["rest"] = np.zeros(width, np.float32)
    for index in range(draw.layers(2, 6)):
        _linear(chain, "MatMul", width, width, int8)
        chain.add("Mul", chain.constant(chain.weights(1, width) + 1))
        chain.add("Add", chain.vector(0.1))
        chain.reshape(length, 1, width)
        neurons(chain, index, width, f"threshold{index}")
        chain.reshape(length, width)
    return chain


def neurons(chain: Chain, index: int, width: int, threshold: str) -> None:
    """A Scan of leaky neurons with thresholds of their own over the last tensor, (frames, 1, width)."""
    nodes = [
        helper.make_node("Add", ["s", "e"], ["a"], name="add"),
        helper.make_node("Mul", ["a", "half"], ["m"], name="decay"),
        helper.make_node("GreaterOrEqual", ["m", threshold], ["b"], name="compare"),
        helper.make_node("Cast", ["b"], ["y"], name="spike", to=TensorProto.FLOAT),
        helper.make_node("Where", ["b", "rest", "m"], ["s_out"], name="reset"),
    ]
    chain.constants |= {"half": np.array(0.5, np.float32), "rest": np.zeros(width, np.float32)}
    chain.constants[threshold] = chain.random.uniform(0.0, 0.6, width).astype(np.float32)
    scan(chain, index, width, nodes)


def scan(chain: Chain, index: int, width: int, nodes: Sequence[NodeProto]) -> None:
    """A Scan over the last tensor, (frames, 1, width): its body reads s and e, and writes s_out and y."""
    reads, makes = ([floats(name, (1, width)) for name in names] for names in (("s", "e"), ("s_out", "y")))
    body = helper.make_graph(nodes, "body", reads, makes)
    zero = chain.constant(np.zeros((1, width), np.float32))
    outputs = [f"state{index}", f"spikes{index}"]
    node = helper.make_node("Scan", [zero, chain.last], outputs, name=f"scan{index}", body=body, num_scan_inputs=1)
    chain.nodes.append(node)
    chain.last = outputs[1]


def _tables(draw: Draw, int8: bool) -> Chain:
    """Layers whose inputs, in groups, name rows of tables by their signs; the rows of a token are weighted and added up."""
    tokens, bits = draw.between(*((100, 400) if draw.large else (8, 120))), draw.between(5, 9)
    groups, width = draw.between(4, 25), draw.width(24, 200)
    chain = Chain((tokens, groups * bits))
    offsets = chain.constant(np.arange(groups, dtype=np.int64) * 2**bits)
    powers = chain.constant(2.0 ** np.arange(bits, dtype=np.float32))
    for _ in range(draw.between(2, 6)):
        chain.reshape(tokens, groups, bits)
        read = chain.last
        chain.add("Abs")
        chain.add("ReduceMean", axes=[-1], keepdims=1)
        weight = chain.last
        chain.last = read
        chain.add("GreaterOrEqual", chain.constant(0.0))
        chain.add("Cast", to=TensorProto.FLOAT)
        chain.add("Mul", powers)
        chain.add("ReduceSum", chain.integers(-1), keepdims=0)
        chain.add("Cast", to=TensorProto.INT64)
        chosen = chain.add("Add", offsets)
        rows = chain.weights(groups * 2**bits, width)
        step = float(np.abs(rows).max()) / 127
        chain.last = chain.constant(np.round(rows / step).astype(np.int8) if int8 else rows)
        read = chain.add("Gather", chosen, axis=0)
        if int8:
            read = chain.add("Cast", to=TensorProto.FLOAT)
        chain.last = weight
        chain.reshape(tokens, 1, groups)
        chain.add("MatMul", read)
        if int8:
            chain.add("Mul", chain.vector(step, width))
        chain.reshape(tokens, width)
        _linear(chain, "MatMul", width, groups * bits, int8)
        chain.add("Add", "x")  # without it all tokens would soon name the same few rows, which stay in the nearest cache
    return chain


#: networks that are also written with their layers in int8
_QUANTIZED = frozenset({_encoder, _frames, _step, _stream, _patches, _spikes, _tables})
__all__ = ["COUNT", "networks"]
