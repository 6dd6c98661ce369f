"""`edgetk bench`: how fast exported files are where they will run, with memory, energy and the state of the board."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from edgetk.core import units
from edgetk.core.errors import EdgetkError, InputError, UsageError
from edgetk.toolkit.commands import shared

#: layers that are printed of a profile; the JSON has all
_TOP = 15


def bench(
    artifacts: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="ARTIFACT...", help="Exported .onnx files, or engines with their graph beside them.", show_default=False
        ),
    ] = None,
    target: Annotated[
        str, typer.Option("--target", "-t", help="host, a board's name or .toml file, or ssh://user@board.")
    ] = "host",
    host: Annotated[str, typer.Option("--host", help="Where the board is, ssh://user@board, if its file does not say.")] = "",
    runtime: Annotated[
        str, typer.Option("--runtime", help="onnxruntime or tensorrt; default: what the board's file says.", show_default=False)
    ] = "",
    threads: Annotated[int, typer.Option("--threads", help="Threads of onnxruntime.")] = 1,
    cores: Annotated[
        str, typer.Option("--cores", metavar="0,1", help="Processors to keep to; default: all.", show_default=False)
    ] = "",
    seconds: Annotated[float, typer.Option("--seconds", help="Time for the latency of each file.")] = 2.0,
    warmup: Annotated[float, typer.Option("--warmup", help="Seconds of runs that are not counted before.")] = 0.5,
    windows: Annotated[int, typer.Option("--windows", help="Windows of energy; 0: measure none.")] = 5,
    window: Annotated[float, typer.Option("--window", help="Seconds of each of them.")] = 2.0,
    idle: Annotated[float, typer.Option("--idle", help="Seconds without work before, for the idle power.")] = 2.0,
    profile: Annotated[bool, typer.Option("--profile", help="Also the time of each operator, folded to layers.")] = False,
    precision: Annotated[
        str, typer.Option("--precision", help="fp32 or fp16: of engines that TensorRT before 10 builds there.")
    ] = "fp32",
    power_log: Annotated[
        Path | None,
        typer.Option("--power-log", metavar="FILE", help="CSV that a USB meter wrote meanwhile: energy from it."),
    ] = None,
    power_log_start: Annotated[
        str, typer.Option("--power-log-start", metavar="TIME", help="When it began, if its times count from there.")
    ] = "",
    power_log_volts: Annotated[
        float | None, typer.Option("--power-log-volts", help="The supply, if it has the current alone.", show_default=False)
    ] = None,
    again: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="Measure nothing: what -o wrote, now with --power-log.", show_default=False
        ),
    ] = None,
    python: Annotated[str, typer.Option("--python", help="The board's Python that has the runtime.", show_default=False)] = "",
    ssh_config: Annotated[
        Path | None, typer.Option("--ssh-config", metavar="FILE", help="Instead of your own ssh configuration.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the files on the board.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the JSON there too.", show_default=False)
    ] = None,
    as_json: shared.Json = False,
) -> None:
    """Measure files on this machine or on a board: latency, memory, energy, and the state the board was in."""
    from edgetk.targets import power_csv
    from edgetk.targets.meters._bench import Settings
    from edgetk.toolkit import bench as measuring
    from edgetk.toolkit import place as places
    from edgetk.toolkit.workspace import Workspace

    where = places.place(target, host, runtime, python, ssh_config)
    settings = Settings(
        threads=threads,
        cores=_cores(cores),
        budget_s=seconds,
        warmup_s=warmup,
        windows=windows,
        window_s=window,
        idle_s=idle,
        profile=profile,
        precision=precision,
    )
    start = _start(power_log_start)
    log = None if power_log is None else lambda: power_csv.read(power_log, start, power_log_volts)
    if again is not None:
        if artifacts or log is None:
            raise UsageError("bench: --from must stand beside --power-log and without files; add it, or leave --from out")
        found = measuring.with_log(_json(again), log())
    else:
        if not artifacts:
            raise UsageError("bench: a file must be named, got none; name exported files, or --from")
        if log is not None and not windows:
            raise UsageError("bench: --power-log must stand beside windows of energy, got 0; leave --windows out")
        items = places.items(artifacts, where)
        listener = shared.listener()
        with listener.task(f"measuring on {where.name}"):
            found = measuring.measure(items, where, settings, listener.log, keep, log)
    if output is not None:
        Workspace.at(output.parent).write_json(output.name, found)
    if as_json:
        shared.print_json(found)
    else:
        _print(found)
    broken = sum("error" in row["raw"] for row in found["results"])
    if broken:
        raise EdgetkError(f"bench: {broken} of {len(found['results'])} files did not run; each says why, mend it and run again")


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"bench: {path} must be a JSON file, got {type(error).__name__}; check the path") from error
    return found if isinstance(found, dict) else {}


def _cores(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise UsageError(f"bench: --cores must be numbers with commas, got {text!r}; give them as 0,1") from error


def _start(text: str) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise UsageError(
            f"bench: --power-log-start must be like 2026-01-31T12:00:00 or seconds since 1970, got {text!r}; correct it"
        ) from error


def _print(found: Mapping[str, Any]) -> None:
    from edgetk.toolkit import report
    from edgetk.toolkit.result import figure_from_json

    console = shared.console()
    for row in found["results"]:
        figures = [figure_from_json(data) for data in row["figures"]]
        cells = [(figure.metric.replace("_", " "), str(figure)) for figure in figures]
        console.print(report.table(f"{row['artifact']} on {_device(row, found)}", ("metric", "figure"), cells))
        for line in (*_state_lines(row), *_agreement_lines(row), *(f"warning: {text}" for text in row["warnings"])):
            console.print(line, style="yellow" if line.startswith("warning") else None, highlight=False, soft_wrap=True)
        if row["layers"]:
            console.print(report.table("Time by layer, profiled", ("layer", "time", "share", "operators"), _layer_cells(row)))
    console.print()


def _device(row: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    state = _state(row)
    return f"{state['model']}, {found['where']}" if state else str(found["where"])


def _state(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The board's state after the run, None where nothing ran."""
    found: Mapping[str, Any] | None = row["raw"].get("state", {}).get("after")
    return found


