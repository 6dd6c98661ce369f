"""Boards from TOML files: a built-in one by its file name or an alias, any other by the path of a .toml file.

A file holds the fields of `core.target.Target`, and under [sources] one line for every number. Nothing else is read and
nothing is assumed: an unknown key, a missing one, a number without a source are errors. After the name may stand a unit of
the board (`jetson-nano:cpu`), one of its power modes (`jetson-nano:5W`), or both (`jetson-nano:cpu:5W`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from edgetk.core.errors import InputError, UnknownName, closest
from edgetk.core.target import Mode, Target
from edgetk.targets import calibrations, machine
from edgetk.targets.board_schema import target

_FOLDER = Path(__file__).resolve().parent / "boards"
#: what a second unit of a board has in common with it; all else it gives itself
_SHARED = ("power_mode", "ram_bytes", "flash_bytes", "mem_bytes_per_s", "idle_w")
#: what a power mode may change of the board, or of one of its units
_IN_MODE = ("clock_hz", "cores", "mem_bytes_per_s", "power_w", "idle_w")


def names() -> tuple[str, ...]:
    """The built-in boards, sorted."""
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.toml")))


@cache
def _aliases() -> Mapping[str, str]:
    table: dict[str, str] = {}
    for name in names():
        for alias in _read(_FOLDER / f"{name}.toml").get("aliases", ()):
            if (other := table.setdefault(alias, name)) != name or alias in names():
                raise InputError(f"board {name}: an alias must belong to one board, got {alias!r} of {other}; rename it")
    return table


def aliases() -> dict[str, str]:
    """Other names of built-in boards: alias -> name."""
    return dict(_aliases())


def parts(name: str) -> tuple[str, ...]:
    """What may stand after the name of a built-in board: its other units, then its power modes."""
    data = _read(_FOLDER / f"{name}.toml")
    return (*data.get("units", {}), *data.get("modes", {}))


def units(name: str) -> tuple[str, ...]:
    """The board itself and its other units, as names to load; only itself, where a unit, a mode or a file is named."""
    built_in = _aliases().get(name, name)
    if built_in not in names():
        return (name,)
    return (name, *(f"{built_in}:{unit}" for unit in _read(_FOLDER / f"{built_in}.toml").get("units", {})))


def with_units(targets: Sequence[Target]) -> list[Target]:
    """The targets and the other units of their boards: a small network may well be faster on a Jetson's CPU than on its GPU."""
    found = {board.name: board for board in targets}
    for board in targets:
        if board.name in names() and load(board.name) == board:  # a file of one's own may have the name of a built-in board
            for name in units(board.name):
                found.setdefault(name, load(name))
    return list(found.values())


def load(name_or_path: str) -> Target:
    """The board of that name or alias, or the one described by that .toml file; in the unit and power mode named after it.

    Raises UnknownName for a name nobody has, InputError for a file that does not describe a board.
    """
    if ".toml" in name_or_path:
        stem, _, rest = name_or_path.rpartition(".toml")
        path = Path(f"{stem}.toml")
        data = _read(path)
        found = _select(path.stem, data, [part for part in rest.split(":") if part], str(path))
        costs = data.get("kernels")
        return calibrations.applied(found, calibrations.read(path.parent / costs)) if costs else found
    first, *wanted = name_or_path.split(":")
    name = first if first in names() else _aliases().get(first)
    if name is None:
        end = closest(first, [*names(), *_aliases()])
        raise UnknownName(f"target {name_or_path!r}: must be the name of a board or a path that ends in .toml; {end}")
    found = _select(name, _read(_FOLDER / f"{name}.toml"), wanted, f"{name}.toml")
    fitted = calibrations.for_processor(machine.cpu_model(), machine.cache_bytes()) if found.measurable else None
    return calibrations.applied(found, calibrations.read(fitted)) if fitted else found


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"board {path}: must be a readable file, got {error.strerror}; check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"board {path}: must be TOML, got {error}; mend the file") from error


def _select(name: str, data: dict[str, Any], wanted: list[str], where: str) -> Target:
    """The board with the wanted unit and power mode laid over it."""
    others, modes = data.pop("units", {}), data.pop("modes", {})
    for table, what in ((others, "units"), (modes, "modes")):
        if not isinstance(table, dict) or not all(isinstance(value, dict) for value in table.values()):
            raise InputError(f"board {where}: {what} must be tables, got {table!r}; correct it")
    unit, mode = "", ""
    for part in wanted:
        if part in others and not unit:
            unit = part
        elif part in modes and not mode:
            mode = part
        else:
            known = closest(part, [*others, *modes])
            raise UnknownName(f"target {':'.join((name, *wanted))}: {part!r} must be a unit or a power mode of {name}; {known}")
    own = data.get("kind", "") if others else ""
    if unit:
        data = _unit(data, others[unit])
    changes = {key: _change(value, unit, [*others], f"board {where}: modes.{key}") for key, value in modes.items()}
    told = tuple(_mode(key, change, data) for key, change in changes.items())
    if mode:
        data = _in_mode(data, {**changes[mode], "power_mode": mode})
    full = ":".join((name, *(part for part in (unit, mode) if part)))
    return target(full, data, where, unit or (own if own in ("cpu", "gpu") else ""), tuple(m for m in told if m is not None))


def _unit(data: dict[str, Any], unit: dict[str, Any]) -> dict[str, Any]:
    shared = {key: data[key] for key in _SHARED if key in data}
    sources = {key: text for key, text in data.get("sources", {}).items() if key in shared}
    return _over({**shared, "sources": sources}, unit)


def _change(mode: dict[str, Any], unit: str, others: list[str], who: str) -> dict[str, Any]:
    """What a mode changes of one unit: its own part of the table, and the power of the whole board."""
    for key in mode:
        if key not in (*_IN_MODE, "sources", *others):
            raise InputError(f"{who} may change {', '.join(_IN_MODE)}, got {key}; {closest(key, [*_IN_MODE, *others])}")
    if unit:
        power: dict[str, Any] = {key: mode[key] for key in ("power_w", "idle_w") if key in mode}
        sources = {key: text for key, text in mode.get("sources", {}).items() if key in power}
        return _over({**power, "sources": sources}, mode.get(unit, {}))
    return {key: value for key, value in mode.items() if key not in others}


def _in_mode(data: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The board in a mode; energies were validated at the power it had before, not at one of the mode's own."""
    calibration = data.get("calibration")
    if isinstance(calibration, dict) and isinstance(calibration.get("errors"), dict) and "power_w" in change:
        errors = {metric: found for metric, found in calibration["errors"].items() if metric != "energy"}
        data = {**data, "calibration": {**calibration, "errors": errors}}
    return _over(data, change)


def _mode(name: str, change: Mapping[str, Any], data: Mapping[str, Any]) -> Mode | None:
    clock = change.get("clock_hz", data.get("clock_hz"))
    if not isinstance(clock, (int, float)):
        return None
    return Mode(name, float(clock), *(_watt(change.get(key, data.get(key))) for key in ("power_w", "idle_w")))


def _watt(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _over(data: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    return {**data, **change, "sources": {**data.get("sources", {}), **change.get("sources", {})}}
