"""Latency of each operator: the longer of its arithmetic and its memory traffic, and the cost of calling it.

    t = calls · overhead + max( (MACs / (MACs per cycle · achievable share) + elements · cycles per element) / clock,
                                Σ bytes / bandwidth of the level they lie in )          (Williams et al. 2009, roofline)

Achievable shares are given by kind of product, cycles per element by kind of operator. Weights come from the smallest cache
that holds all weights of the model, because each inference reads them all (on a microcontroller from its flash); activations
from the smallest that holds the peak of live activations. What a stack computes inside another operator costs nothing of its
own (`fusion`). Where a board has fitted costs of its stack's kernels (`kernel_costs`), those are used instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgetk.core import units
from edgetk.core.target import Target
from edgetk.core.workload import Op, Workload
from edgetk.targets import kernel_costs
from edgetk.targets.fusion import inside
from edgetk.targets.kinds import is_idle, product, runs_in, weights_read, work

PREDICTOR = "roofline"
#: cycles of one element where the board gives none: a vector unit handles several at once
_CYCLES = {"mcu": {"product": 0.0, "element": 3.0, "transcendental": 40.0}}
_CYCLES_ELSEWHERE = {"product": 0.0, "element": 0.5, "transcendental": 4.0}


@dataclass(frozen=True)
class Timed:
    """Seconds of one operator, all its calls: to call it, to compute, and to move bytes; the longer of the last two counts.

    `fused`: it runs inside the operator before it. `fallback`: nobody told edgetk what it does.
    """

    op: Op
    call_s: float
    compute_s: float
    memory_s: float
    fused: bool = False
    fallback: bool = False

    @property
    def seconds(self) -> float:
        return self.call_s + max(self.compute_s, self.memory_s)


def timed(workload: Workload, target: Target) -> tuple[Timed, ...]:
    """Every operator with its time. The target must give clock, bandwidth and MACs per cycle of float32, or kernel costs."""
    if target.kernels:
        return tuple(Timed(op, 0.0, s, 0.0, f, unknown) for op, s, f, unknown in kernel_costs.seconds(workload, target))
    assert target.mem_bytes_per_s is not None
    weights = target.mem_bytes_per_s if target.kind == "mcu" else bandwidth(target, workload.weight_bytes)
    byte_s = (1 / weights, 1 / bandwidth(target, workload.peak_activation_bytes))
    merged = inside(workload, target)
    return tuple(_timed(op, target, byte_s, op.name in merged) for op in workload.ops)


def _timed(op: Op, target: Target, byte_s: tuple[float, float], merged: bool) -> Timed:
    if merged or is_idle(op):
        return Timed(op, 0.0, 0.0, 0.0, merged)
    kind = "product" if op.macs else work(op)
    compute = cycles(op, target) / (target.clock_hz or 1.0)
    memory = weights_read(op) * byte_s[0] + op.activation_bytes * byte_s[1]
    return Timed(op, target.overhead_s_per_op * op.calls, compute, memory, fallback=kind == "unknown")


def cycles(op: Op, target: Target) -> float:
    """Clock cycles of an operator's arithmetic; one that nobody knows computes like the dearest of the element-wise ones."""
    default = _CYCLES.get(target.kind, _CYCLES_ELSEWHERE)
    if op.macs:
        dtype = runs_in(op, target)
        rate = target.macs_per_cycle.get(dtype, target.macs_per_cycle["float32"])
        per_element = target.cycles.get("product", default["product"])
        return op.macs / (rate * target.achievable.get(product(op), 1.0)) + op.elements * per_element / _lanes(target)
    kind = work(op)
    if kind == "move":
        return 0.0
    kind = "transcendental" if kind == "unknown" else kind
    return op.elements * target.cycles.get(kind, default[kind]) / _lanes(target)


def _lanes(target: Target) -> float:
    """How many elements are handled side by side: the CUDA cores of a GPU; 1 where `cycles` are those of one core."""
    return target.macs_per_cycle["float32"] if target.kind == "gpu" else 1.0


def bandwidth(target: Target, footprint: float) -> float:
    """Bytes per second of the smallest level that holds `footprint` bytes."""
    for size, speed in target.caches:
        if footprint <= size:
            return speed
    assert target.mem_bytes_per_s is not None
    return target.mem_bytes_per_s


def assumptions(workload: Workload, target: Target, rows: tuple[Timed, ...]) -> tuple[str, ...]:
    """What a latency from `rows` rests on, in words."""
    if target.kernels:
        found = ["one thread; each kernel alone, no overlap of operators"]
    else:
        found = [f"{'the whole GPU' if target.kind == 'gpu' else 'one core'}; no overlap of operators"]
        used = {runs_in(op, target) for op in workload.ops if op.macs}
        if target.overhead_s_per_op:
            calls = sum(row.op.calls for row in rows if row.call_s)
            found.append(f"{units.seconds(target.overhead_s_per_op)} for each of {calls} operator calls")
        found += [
            f"{dtype} runs at the rate of float32: {target.name} gives none of its own"
            for dtype in sorted(used - {*target.macs_per_cycle})
        ]
        if any("assumed" in target.sources.get(key, "") for key in _used(used, target)):
            found.append("some numbers of the board are assumed: see its sources")
    if (n := sum(row.fused for row in rows)) > 0:
        found.append(f"{n} operator(s) run inside the one before them")
    if strange := sorted({row.op.kind for row in rows if row.fallback}):
        text = "fallback: a call, its bytes, and each element like an exponential"
        found.append(f"no cost of {', '.join(strange)} is known; {text}")
    if workload.unknown:
        found.append(
            f"{len(workload.unknown)} part(s) of the graph could not be counted, their work is missing, a lower bound: "
            f"{workload.unknown[0]}"
        )
    return (*found, *workload.assumed)


def _used(dtypes: set[str], target: Target) -> list[str]:
    rates = [f"macs_per_cycle.{dtype if dtype in target.macs_per_cycle else 'float32'}" for dtype in dtypes]
    tables = [f"{table}.{key}" for table in ("achievable", "cycles") for key in getattr(target, table)]
    return ["clock_hz", "mem_bytes_per_s", "overhead_s_per_op", *rates, *tables]
