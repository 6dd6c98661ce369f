"""Every figure of a workload on a target, as pure functions: whether it fits, latency, energy, and a stream's power."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgetk.core import units
from edgetk.core.figures import Missing, Predicted, Validation
from edgetk.core.target import Target
from edgetk.core.workload import Workload
from edgetk.targets import always_on, energy, kernel_costs, memory, roofline, synops

_TIMED = ("latency", "energy")
#: share of the multiply-accumulates that may be in other formats than a calibration is for
_OUTSIDE = 0.1
_STREAMED = ("realtime_factor", "duty_cycle", "average_power", "slowest_clock")


def predict(workload: Workload, target: Target) -> list[Predicted | Missing]:
    """Flash, RAM, latency and energy of one inference; of a stream also real-time factor, duty cycle, average power and the
    slowest clock that meets its period. An operator that nobody knows has a stated fallback."""
    if target.kind == "neuromorphic":
        return synops.predict(workload, target)
    target = _as_calibrated(workload, target)
    figures = _memory(workload, target)
    if isinstance(figures, str):
        fit = memory.fits(workload, target)
        flash = _predicted("flash", fit.flash_bytes, target, "memory plan", ("weights only, without the runtime's own code",))
        return [flash, Missing("ram", figures, str(target)), *_missing(workload, target, figures)]
    fit = memory.fits(workload, target)
    if fit.ok is False:
        return [*figures, *_missing(workload, target, f"does not fit: {'; '.join(fit.reasons)}")]
    if (reason := _unknown_speed(target)) is not None:
        return [*figures, *_missing(workload, target, reason)]
    rows = roofline.timed(workload, target)
    latency_s = sum(row.seconds for row in rows)
    rests_on = roofline.assumptions(workload, target, rows)
    method = kernel_costs.PREDICTOR if target.kernels else roofline.PREDICTOR
    latency = _predicted("latency", latency_s, target, method, rests_on)
    return [*figures, latency, _energy(workload, target, latency, rows), *_stream(workload, target, latency)]


def _as_calibrated(workload: Workload, target: Target) -> Target:
    """The board without its calibration's name and errors where much of the work is in formats that it is not for."""
    formats = target.calibration.get("formats", ())
    outside = sum(macs for dtype, macs in workload.macs_by_dtype().items() if dtype not in formats)
    if not formats or outside <= _OUTSIDE * workload.macs:
        return target
    return replace(target, calibration={k: v for k, v in target.calibration.items() if k not in ("source", "errors")})


def _memory(workload: Workload, target: Target) -> list[Predicted | Missing] | str:
    """Flash and RAM; or why the RAM is not known."""
    if workload.unknown and not workload.peak_activation_bytes:
        return f"{len(workload.unknown)} part(s) of the graph could not be counted: {workload.unknown[-1]}"
    plan = memory.plan(workload, target)
    flash = _predicted("flash", plan.flash_bytes, target, "memory plan", ("weights only, without the runtime's own code",))
    parts = (
        ("arena", plan.arena_bytes),
        ("state", plan.state_bytes),
        ("scratch", plan.scratch_bytes),
        ("weights", plan.weights_in_ram),
    )
    text = " + ".join(f"{name} {units.size(value)}" for name, value in parts if value) or "nothing"
    where = "weights stay in flash" if target.kind == "mcu" else "weights are loaded into RAM"
    rests_on = (f"{text}; {where}; without the runtime's own", *workload.assumed)
    return [flash, _predicted("ram", plan.ram_bytes, target, "memory plan", rests_on)]


def _unknown_speed(target: Target) -> str | None:
    if target.kernels:
        return None
    absent = [name for name in ("clock_hz", "mem_bytes_per_s") if getattr(target, name) is None]
    if "float32" not in target.macs_per_cycle:
        absent.append("macs_per_cycle.float32")
    if not absent:
        return None
    measured = "; it is measured, not predicted: edgetk calibrate fits it" if target.measurable else ""
    return f"{target.name} does not give {', '.join(absent)}{measured}"


