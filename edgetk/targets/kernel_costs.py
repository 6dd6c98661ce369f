"""Latency from fitted costs of a stack's kernels: each operator is a kernel, and a kernel is a few physical terms.

    t(op) = calls · call + MACs · mac + elements · element + bytes read and written · byte + Σ_level weight bytes in it · level

The coefficients, seconds of one unit each and never negative, come from a micro-benchmark suite on the device (`suite`).
Weights are read from the smallest cache level that holds all weights of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgetk.core.target import Target
from edgetk.core.workload import Op, Workload
from edgetk.targets.kinds import fused, is_idle, product, runs_in, weights_read, work

PREDICTOR = "kernel costs"
#: operators whose kernels are timed one by one; all others are timed as a class
OWN = frozenset({"LayerNormalization", "Softmax", "Erf", "Transpose", "Concat", "QuantizeLinear", "Scan"})


def kernel(op: Op, target: Target) -> str:
    """Name of the kernel an operator runs in: of products kind and number format, of others the operator type or its class."""
    if op.macs:
        where = "conv" if op.kind in ("Conv", "ConvInteger", "QLinearConv") and op.groups == 1 else product(op)
        if where == "gemm" and not op.weight_bytes:
            where = "batched"
        return f"{where}.{'int8' if runs_in(op, target) == 'int8' else 'float32'}"
    return op.kind if op.kind in OWN else work(op)


def terms(op: Op, level: str) -> Mapping[str, float]:
    """How much of each thing an operator does; `level` is the cache level that its weights come from."""
    found = {
        "call": float(op.calls),
        "mac": float(op.macs),
        "element": float(op.elements),
        "byte": float(op.activation_bytes),
    }
    if op.macs:
        found[f"weight_{level}"] = float(weights_read(op))
    return found


def level(target: Target, weight_bytes: float) -> str:
    """The smallest level that holds the weights of a model: "0", "1", … of the board's caches, or "memory"."""
    return next((str(i) for i, (size, _) in enumerate(target.caches) if weight_bytes <= size), "memory")


def seconds(workload: Workload, target: Target) -> Iterator[tuple[Op, float, bool, bool]]:
    """Each operator with its seconds, whether it runs inside the one before, and whether a stand-in was used."""
    ops = {op.name: op for op in workload.ops}
    where = level(target, workload.weight_bytes)
    for op in workload.ops:
        inside = fused(ops, op, target)
        if inside or is_idle(op):
            yield op, 0.0, inside, False
            continue
        name = kernel(op, target)
        costs = target.kernels.get(name) or target.kernels["transcendental"]
        found = sum(costs.get(key, 0.0) * amount for key, amount in terms(op, where).items())
        yield op, found, False, name not in target.kernels


def assert_complete(kernels: Mapping[str, Mapping[str, float]]) -> None:
    """Raise ValueError where the stand-in for unknown kernels is missing."""
    if "transcendental" not in kernels:
        raise ValueError("kernel costs: must hold the kernel transcendental, the stand-in of unknown ones; fit it again")
