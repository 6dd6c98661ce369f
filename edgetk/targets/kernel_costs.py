"""Latency from fitted costs of a stack's kernels: each operator is a kernel, and a kernel is a few physical terms.

    t = run + tensors · tensor + Σ_operators ( calls · call + MACs · mac + elements · element + bytes read and written · byte
                                               + weight bytes · byte of their level + … )

The coefficients, seconds of one unit each and never negative, come from a micro-benchmark suite on the device (`suite`,
`fit_device`). Weights are read from the smallest cache level that holds all weights of the model. Bytes read and written count
twice: at the level that holds them (`byte`), and at the level that holds all weights and the largest activations (`far`), for
what was used last lies a whole run of the model back. What comes from one level passes through those above it: each level adds
to the costs of those before it, and a farther one is never cheaper. More terms: each turn of a Scan, each row that a constant
vector is laid over, and each element that is brought into blocks of channels or back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgetk.core.target import Target
from edgetk.core.workload import Op, Workload
from edgetk.targets.fusion import inside, normalizes_sum
from edgetk.targets.kinds import VIEWS, is_idle, product, runs_in, weights_read, work

PREDICTOR = "kernel costs"
#: a call of the runtime itself
RUN = "run"
Costs = Mapping[str, Mapping[str, float]]
Caches = tuple[tuple[float, float], ...]
#: bytes of a constant that is one number, and of a float
_SCALAR, _WIDTH = 8, 4
#: operators that leave the channels of a convolution in blocks
_BLOCKED = frozenset({"Relu", "Clip", "AveragePool", "MaxPool", "BatchNormalization"})


def kernel(op: Op, target: Target) -> str:
    """Name of the kernel that an operator runs in: of products kind and number format, of others the operator type."""
    if not op.macs:
        return "Reshape" if op.kind in VIEWS else f"{op.kind}{'.strided' if op.strided else ''}"
    kind = "convolution" if op.kind in ("Conv", "ConvInteger", "QLinearConv") and op.groups == 1 else product(op)
    if kind == "gemm" and not op.weight_bytes:
        kind = "attention"
    if runs_in(op, target) != op.dtype:
        return f"{kind}.dequantized"  # its input is brought back to float32 first
    return f"{kind}.{'int8' if op.dtype == 'int8' else 'float32'}"


def stand_in(name: str, op: Op, costs: Costs) -> str:
    """The kernel whose costs are used: its own, that of the same product in float32, or the one of its class."""
    if name in costs:
        return name
    if op.macs:
        return f"{name.partition('.')[0]}.float32"
    if work(op) == "move":
        return "Transpose" if op.kind == "Transpose" and "Transpose" in costs else "Concat"
    return "Add" if work(op) == "element" else "Exp"


def terms(op: Op, caches: Caches, weights: float, everything: float) -> dict[str, float]:
    """How much of each thing an operator does, in a model of so many bytes of `weights`, of `everything` with activations."""
    moved = float(op.activation_bytes)
    found = {"call": float(op.calls), "element": float(op.elements)}
    found |= {f"byte_{at}": moved for at in levels(caches, moved / op.calls)}
    found |= {f"far_{at}": moved for at in levels(caches, everything)[1:]}
    if op.macs:
        found["mac"] = float(op.macs)
        if product(op) != "depthwise":  # whose weights are too few to tell their cost from that of the products
            found |= {f"weight_{at}": float(weights_read(op)) for at in levels(caches, weights)}
    elif op.weight_bytes > _SCALAR and work(op) == "element":
        found["span"] = op.elements * _WIDTH / op.weight_bytes  # a constant vector is laid over every row
    return found


def levels(caches: Caches, size: float) -> tuple[str, ...]:
    """The level that holds so many bytes and all above it: "0", "1", … of the caches, "memory" last."""
    names = (*map(str, range(len(caches))), "memory")
    return names[: 1 + next((i for i, (room, _) in enumerate(caches) if size <= room), len(caches))]


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
    for op in workload.ops:
        if op.name in merged or (is_idle(op) and not (op.kind in VIEWS and op.elements) and op.kind != "Scan"):
            continue
        found = terms(op, target.caches, workload.weight_bytes, everything)
        if op.kind == "Scan":
            found["turn"] = max((float(o.calls) for o in workload.ops if o.name.startswith(f"{op.name}/")), default=0.0)
        if blocked.get(op.name):
            found["reorder"] = blocked[op.name]
        if op.macs and runs_in(op, target) != op.dtype:  # its input goes through a QuantizeLinear and back, and both are run
            found["converted"] = op.activation_bytes - float(_WIDTH * op.elements)
        yield op, "SkipLayerNormalization" if normalizes_sum(ops, op) else kernel(op, target), found
    yield Op(RUN, RUN, 0, 0, 0, 0), RUN, {"call": 1.0, "tensor": float(workload.tensors)}


def seconds(workload: Workload, target: Target) -> Iterator[tuple[Op, float, bool, bool]]:
    """Each operator with its seconds, whether it runs inside another, and whether nobody knows what it does."""
    for op, name, found in amounts(workload, target):
        costs = target.kernels.get(name if name == RUN else stand_in(name, op, target.kernels), {})
        unknown = not op.macs and name not in target.kernels and name != RUN and work(op) == "unknown"
        yield op, sum(costs.get(key, 0.0) * amount for key, amount in found.items()), False, unknown
    merged = inside(workload, target)
    yield from ((op, 0.0, True, False) for op in workload.ops if op.name in merged)
