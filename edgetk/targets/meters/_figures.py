"""What the agent brought back, as figures: Measured only where the board's state is known and was stable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgetk.core.figures import Measured, Missing
from edgetk.targets import power
from edgetk.targets.meters import _session
from edgetk.targets.meters._bench import SETS, Result

#: Fewer samples than this are no distribution: the figure is Missing.
MIN_RUNS = 20
METHOD = "agent"


def figures(result: Result, log: power.Trace | str | None = None) -> list[Measured | Missing]:
    """Latency, real-time factor of a stream, memory, and energy where it was asked for.

    log  readings of a meter outside the board, by this machine's clock: they replace the board's own sensor
    """
    data, item = result.data, result.item
    streaming = item.signature.period_s is not None
    if "error" in data:
        absent = data["error"].startswith("ModuleNotFoundError") and result.where.startswith("ssh:")
        remedy = "; name a Python that has it with --python" if absent else ""
        reason = f"{item.runtime}: {data['error']}{remedy}"
        return [Missing(metric, reason, result.where) for metric in _metrics(streaming, result)]
    found: list[Measured | Missing] = []
    latency = _latency(result)
    found.append(latency)
    if item.signature.period_s is not None:
        found.append(realtime_factor(latency, item.signature.period_s))
    found.append(_memory(result))
    if "energy" in data:
        found += energy(result, log)
    return found


def device(result: Result) -> str:
    """What it ran on: model, and the power mode by name or the governor."""
    state = result.data["state"]["after"]
    mode = f"power mode {state['power_mode']}" if state["power_mode"] else _governor(state)
    gpu = (state.get("nvml") or {}).get("name")
    return f"{gpu or state['model']} ({mode})" if mode else str(gpu or state["model"])


def doubt(result: Result) -> str | None:
    """Why nothing that depends on the board's state may be called measured; None where its state is known and was stable."""
    state = result.data["state"]
    if state["unknown"]:
        return f"the board's state is not known: {', '.join(state['unknown'])} cannot be read there"
    if state["moved"]:
        return f"the board's state was not stable: {'; '.join(state['moved'])}; fix its clocks and keep it cool and idle"
    return None


def _metrics(streaming: bool, result: Result) -> list[str]:
    energy = ["energy", "energy_above_idle"] if result.settings.windows else []
    return ["latency", *(["realtime_factor"] if streaming else []), "rss", *energy]


def _latency(result: Result) -> Measured | Missing:
    seen = result.data["latency"]
    if (reason := doubt(result)) is not None:
        return Missing("latency", reason, device(result))
    samples = np.asarray(seen["samples_s"])
    if len(samples) < MIN_RUNS:
        reason = f"only {len(samples)} runs in {result.settings.budget_s:g} s, a median needs {MIN_RUNS}; give a larger budget"
        return Missing("latency", reason, device(result))
    more = {
        "min_s": float(samples.min()),
        "mean_s": float(samples.mean()),
        "p99_s": float(np.percentile(samples, 99)),
        **result.data.get("variants", {}),
    }
    median, p95 = float(np.median(samples)), float(np.percentile(samples, 95))
    return Measured(
        "latency", median, p95, len(samples), seen["warmup"], _method(result), device(result), {**conditions(result), **more}
    )


def realtime_factor(latency: Measured | Missing, period_s: float) -> Measured | Missing:
    """Time of one step as a share of the time between two."""
    if isinstance(latency, Missing):
        return Missing("realtime_factor", latency.reason, latency.device)
    return Measured(
        "realtime_factor",
        latency.median / period_s,
        latency.p95 / period_s,
        latency.n,
        latency.warmup,
        latency.method,
        latency.device,
        {**latency.conditions, "period_s": period_s},
    )


def _memory(result: Result) -> Measured | Missing:
    """Highest resident memory of the process that ran the graph; it does not depend on clocks."""
    peak, before = result.data["rss_bytes"], result.data["rss_before_bytes"]
    if peak is None:
        return Missing("rss", "the board does not tell a process's memory (/proc/self/status)", device(result))
    more = {"before_loading_bytes": before, "what": "peak of the whole process, its runtime included"}
    return Measured("rss", peak, peak, 1, 0, _method(result), device(result), {**conditions(result), **more})


