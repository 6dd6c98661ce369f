"""Files measured where they will run: on this machine or on a board through ssh, with the board's state and the meter used."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetk.core.errors import InputError
from edgetk.core.figures import Measured, Predicted
from edgetk.toolkit.place import Place, item

if TYPE_CHECKING:
    from edgetk.targets.meters._bench import Item, Result, Settings
    from edgetk.targets.power import Trace
    from edgetk.toolkit.result import RunResult

#: Version of what `edgetk bench --json` prints; raised when a field changes its meaning or goes away.
SCHEMA_VERSION = 1
#: outputs of one file on two machines may differ by rounding; by more than this share of the largest, something is wrong
_DIFFERENT = 0.05


def measure(
    items: Sequence[Item],
    where: Place,
    settings: Settings,
    say: Callable[[str], None] = lambda text: None,
    keep: bool = False,
    log: Callable[[], Trace] | None = None,
) -> dict[str, Any]:
    """Measure all items; what `edgetk bench --json` prints. `log` reads the log of a power meter once all is measured.

    Raises what the transport raises: InputError (no connection, unknown host key), EdgetkError (interrupted; run it again).
    """
    from edgetk.targets.meters import _bench

    results = _bench.run(where.transport(), items, where.settings(settings), say, keep)
    trace = _trace(log) if log is not None else None
    return {
        "schema_version": SCHEMA_VERSION,
        "target": where.name,
        "where": results[0].where,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": asdict(settings),
        "results": [_row(result, where, trace) for result in results],
    }


def _trace(log: Callable[[], Trace]) -> Trace | str:
    """The log, or what is wrong with it: by now everything else is measured, and shall not be lost."""
    try:
        return log()
    except InputError as error:
        return str(error)


def with_log(found: dict[str, Any], log: Trace) -> dict[str, Any]:
    """What `measure` gave, with the energy of its windows from a log that was written meanwhile and read later.

    Raises InputError for anything else than a document of `edgetk bench` with windows in it.
    """
    from edgetk.core.signature import Signature
    from edgetk.targets.meters import _figures
    from edgetk.targets.meters._bench import Item, Result, Settings

    try:
        if found["schema_version"] != SCHEMA_VERSION or not any(row["raw"].get("energy") for row in found["results"]):
            raise KeyError("windows")
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in found["settings"].items()
        }
        settings = Settings(**given)
        rows = []
        for row in found["results"]:
            item = Item(row["artifact"], b"", Signature.from_json(row["signature"]), row["runtime"])
            result = Result(
                item, settings, row["raw"], b"", found["where"], row["clock_offset_s"], row["resumed"], row["sha256"]
            )
            energy = [f.to_json() for f in _figures.energy(result, log)] if "energy" in row["raw"] else []
            names = {figure["metric"] for figure in energy}
            rows.append({**row, "figures": [f for f in row["figures"] if f["metric"] not in names] + energy})
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"bench: --from must name what edgetk bench -o wrote, with windows of energy, got none ({error}); measure again"
        ) from error
    return {**found, "results": rows}


def _row(result: Result, where: Place, log: Trace | str | None) -> dict[str, Any]:
    from edgetk.targets.meters import _bench, _figures

    figures = _figures.figures(result, log)
    failed = "error" in result.data
    agreement = None if failed else _bench.agreement(result)
    return {
        "artifact": result.item.name,
        "sha256": result.sha256,
        "resumed": result.resumed,
        "figures": [figure.to_json() for figure in figures],
        "agreement": agreement,
        "layers": [asdict(row) for row in _layers(result)],
        "operators": result.data.get("operators", []),
        "signature": result.item.signature.to_json(),
        "runtime": result.item.runtime,
        "raw": _raw(result.data),
        "clock_offset_s": result.clock_offset_s,
        "warnings": [] if failed else _warnings(result, where, agreement or {}),
    }


def _raw(data: dict[str, Any]) -> dict[str, Any]:
    """What was seen, without the samples and what stands elsewhere."""
    kept: dict[str, Any] = {key: data[key] for key in ("state", "energy", "runtime", "cores", "python", "error") if key in data}
    return {**kept, "latency": {"warmup": data["latency"]["warmup"]}} if "latency" in data else kept


def _layers(result: Result) -> tuple[Any, ...]:
    """The profile folded to the model's layers."""
    import onnx

    from edgetk.targets.meters._layers import OperatorTime, fold, owners

    if not result.data.get("operators"):
        return ()
    rows = [OperatorTime(**row) for row in result.data["operators"]]
    graph = onnx.load_model_from_string(result.item.reference or result.item.content).graph
    return fold(rows, owners(graph))


def _warnings(result: Result, where: Place, agreement: dict[str, Any]) -> list[str]:
    """What a reader must know before using the figures."""
    state, found = result.data["state"]["after"], []
    if where.target is not None and state["power_mode"] and state["power_mode"] != where.target.power_mode:
        found.append(
            f"{where.target.name} is described in power mode {where.target.power_mode}, the board is in {state['power_mode']}: "
            "its predictions are for the former"
        )
    difference, scale = agreement["max_abs"], agreement["scale"]
    if scale == 0:
        found.append("all outputs were 0 on the inputs given: nothing was compared")
    if not math.isfinite(difference) or difference > _DIFFERENT * scale:
        found.append(
            f"the outputs differ from ONNX Runtime's here by up to {difference:.2g} of {scale:.2g}: what was timed computes "
            "something else"
        )
    if result.resumed:
        found.append("measured before an interruption, and kept")
    return found


def add(
    run: RunResult,
    places: Sequence[Place],
    settings: Settings | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> RunResult:
    """The run with its exported graphs measured at every place; its goals are judged again with what was measured.

    A measurement takes the place of an earlier one of the same figure, a missing one only that of another missing one;
    predictions stay beside both.
    """
    from edgetk.targets.meters._bench import Settings
    from edgetk.toolkit.result import FigureRow, figure_from_json

    settings = settings or Settings()
    rows = list(run.figures)
    warnings = list(run.warnings)
    for where in places:
        paths = [artifact.path for artifact in run.artifacts if artifact.format == "onnx"]
        items = [replace(item(Path(run.folder) / path, where), name=path) for path in paths]
        if not items:
            continue
        for row in measure(items, where, settings, say)["results"]:
            warnings += [f"{row['artifact']}: {text}" for text in row["warnings"]]
            for data in row["figures"]:
                new = FigureRow(row["artifact"], where.name, figure_from_json(data))
                old = [r for r in rows if not isinstance(r.figure, Predicted) and _key(r) == _key(new)]
                if isinstance(new.figure, Measured) or not any(isinstance(r.figure, Measured) for r in old):
                    rows = [r for r in rows if r not in old] + [new]
    return replace(run, figures=tuple(rows), warnings=tuple(warnings), goals_missed=_missed(run, rows))


def _key(row: Any) -> tuple[str, str, str]:
    return (row.artifact, row.target, row.figure.metric)


def _missed(run: RunResult, rows: Sequence[Any]) -> tuple[str, ...]:
    """The goals again: a figure that was measured is not judged by its prediction."""
    from edgetk.toolkit import judge
    from edgetk.toolkit.recipe import Goals

    seen = {_key(row) for row in rows if isinstance(row.figure, Measured)}
    kept = [row for row in rows if isinstance(row.figure, Measured) or _key(row) not in seen]
    goals = Goals(**run.recipe["goals"])
    return judge.missed(goals, run.before, run.after, run.artifacts, kept, run.target.name)
