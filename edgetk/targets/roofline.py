"""First-order prediction: an operator takes the longer of its arithmetic and its memory traffic.

    latency = Σ_ops max(MACs / (MACs per cycle · clock), bytes / bandwidth) + overhead      (Williams et al. 2009, roofline)

Whether the model fits comes first: what does not fit has no latency. Energy is power times latency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgetk.core import units
from edgetk.core.figures import Missing, Predicted
from edgetk.core.target import Target
from edgetk.core.workload import Op, Workload
from edgetk.targets.kinds import weights_read

PREDICTOR = "roofline"


@dataclass(frozen=True)
class Fit:
    """Whether a model has room on a board: bytes it needs, and one reason for each memory that is too small.

    `ok` is None where the board does not say what it holds.
    """

    flash_bytes: int
    ram_bytes: int
    ok: bool | None
    reasons: tuple[str, ...]


def fits(workload: Workload, target: Target) -> Fit:
    """Flash holds the weights; RAM holds activations and state, and the weights too unless they run from flash (mcu)."""
    flash = workload.weight_bytes
    ram = workload.peak_activation_bytes + workload.state_bytes
    if target.kind != "mcu":
        ram += workload.weight_bytes
    needs = (("flash", flash, target.flash_bytes), ("RAM", ram, target.ram_bytes))
    reasons = [
        f"needs {units.size(need)} of {name}, has {units.size(has)}"
        for name, need, has in needs
        if has is not None and need > has
    ]
    if workload.unknown and not workload.peak_activation_bytes:
        reasons.append(f"RAM is not known: {workload.unknown[-1]}")
    silent = target.flash_bytes is None or target.ram_bytes is None
    return Fit(flash, ram, None if silent and not reasons else not reasons, tuple(reasons))


def predict(workload: Workload, target: Target) -> list[Predicted | Missing]:
    """Flash, RAM, latency, energy, and for a stream the real-time factor, of one inference on one target."""
    fit = fits(workload, target)
    flash = _predicted("flash", fit.flash_bytes, target, "weights only: the runtime's own code is not included")
    if workload.unknown:
        reason = f"{len(workload.unknown)} part(s) of the graph could not be counted: {workload.unknown[0]}"
        return [flash, *(_missing(metric, reason, target) for metric in _metrics(workload, "ram"))]
    resident = "weights stay in flash" if target.kind == "mcu" else "weights are loaded into RAM"
    ram = _predicted(
        "ram", fit.ram_bytes, target, f"live activations and state, {resident}; the runtime's own memory is not included"
    )
    if fit.ok is False:
        reason = f"does not fit: {'; '.join(fit.reasons)}"
        return [flash, ram, *(_missing(metric, reason, target) for metric in _metrics(workload))]
    latency = _latency(workload, target)
    if isinstance(latency, Missing):
        return [flash, ram, *(_missing(metric, latency.reason, target) for metric in _metrics(workload))]
    figures: list[Predicted | Missing] = [flash, ram, latency, _energy(workload, target, latency)]
    if workload.period_s:
        figures.append(_predicted("realtime_factor", latency.value / workload.period_s, target, *latency.assumptions))
    return figures


def _metrics(workload: Workload, *first: str) -> tuple[str, ...]:
    return (*first, "latency", "energy", *(("realtime_factor",) if workload.period_s else ()))


def _predicted(metric: str, value: float, target: Target, *assumptions: str) -> Predicted:
    return Predicted(metric, value, PREDICTOR, str(target), assumptions)


def _missing(metric: str, reason: str, target: Target) -> Missing:
    return Missing(metric, reason, str(target))


def op_seconds(op: Op, target: Target) -> float:
    """Time of one operator, all its calls. Operators that move nothing and compute nothing (views, folded constants) take none.

    The target must give clock, bandwidth and MACs per cycle of float32.
    """
    if not op.macs and not op.activation_bytes:
        return 0.0
    assert target.clock_hz is not None
    assert target.mem_bytes_per_s is not None
    rate = target.macs_per_cycle.get(op.dtype, target.macs_per_cycle["float32"])
    traffic = (weights_read(op) + op.activation_bytes) / target.mem_bytes_per_s
    return max(op.macs / (rate * target.clock_hz), traffic) + target.overhead_s_per_op * op.calls


def _latency(workload: Workload, target: Target) -> Predicted | Missing:
    absent = [name for name in ("clock_hz", "mem_bytes_per_s") if getattr(target, name) is None]
    if "float32" not in target.macs_per_cycle:
        absent.append("macs_per_cycle.float32")
    if absent:
        measured = "; it is measured, not predicted" if target.measurable else ""
        return _missing("latency", f"{target.name} does not give {', '.join(absent)}{measured}", target)
    assumptions = [f"{_runs_on(target)}; no caches, no overlap of operators"]
    if target.overhead_s_per_op:
        assumptions.append(f"{units.seconds(target.overhead_s_per_op)} for each operator")
    assumptions += [
        f"{dtype} runs at the rate of float32: {target.name} gives none of its own"
        for dtype in workload.macs_by_dtype()
        if dtype not in target.macs_per_cycle
    ]
    if any("assumed" in target.sources.get(key, "") for key in _used(workload.macs_by_dtype(), target)):
        assumptions.append("some numbers of the board are assumed: see its sources")
    return _predicted("latency", sum(op_seconds(op, target) for op in workload.ops), target, *assumptions)


def _used(macs: Mapping[str, int], target: Target) -> Sequence[str]:
    rates = [f"macs_per_cycle.{dtype if dtype in target.macs_per_cycle else 'float32'}" for dtype in macs]
    return ["clock_hz", "mem_bytes_per_s", "overhead_s_per_op", *rates]


def _runs_on(target: Target) -> str:
    return "the whole GPU at its peak rate" if target.kind == "gpu" else "one core"


def _energy(workload: Workload, target: Target, latency: Predicted) -> Predicted | Missing:
    """Board energy of one inference, idle share included: power times latency, else joules per MAC of the calibration."""
    if target.power_w is not None:
        text = (
            f"{units.si(target.power_w, 'W')} while it runs, idle share included ({target.sources.get('power_w', 'no source')})"
        )
        return _predicted("energy", target.power_w * latency.value, target, text, *latency.assumptions)
    table = target.calibration.get("joules_per_mac", {})
    macs = workload.macs_by_dtype()
    absent = [dtype for dtype in macs if dtype not in table]
    if not table or absent:
        missing = f"power_w, nor calibration.joules_per_mac of {', '.join(absent) or 'any number format'}"
        return _missing("energy", f"{target.name} does not give {missing}", target)
    text = f"joules per MAC of {target.calibration.get('source', 'the calibration')}, applied to every MAC"
    return _predicted("energy", sum(n * table[dtype] for dtype, n in macs.items()), target, text)