def _energy(workload: Workload, target: Target, latency: Predicted, rows: Sequence[roofline.Timed]) -> Predicted | Missing:
    found = energy.joules(workload, target, latency.value, rows)
    if isinstance(found, str):
        return Missing("energy", found, str(target))
    value, rests_on = found
    return _predicted("energy", value, target, energy.PREDICTOR, (*rests_on, *latency.assumptions))


def _stream(workload: Workload, target: Target, latency: Predicted) -> list[Predicted | Missing]:
    """What a stream asks of a board that is always on."""
    if not workload.period_s:
        return []
    period, method = workload.period_s, latency.predictor
    every = f"one step every {units.seconds(period)}"
    share = latency.value / period
    found: list[Predicted | Missing] = [
        _predicted("realtime_factor", share, target, method, latency.assumptions, like="latency"),
        _predicted("duty_cycle", share, target, method, (every, *latency.assumptions), like="latency"),
    ]
    here = always_on.present(target)
    if here is None:
        reason = f"{target.name} does not give its clock"
        return [*found, *(Missing(metric, reason, str(target)) for metric in _STREAMED[2:])]
    return [*found, _average(target, latency, period, every), _slowest(workload, target, every)]


def _average(target: Target, latency: Predicted, period: float, every: str) -> Predicted | Missing:
    here = always_on.present(target)
    assert here is not None
    drawn = always_on.duty(latency.value, period, here)
    if drawn.average_w is not None:
        text = f"{every}, {units.percent(drawn.duty, 1)} of the time at {units.si(here.power_w or 0, 'W')}, else idle at "
        text += units.si(here.idle_w or 0, "W")
        # unvalidated even where energies of one inference are not: nobody left out what a board draws while idle
        return _predicted("average_power", drawn.average_w, target, energy.PREDICTOR, (text,))
    late = f"a step takes longer than its period of {units.seconds(period)}"
    reason = late if drawn.duty > 1 else f"{target.name} does not give power_w and idle_w"
    return Missing("average_power", reason, str(target))


def _slowest(workload: Workload, target: Target, every: str) -> Predicted | Missing:
    """The lowest clock of the board's modes at which a step is done in time."""
    assert workload.period_s
    if target.kernels or not target.modes:
        return Missing("slowest_clock", f"{target.name} has no power modes with clocks of their own", str(target))
    for mode in sorted(target.modes, key=lambda m: m.clock_hz):
        board = always_on.in_mode(target, mode)
        seconds = sum(row.seconds for row in roofline.timed(workload, board))
        found = always_on.duty(seconds, workload.period_s, mode)
        if found.duty <= 1:
            power = f", {units.si(found.average_w, 'W')} on average" if found.average_w is not None else ""
            text = f"power mode {mode.name}: {every}, duty cycle {units.percent(found.duty, 1)}{power}"
            return _predicted("slowest_clock", mode.clock_hz, target, roofline.PREDICTOR, (text,), like="latency")
    reason = f"no power mode of {target.name} does a step in {units.seconds(workload.period_s)}"
    return Missing("slowest_clock", reason, str(target))


def _missing(workload: Workload, target: Target, reason: str) -> list[Missing]:
    metrics = (*_TIMED, *(_STREAMED if workload.period_s else ()))
    return [Missing(metric, reason, str(target)) for metric in metrics]


def _predicted(
    metric: str, value: float, target: Target, method: str, rests_on: Sequence[str], like: str | None = None
) -> Predicted:
    """A figure with what its board was calibrated on and how far that was off; `like` names the metric that was validated."""
    errors = target.calibration.get("errors", {}).get(like or metric)
    seen = Validation(errors["n"], errors["median_error"], errors["where"]) if errors else None
    source = target.calibration.get("source", "") if _is_calibrated(target, like or metric) else ""
    return Predicted(metric, value, method, str(target), tuple(rests_on), seen, source)


def _is_calibrated(target: Target, metric: str) -> bool:
    """True for a latency, and for an energy unless the board's power is assumed."""
    return metric == "latency" or (metric == "energy" and "assumed" not in target.sources.get("power_w", ""))
