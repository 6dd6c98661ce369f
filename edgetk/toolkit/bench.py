"""Files measured where they will run: on this machine or on a board through ssh, with the board's state and the meter used."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetk.core.errors import InputError, UsageError
from edgetk.core.figures import Measured, Predicted
from edgetk.core.target import Target

if TYPE_CHECKING:
    from edgetk.core.signature import Signature
    from edgetk.targets.meters._bench import Item, Result, Settings
    from edgetk.targets.meters._transport import Transport
    from edgetk.targets.power import Trace
    from edgetk.toolkit.result import RunResult

#: Version of what `edgetk bench --json` prints; raised when a field changes its meaning or goes away.
SCHEMA_VERSION = 1
_ENGINES = (".engine", ".plan")
#: outputs of one file on two machines may differ by rounding; by more than this share of the largest, something is wrong
_DIFFERENT = 0.05


@dataclass(frozen=True)
class Place:
    """Where to measure: a board by its address (`ssh://user@host`), else this machine. `target` is the board as data, if known.

    runtime  "onnxruntime", "tensorrt", or "": the target's own, else what the file says
    python   the board's Python that has the runtime
    config   an ssh configuration instead of the user's own
    """

    target: Target | None = None
    address: str = ""
    runtime: str = ""
    python: str = ""
    config: Path | None = None

    @property
    def name(self) -> str:
        """For the report."""
        return self.target.name if self.target is not None else self.address

    def transport(self) -> Transport:
        """The way there."""
        from edgetk.targets.meters._transport import Address, Local, Ssh

        if not self.address:
            return Local()
        own = self.target.python if self.target is not None else "python3"
        return Ssh(Address.parse(self.address), self.python or own, self.config)

    def runtime_of(self, name: str) -> str:
        """What runs a file there. Raises UsageError for a runtime that no meter has."""
        from edgetk.targets.meters._bench import RUNTIMES

        own = self.target.stack.runtime if self.target is not None else ""
        chosen = self.runtime or own or ("tensorrt" if name.endswith(_ENGINES) else "onnxruntime")
        if chosen not in RUNTIMES:
            raise UsageError(
                f"bench: the runtime must be one of {', '.join(RUNTIMES)}, got {chosen!r}; name one with --runtime"
            )
        return chosen

    def settings(self, settings: Settings) -> Settings:
        """The settings with what the board's file says of its power monitor."""
        return replace(settings, total_rails=self.target.total_rails) if self.target is not None else settings


def place(target: str, host: str = "", runtime: str = "", python: str = "", config: Path | None = None) -> Place:
    """Where `target` (a board's name or file, or ssh://user@host) is measured; `host` is the address of a board by name.

    Raises UsageError for a board that nobody told the address of, and what loading a board raises.
    """
    from edgetk.targets import board

    if target.startswith("ssh://"):
        if host:
            raise UsageError(f"bench: --host must not stand beside --target ssh://…, got {host}; leave one out")
        return _checked(Place(None, target, runtime, python, config))
    return of(board.load(target), host, runtime, python, config)


def of(target: Target, host: str = "", runtime: str = "", python: str = "", config: Path | None = None) -> Place:
    """Where a board is measured. Raises UsageError where nobody told its address."""
    address = host or target.host
    if not address and not target.measurable:
        raise UsageError(
            f"bench: {target.name} must have an address to be measured, got none; give --host ssh://user@host, "
            "or host in its file"
        )
    return _checked(Place(target, address, runtime, python, config))


def _checked(found: Place) -> Place:
    if found.address:
        from edgetk.targets.meters._transport import Address

        Address.parse(found.address)
    return found


def item(path: Path, where: Place) -> Item:
    """A file to measure, with its signature; of an engine they are those of the graph it was built from.

    Raises InputError for a file that cannot be read or says nothing of its inputs.
    """
    from edgetk.targets.meters._bench import Item

    runtime = where.runtime_of(path.name)
    content = _read(path)
    if not path.name.endswith(_ENGINES):
        signature = _signature(path)
        _check_whole(content, path.name)
        return Item(path.name, content, signature, runtime)
    graph = _graph_of(path)
    return Item(path.name, content, _signature(graph), runtime, reference=_read(graph))


def _signature(path: Path) -> Signature:
    from edgetk.export import graph

    return graph.signature_of(graph.load(path))


def _check_whole(content: bytes, name: str) -> None:
    """Raises InputError for weights that lie in other files: one file travels."""
    import onnx

    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in onnx.load_model_from_string(content).graph.initializer):
        raise InputError(f"bench: {name} must hold its own weights, got external data; save it as one file")


def _graph_of(engine: Path) -> Path:
    """The graph an engine was built from: named in the label beside it, else the .onnx file of the same name."""
    label = engine.with_name(engine.name + ".json")
    try:
        named = engine.with_name(json.loads(label.read_text(encoding="utf-8"))["onnx"]) if label.is_file() else None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"bench: {label} must be an engine's label, got {type(error).__name__}; build the engine again"
        ) from error
    graph = named or engine.with_suffix(".onnx")
    if not graph.is_file():
        raise InputError(
            f"bench: {engine.name} must have the graph it was built from beside it, got no {graph.name}; copy it there"
        )
    return graph


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"bench: {path} must be a readable file, got {error.strerror}; check the path") from error


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


def places(targets: Sequence[str], wanted: bool, host: str = "") -> tuple[Place, ...]:
    """Where the targets of a run are measured, none where nobody wants it; `host` is the address of the first.

    Raises UsageError, before any work, where one of them has no address.
    """
    if host and not wanted:
        raise UsageError(f"compress: --host must stand beside --measure, got {host} alone; add --measure")
    addresses = [host, *("" for _ in targets[1:])]
    return tuple(place(text, address) for text, address in zip(targets, addresses, strict=True)) if wanted else ()


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
