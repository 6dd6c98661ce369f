"""Latency from fitted costs of a stack's kernels: each operator is a kernel, and a kernel is a few physical terms.

    t = run + tensors · tensor + Σ_operators ( calls · call + MACs · mac + elements · element + bytes read and written · byte
                                               + weight bytes · byte of their level + … )

The coefficients, seconds of one unit each and never negative, come from a micro-benchmark suite on the device (`suite`,
`fit_device`). Weights are read from the cache level that holds all weights of the model. Bytes read and written count twice: at
the level that holds them (`byte`), and at the level that holds all weights and the largest activations (`far`), for what was
used last lies a whole run of the model back. A level fills by degrees: from 30 % of its size on a share of the bytes comes from
beyond, from 150 % on all. What comes from one level passes through those above it: each adds to the costs of those before it,
and a farther one is never cheaper. Products are counted with the columns that fill a last panel. More terms: each turn of a
Scan, each piece that bytes are moved in (`pieces`), each row that a constant vector is laid over and each element of it, each
element that is brought into blocks of channels or back, and each step down a column whose lines a cache cannot hold at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import gcd

from edgetk.core.target import Target
from edgetk.core.workload import Op, Workload
from edgetk.targets.fusion import inside, normalizes_sum
from edgetk.targets.kinds import VIEWS, is_idle, product, runs_in, weights_read, work

PREDICTOR = "kernel costs"
#: a call of the runtime itself
RUN = "run"
Costs = Mapping[str, Mapping[str, float]]
Caches = tuple[tuple[float, float], ...]
#: a cache begins to miss where what it should hold takes this share of it, and holds nothing of what takes that many times it
FULL, SMALL = 0.3, 1.5
#: bytes of a constant that is one number, and of a float
_SCALAR, _WIDTH = 8, 4
#: bytes of a line of a cache, and lines of a set: those of most processors' first and second level
LINE, WAYS = 64, 8
#: bytes of a page of memory, and channels that a block of a convolution holds: one number of each plane is read at a time
PAGE, BLOCK = 4096, 8
#: products whose weights ONNX Runtime packs, and the columns of a packed panel
_PACKED, PANEL = frozenset({"MatMul", "Gemm", "MatMulInteger", "QLinearMatMul"}), 16
#: operators that leave the channels of a convolution in blocks
_BLOCKED = frozenset({"Relu", "Clip", "AveragePool", "MaxPool", "BatchNormalization"})


def kernel(op: Op, target: Target) -> str:
    """Name of the kernel that an operator runs in: of products kind and number format, of others the operator type."""
    if not op.macs:
        if op.kind in VIEWS:
            return "Reshape"
        integers = op.dtype.startswith("int") and work(op) != "move"  # what only moves bytes does so in any number format
        return f"{op.kind}{'.strided' if op.strided else ''}{f'.{op.dtype}' if integers else ''}"
    kind = product(op)
    if op.kind in ("Conv", "ConvInteger", "QLinearConv") and op.groups == 1:
        kind = "pointwise" if op.taps == 1 else "convolution"
    if kind == "gemm" and not op.weight_bytes:
        kind = "attention"
    if runs_in(op, target) != op.dtype:
        return f"{kind}.dequantized"  # its input is brought back to float32 first
    if op.dtype == "int8":
        return f"{kind}.{'requantized' if op.requantized else 'int8'}"
    return f"{kind}.float32"


def stand_in(name: str, op: Op, costs: Costs) -> str:
    """The kernel whose costs are used: its own, that of the same product in float32, or the one of its class."""
    if name in costs:
        return name
    if op.macs:
        kind = name.partition(".")[0]
        if name.endswith(".requantized") and f"{kind}.int8" in costs:
            return f"{kind}.int8"
        return "convolution.float32" if kind == "pointwise" and "pointwise.float32" not in costs else f"{kind}.float32"
    if op.kind in costs:
        return op.kind
    if work(op) == "move":
        return "Transpose" if op.kind == "Transpose" and "Transpose" in costs else "Concat"
    return "Add" if work(op) == "element" else "Exp"


def terms(op: Op, caches: Caches, weights: float, everything: float) -> dict[str, float]:
    """How much of each thing an operator does, in a model of so many bytes of `weights`, of `everything` with activations."""
    table = op.kind == "Gather" and op.weight_bytes > _SCALAR
    moved = op.activation_bytes / (2.0 if table else 1.0)  # the rows that it reads are weights
    found = {"call": float(op.calls)}
    if op.macs or work(op) != "move":
        found["element"] = float(op.elements)
    found |= {f"byte_{at}": moved * share for at, share in levels(caches, moved / op.calls).items()}
    found |= {f"far_{at}": moved * share for at, share in levels(caches, everything).items() if at != "0"}
    if op.pieces:
        found["piece"] = float(op.pieces)
    far = conflicts(caches, *op.column)
    found |= {f"column_{at}": op.elements * share for at, share in far.items()}
    if "1" in far:  # steps that leave a page are not foreseen
        found["page"] = op.elements * far["1"] * min(1.0, op.column[0] / PAGE)
    if op.macs:
        found["mac"] = op.macs * _padding(op)
        if product(op) != "depthwise":  # whose weights are too few to tell their cost from that of the products
            found |= {f"weight_{at}": weights_read(op) * share for at, share in levels(caches, weights).items()}
    elif op.weight_bytes > _SCALAR and work(op) == "element":
        # a constant vector is laid over every row
        found |= {"span": op.elements * _WIDTH / op.weight_bytes, "laid": float(op.elements)}
    elif table:  # whose rows lie all over it
        found |= {f"weight_{at}": moved * share for at, share in levels(caches, weights).items()}
    return found


def _padding(op: Op) -> float:
    """By how much the columns of a matrix' last panel make its product larger."""
    columns = op.elements // (op.rows * op.calls)
    if product(op) != "gemm" or not op.weight_bytes or op.kind not in _PACKED or not columns:
        return 1.0
    return -(-columns // PANEL) * PANEL / columns


def levels(caches: Caches, size: float) -> dict[str, float]:
    """The level that so many bytes come from and all above it, "0", "1", … of the caches, "memory" last, each with the share
    of the bytes that come from there or beyond: a cache that is nearly full already misses, and one too small still hits."""
    if not caches:
        return {"memory": 1.0}
    found, names = {"0": 1.0}, (*map(str, range(1, len(caches))), "memory")
    for name, (room, _) in zip(names, caches, strict=True):
        found[name] = min(1.0, max(0.0, (size / room - FULL) / (SMALL - FULL)))
    return {name: share for name, share in found.items() if share}


def conflicts(caches: Caches, stride: int, count: int) -> dict[str, float]:
    """The levels "1", "2", … that serve a walk down a column, each with the share of steps that it or one beyond serves.

    A walk needs a line of the cache for each of its `count` steps, until the next walk reads the numbers beside. Steps of many
    lines that have a power of two in common fall on few of the sets of `WAYS` lines that a cache consists of.
    """
    found: dict[str, float] = {}
    for at, (size, _) in enumerate(caches[:-1] if stride else (), 1):
        sets = max(1, int(size) // (LINE * WAYS))
        met = sets // gcd(sets, stride // LINE) if stride % LINE == 0 else sets
        share = min(1.0, max(0.0, (count / (met * WAYS) - FULL) / (SMALL - FULL)))
        if share:
            found[str(at)] = share
    return found


def reordered(workload: Workload) -> dict[str, float]:
    """Elements that convolutions bring into blocks of channels and back: what they do not hand one another."""
    convolutions = {op.name: op for op in workload.ops if op.kind == "Conv"}
    kept = {op.name for op in workload.ops if op.kind in _BLOCKED} | set(convolutions)
    behind = {op.name: op.source for op in workload.ops if op.name in kept}
    found = {name: op.activation_bytes / _WIDTH for name, op in convolutions.items()}  # all that goes in and comes out
    for name, op in convolutions.items():
        before = behind[name]
        while before in kept and before not in convolutions:
            before = behind[before]
        if before in convolutions and op.dtype == "float32":
            found[name] -= op.activation_bytes / _WIDTH - op.elements
            found[before] -= convolutions[before].elements
    return {name: max(0.0, amount) for name, amount in found.items()}


def amounts(workload: Workload, target: Target) -> Iterator[tuple[Op, str, Mapping[str, float]]]:
    """Each operator that costs something with its kernel and its terms; last, the call of the runtime itself."""
    merged = inside(workload, target)
    ops = {op.name: op for op in workload.ops}
    everything = workload.weight_bytes + max((op.activation_bytes / op.calls for op in workload.ops), default=0.0)
    blocked = reordered(workload) if target.stack.runtime == "onnxruntime" else {}
    operators = 0
    for op in workload.ops:
        if _quantizes(ops, op, target):
            op = replace(op, activation_bytes=(_WIDTH + 1) * op.elements)
        if op.name in merged or (is_idle(op) and not (op.kind in VIEWS and op.elements) and op.kind != "Scan"):
            continue
        found = terms(op, target.caches, workload.weight_bytes, everything)
        operators += op.calls
        if op.kind == "Scan":
            found["turn"] = max((float(o.calls) for o in workload.ops if o.name.startswith(f"{op.name}/")), default=0.0)
        if blocked.get(op.name):
            planes = conflicts(target.caches, _WIDTH * op.rows, BLOCK)
            found["reorder"] = blocked[op.name]
            found |= {f"reorder_{at}": blocked[op.name] * share for at, share in planes.items()}
        if op.macs and runs_in(op, target) != op.dtype:  # its input goes through a QuantizeLinear and back, and both are run
            found["converted"] = op.activation_bytes - float(_WIDTH * op.elements)
        yield op, "SkipLayerNormalization" if normalizes_sum(ops, op) else kernel(op, target), found
    yield Op(RUN, RUN, 0, 0, 0, 0), RUN, {"call": 1.0, "tensor": float(workload.tensors), "operator": float(operators)}


def _quantizes(ops: Mapping[str, Op], op: Op, target: Target) -> bool:
    """True for a QuantizeLinear that ONNX Runtime runs by itself: not one that finishes a product in integers."""
    if target.stack.runtime != "onnxruntime" or op.kind != "QuantizeLinear" or op.activation_bytes:
        return False
    before = ops.get(op.source)
    return op.elements > 0 and (before is None or not before.requantized)


def seconds(workload: Workload, target: Target) -> Iterator[tuple[Op, float, bool, bool]]:
    """Each operator with its seconds, whether it runs inside another, and whether nobody knows what it does."""
    for op, name, found in amounts(workload, target):
        costs = target.kernels.get(name if name == RUN else stand_in(name, op, target.kernels), {})
        unknown = not op.macs and name not in target.kernels and name != RUN and work(op) == "unknown"
        yield op, sum(costs.get(key, 0.0) * amount for key, amount in found.items()), False, unknown
    merged = inside(workload, target)
    yield from ((op, 0.0, True, False) for op in workload.ops if op.name in merged)