def energy(result: Result, log: power.Trace | str | None = None) -> list[Measured | Missing]:
    """Energy of one run with and without the idle share, median of the windows; see `figures` for `log`."""
    data = result.data["energy"]
    names = ("energy", "energy_above_idle")
    if isinstance(log, str):
        return [Missing(name, log, device(result)) for name in names]
    if log is not None:
        data = _from_log(data, log, result.clock_offset_s or 0.0)
    if (reason := data.get("reason") or doubt(result) or _moved(data)) is not None:
        return [Missing(name, reason, device(result)) for name in names]
    rows = data["windows"]
    means = np.mean([list(row["watts"].values()) for row in rows], axis=0)
    more = {
        "sensor": data["sensor"],
        "sample_s": data["sample_s"],
        "window_s": result.settings.window_s,
        "new_values_per_window": min(row["updates"] for row in rows),
        "runs_per_window": min(row["runs"] for row in rows),
        "idle_w": data["idle_w"],
        "watts": {name: float(value) for name, value in zip(rows[0]["watts"], means, strict=True)},
    }
    whole = [row["joules"] / row["runs"] for row in rows]
    found = [_of_windows(result, "energy", whole, {**more, "idle": "not subtracted"})]
    if isinstance(data["idle_w"], str):
        return [*found, Missing("energy_above_idle", f"idle power: {data['idle_w']}", device(result))]
    above = [(row["joules"] - data["idle_w"] * (row["wall_end"] - row["wall_begin"])) / row["runs"] for row in rows]
    if min(above) <= 0:
        reason = f"the idle board drew {data['idle_w']:.3g} W, not less than the busy one: something else ran meanwhile"
        return [*found, Missing("energy_above_idle", reason, device(result))]
    return [*found, _of_windows(result, "energy_above_idle", above, {**more, "idle": "subtracted"})]


def _moved(data: Mapping[str, Any]) -> str | None:
    moved = data.get("moved")
    return f"the board's state was not stable: {'; '.join(moved)}" if moved else None


def _of_windows(result: Result, metric: str, samples: list[float], more: Mapping[str, Any]) -> Measured:
    median, p95 = float(np.median(samples)), float(np.percentile(samples, 95))
    all_of_them = {**conditions(result), **more}
    warmup = result.data["latency"]["warmup"]
    return Measured(metric, median, p95, len(samples), warmup, _method(result), device(result), all_of_them)


def _from_log(data: Mapping[str, Any], log: power.Trace, offset_s: float) -> dict[str, Any]:
    """The windows' energies from a log by this machine's clock, which is `offset_s` ahead of the board's."""
    idle = log.energy(data["idle"]["wall_begin"] + offset_s, data["idle"]["wall_end"] + offset_s)
    idle_w = idle if isinstance(idle, str) else idle.watts[log.channels[0]]
    rows: list[dict[str, Any]] = []
    found = {"sensor": log.name, "sample_s": None, "windows": rows, "moved": data.get("moved"), "idle_w": idle_w}
    for row in data["windows"]:
        seen = log.energy(row["wall_begin"] + offset_s, row["wall_end"] + offset_s)
        if isinstance(seen, str):
            return {**found, "reason": seen}
        rows.append({**row, "joules": seen.joules, "watts": seen.watts, "updates": seen.updates})
    return found


def _method(result: Result) -> str:
    return f"{result.item.runtime} through the {METHOD}"


def _governor(state: Mapping[str, Any]) -> str:
    return f"governor {', '.join(state['governor'])}" if state["governor"] else ""


def conditions(result: Result) -> dict[str, Any]:
    """All that must hold to see the figures again."""
    data, settings = result.data, result.settings
    before, after, running = data["state"]["before"], data["state"]["after"], data["state"]["clocks_hz"]
    state = {
        "board": after["model"],
        "power_mode": after["power_mode"],
        "governor": after["governor"],
        "cores_online": after["cores_online"],
        "clock_hz": {**(after["cpu_clock_hz"] or {}), "running": [min(running), max(running)] if running else None},
        "gpu_clock_hz": _gpu_clocks(data["state"]),
        "temperature_c": {"before": _hottest(before), "after": _hottest(after)},
        "throttling": after["throttling"],
        "l4t": after["l4t"],
        "jetpack": after["jetpack"],
        "kernel": after["kernel"],
        "load_average": before["load_average"],
    }
    if after["kind"] == "clockless":
        state["clocks"] = "not readable (a virtual machine or container); a fixed loop ran as fast before as after"
    return {
        "threads": settings.threads if result.item.runtime == "onnxruntime" else None,
        "cores": data["cores"],
        "batch": 1,
        "runtime": data["runtime"],
        "input": f"random normal, seed {_session.SEED}, {SETS} sets in turn",
        "state": "fed back between steps" if result.item.signature.is_streaming else "none",
        "artifact_sha256": result.sha256,
        "where": result.where,
        **{key: value for key, value in state.items() if value is not None},
    }


def _gpu_clocks(state: Mapping[str, Any]) -> dict[str, Any] | None:
    running = state["gpu_clocks_hz"]
    known = state["after"]["gpu_clock_hz"]
    if not running and known is None:
        return None
    return {**(known or {}), "running": [min(running), max(running)] if running else None}


def _hottest(state: Mapping[str, Any]) -> float | None:
    nvml = (state.get("nvml") or {}).get("temperature_c")
    zones = [*(state["temperature_c"] or {}).values(), *([nvml] if nvml is not None else [])]
    return max(zones) if zones else None
