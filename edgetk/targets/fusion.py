"""Which operators a stack computes inside another one, and which therefore cost nothing of their own.

A rectifier behind a product runs while the product's output is in registers (in ONNX Runtime not behind MatMul). ONNX Runtime
also makes one kernel of the error function with the operators around it (GELU), another of a normalization with the sum before
it, and puts the scale of an attention's product into it. On a GPU, chains of element-wise operators become one kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgetk.core.target import Target
from edgetk.core.workload import Op, Workload
from edgetk.targets.kinds import is_idle, work

_RECTIFIERS = frozenset({"Relu", "Clip"})
#: bytes of a constant that scales a whole tensor
_SCALAR = 8


def inside(workload: Workload, target: Target) -> frozenset[str]:
    """Names of the operators that run inside another."""
    ops = {op.name: op for op in workload.ops}
    found = {op.name for op in workload.ops if _follows(ops, op, target)}
    if target.stack.runtime == "onnxruntime":
        found |= {name for op in workload.ops if op.kind == "Erf" for name in _gelu(ops, op)}
        found |= {op.source for op in workload.ops if normalizes_sum(ops, op)}
    return frozenset(found)


def normalizes_sum(ops: Mapping[str, Op], op: Op) -> bool:
    """True for a normalization that alone reads the sum of two activations."""
    before = ops.get(op.source)
    return op.kind == "LayerNormalization" and before is not None and before.kind == "Add" and not before.weight_bytes


def _follows(ops: Mapping[str, Op], op: Op, target: Target) -> bool:
    before = ops.get(op.source)
    if before is None:
        return False
    if before.macs and op.kind in _RECTIFIERS:
        return target.stack.runtime != "onnxruntime" or before.kind in ("Conv", "Gemm")
    if target.stack.runtime == "onnxruntime" and before.macs and not before.weight_bytes:
        return op.kind in ("Mul", "Div") and 0 < op.weight_bytes <= _SCALAR
    return target.kind == "gpu" and work(op) in ("element", "transcendental") and not op.macs and not is_idle(before)


def _gelu(ops: Mapping[str, Op], erf: Op) -> set[str]:
    """0.5 x (1 + erf(x / √2)): the division before, the addition behind, and the two products."""
    found = {erf.source} if erf.source and ops[erf.source].kind in ("Div", "Mul") else set()
    last = erf
    for kind in ("Add", "Mul", "Mul"):
        following = next((op for op in ops.values() if op.source == last.name and op.kind == kind), None)
        if following is None:
            break
        found.add(following.name)
        last = following
    return found
