"""Board energy of one inference: what the board draws while idle, times the time, and what the work adds to that.

    E = idle · t + Σ MACs · J per MAC of their format + Σ bytes · J per byte       where the board gives joules of operations
    E = power while running · t                                                    where it gives a power; the same as
                                                                                    idle · t + Σ cycles · (power − idle) / clock

This is the energy of a board, calibrated on that board; `op_energy` is a table for comparing architectures; never add them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgetk.core import units
from edgetk.core.target import Target
from edgetk.core.workload import Workload
from edgetk.targets.kinds import product, weights_read
from edgetk.targets.roofline import Timed

PREDICTOR = "board energy"


def joules(
    workload: Workload, target: Target, seconds: float, rows: Sequence[Timed] = ()
) -> tuple[float, tuple[str, ...]] | str:
    """Joules of one inference that takes `seconds`, with what they rest on; or what the board would have to give."""
    if target.joules_per:
        return _of_operations(workload, target, seconds)
    if target.power_w is not None:
        source = target.sources.get("power_w", "no source")
        found = [f"{units.si(target.power_w, 'W')} while it runs, idle share included ({source})"]
        if prices := by_kind(rows, target):
            found.append("a multiply-accumulate costs " + ", ".join(f"{units.joules(v)} ({k})" for k, v in prices.items()))
        return target.power_w * seconds, tuple(found)
    table = target.calibration.get("joules_per_mac", {})
    macs = workload.macs_by_dtype()
    absent = [dtype for dtype in macs if dtype not in table]
    if not table or absent:
        missing = f"power_w, nor calibration.joules_per_mac of {', '.join(absent) or 'any number format'}"
        return f"{target.name} does not give {missing}"
    text = f"joules per MAC of {target.calibration.get('source', 'the calibration')}, applied to every MAC"
    return sum(n * table[dtype] for dtype, n in macs.items()), (text,)


def _of_operations(workload: Workload, target: Target, seconds: float) -> tuple[float, tuple[str, ...]] | str:
    if target.idle_w is None:
        return f"{target.name} gives joules_per, but no idle_w to add"
    macs = workload.macs_by_dtype()
    absent = [dtype for dtype in macs if f"{dtype}_mac" not in target.joules_per and "float32_mac" not in target.joules_per]
    if absent:
        return f"{target.name} does not give joules_per.{absent[0]}_mac"
    fallback = target.joules_per.get("float32_mac", 0.0)
    work = sum(n * target.joules_per.get(f"{dtype}_mac", fallback) for dtype, n in macs.items())
    moved = sum(weights_read(op) + op.activation_bytes for op in workload.ops)
    byte = target.joules_per.get("byte", 0.0)
    prices = ", ".join(f"{units.joules(value)} per {key.replace('_', ' ')}" for key, value in target.joules_per.items())
    text = f"{units.si(target.idle_w, 'W')} idle ({target.sources.get('idle_w', 'no source')}) and above it {prices}"
    return target.idle_w * seconds + work + moved * byte, (text,)


def by_kind(rows: Sequence[Timed], target: Target) -> Mapping[str, float]:
    """Joules per multiply-accumulate, idle share included, of each kind of product, from a board's power and these times."""
    if target.power_w is None:
        return {}
    time: dict[str, float] = {}
    macs: dict[str, int] = {}
    for row in rows:
        if row.op.macs:
            key = f"{product(row.op)}.{row.op.dtype}"
            time[key] = time.get(key, 0.0) + row.seconds
            macs[key] = macs.get(key, 0) + row.op.macs
    return {key: target.power_w * time[key] / macs[key] for key in time}