def _state_lines(row: Mapping[str, Any]) -> Sequence[str]:
    """The state of the board in one line."""
    state = _state(row)
    if state is None:
        return ()
    clock, heat = state["cpu_clock_hz"], state["temperature_c"]
    parts = [
        f"power mode {state['power_mode']}" if state["power_mode"] else "",
        f"governor {', '.join(state['governor'])}" if state["governor"] else "",
        f"clock {units.si(clock['current'], 'Hz')} of {units.si(clock['max'], 'Hz')}" if clock else "",
        f"cores {state['cores_online']} online" if state["cores_online"] else "",
        f"{max(heat.values()):.0f} °C" if heat else "",
        f"L4T {state['l4t']}" if state["l4t"] else "",
        "clocks are hidden: a virtual machine or container" if state["kind"] == "clockless" else "",
    ]
    return (f"state: {', '.join(part for part in parts if part)}",)


def _agreement_lines(row: Mapping[str, Any]) -> Sequence[str]:
    seen = row["agreement"]
    if seen is None:
        return ()
    difference = f"max |Δ| {seen['max_abs']:.1e} of {seen['scale']:.2g}"
    return (f"outputs beside onnxruntime's here: {difference}, same arg-max {seen['same_argmax']} of {seen['n']}",)


def _layer_cells(row: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (
            layer["name"],
            units.seconds(layer["mean_s"]),
            units.percent(layer["share"], 1),
            ", ".join(f"{count} {kind}" if kind else str(count) for kind, count in layer["operators"].items()),
        )
        for layer in row["layers"][:_TOP]
    ]
    rest = row["layers"][_TOP:]
    if rest:
        share = sum(layer["share"] for layer in rest)
        rows.append((f"{len(rest)} more", units.seconds(sum(r["mean_s"] for r in rest)), units.percent(share, 1), ""))
    return rows
