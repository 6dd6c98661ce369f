"""Energy of operations by the 45 nm table: for comparing architectures, never a board's energy and never added to it.

Source of the table: M. Horowitz, "Computing's energy problem", ISSCC 2014, fig. 1.1.9 (45 nm, 0.9 V). On real
microcontrollers a MAC costs 100 to 700 pJ, some thousand times the table's: use `roofline` for a board.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgetk.core.workload import Op, Workload
from edgetk.targets.kinds import weights_read

#: joules of one multiply-accumulate and of one addition, by number format
MAC_J: Mapping[str, float] = {"int8": 0.23e-12, "float16": 1.5e-12, "float32": 4.6e-12}
ADD_J: Mapping[str, float] = {"int8": 0.03e-12, "float16": 0.4e-12, "float32": 0.9e-12}
#: joules of one 64-bit access to an SRAM of so many bytes
SRAM_J: Mapping[int, float] = {8 * 1024: 10e-12, 32 * 1024: 20e-12, 1024 * 1024: 100e-12}
_WIDTH = {"int8": 1, "float16": 2, "float32": 4}


@dataclass(frozen=True)
class OpEnergy:
    """Joules of one inference, and of the same graph with every MAC done, all in int8 or all in float32.

    `table` names the source; `arithmetic_joules` and `memory_joules` add up to `joules`.
    """

    joules: float
    dense_int8_joules: float
    dense_fp32_joules: float
    arithmetic_joules: float
    memory_joules: float
    table: str
    assumptions: tuple[str, ...]


def op_energy(workload: Workload) -> OpEnergy:
    """Energy of the counted operations of `workload` by the table.

    A multiply-accumulate whose input is a spike costs an addition, and only where there is one (`spike_rate`); zero weights
    are not skipped. Each operator reads its weights and moves its activations once.
    """
    assumptions = [
        "45 nm table, for comparison only: not the energy of any board",
        "each byte of weights and activations is moved once, as 64-bit SRAM accesses",
        "zero weights are computed like any other",
    ]
    others = sorted({op.dtype for op in workload.ops if _format(op.dtype) != op.dtype})
    if others:
        assumptions.append(f"{', '.join(others)} at the cost of the nearest wider format of the table")
    if max(workload.weight_bytes, workload.peak_activation_bytes) > 1024 * 1024:
        assumptions.append("a memory of more than 1 MB costs as one of 1 MB: a lower bound")
    if workload.unknown:
        assumptions.append(f"not included, because not counted: {'; '.join(workload.unknown)}")
    arithmetic = sum(_arithmetic(op, _format(op.dtype), op.spike_rate) for op in workload.ops)
    memory = _memory(workload, None)
    return OpEnergy(
        joules=arithmetic + memory,
        dense_int8_joules=_dense(workload, "int8"),
        dense_fp32_joules=_dense(workload, "float32"),
        arithmetic_joules=arithmetic,
        memory_joules=memory,
        table="Horowitz, ISSCC 2014, 45 nm",
        assumptions=tuple(assumptions),
    )


def _format(dtype: str) -> str:
    """The table's format for a dtype: itself, or the nearest that is at least as wide."""
    if dtype in MAC_J:
        return dtype
    if dtype in ("bool", "uint8", "int4", "uint4", "int2", "uint2"):
        return "int8"
    return "float16" if dtype == "bfloat16" else "float32"


def _arithmetic(op: Op, dtype: str, spike_rate: float | None) -> float:
    if not op.macs:
        return op.elements * ADD_J[dtype] if op.activation_bytes else 0.0
    return op.macs * (MAC_J[dtype] if spike_rate is None else spike_rate * ADD_J[dtype])


def _sram(size: float) -> float:
    """Joules per byte moved in a memory of `size` bytes."""
    fitting = [joules for limit, joules in SRAM_J.items() if size <= limit]
    return (fitting[0] if fitting else SRAM_J[1024 * 1024]) / 8


def _memory(workload: Workload, dtype: str | None) -> float:
    """Joules of all traffic; with `dtype`, as if everything were stored in that format."""

    def scale(op: Op) -> float:
        return 1.0 if dtype is None else _WIDTH[dtype] / _WIDTH[_format(op.dtype)]

    weights = sum(weights_read(op) * scale(op) for op in workload.ops)
    activations = sum(op.activation_bytes * scale(op) for op in workload.ops)
    stored = sum(weights_read(op) + op.activation_bytes for op in workload.ops)
    stretch = (weights + activations) / stored if stored else 1.0
    weight_cost = _sram(workload.weight_bytes * stretch)
    activation_cost = _sram(workload.peak_activation_bytes * stretch)
    return weights * weight_cost + activations * activation_cost


def _dense(workload: Workload, dtype: str) -> float:
    return sum(_arithmetic(op, dtype, None) for op in workload.ops) + _memory(workload, dtype)
