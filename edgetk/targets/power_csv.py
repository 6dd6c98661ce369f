"""Power from the log of a meter outside the board, such as a USB meter: a CSV file of power, or of volts and amperes."""

from __future__ import annotations

import csv
import math
import re
from datetime import datetime
from pathlib import Path

from edgetk.core.errors import InputError
from edgetk.targets.power import Trace

#: unit in a column's name -> factor to seconds, watts, volts, amperes
_TIME = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_POWER = {"w": 1.0, "mw": 1e-3, "uw": 1e-6, "µw": 1e-6}
_VOLTAGE = {"v": 1.0, "mv": 1e-3}
_CURRENT = {"a": 1.0, "ma": 1e-3, "ua": 1e-6, "µa": 1e-6}
_KINDS = {
    "time": (re.compile(r"time|date", re.I), _TIME),
    "power": (re.compile(r"power|watt", re.I), _POWER),
    "voltage": (re.compile(r"volt|vbus", re.I), _VOLTAGE),
    "current": (re.compile(r"current|amp|ibus", re.I), _CURRENT),
}
#: what looks like a unit: with a prefix, or a longer span of time
_UNIT = re.compile(r"[a-zµ]?[wvas]|min(utes?)?|h(ours?)?|days?")
#: numbers above these are times since 1970, in seconds or milliseconds
_EPOCH_S, _EPOCH_MS = 1e9, 1e12


def read(path: Path, start_s: float | None = None, volts: float | None = None) -> Trace:
    """The log's power over time, by this machine's clock.

    start_s  when the log began, in seconds since 1970: for logs whose times count from their own beginning
    volts    the supply, for meters that log the current alone

    Columns are found by their names, units by what stands in brackets or after an underscore: "Timestamp(ms)", "power_mW".
    Raises InputError with what is wrong.
    """
    lines = _lines(path)
    delimiter = max(",;\t", key=lambda mark: sum(line.count(mark) for line in lines[:20]))
    rows = list(csv.reader(lines, delimiter=delimiter))
    head, columns = _header(rows, path, volts)
    times: list[float] = []
    watts: list[tuple[float, ...]] = []
    for number, row in enumerate(rows[head + 1 :], head + 2):
        if not any(cell.strip() for cell in row):
            continue
        try:
            when = _time(row[columns["time"][0]], columns["time"][1], start_s)
            values = {key: float(row[index]) * factor for key, (index, factor) in columns.items() if key != "time"}
            if not all(map(math.isfinite, (when, *values.values()))):
                raise ValueError("not finite")
        except (ValueError, IndexError) as error:
            raise InputError(f"power log {path.name}: line {number} must hold times and numbers, got {row}; mend it") from error
        if times and when < times[-1]:
            raise InputError(
                f"power log {path.name}: times must not go back, got {when} in line {number}; sort or split the log"
            )
        times.append(when)
        watts.append((_watts(values, volts),))
    if times and times[0] < _EPOCH_S:
        raise InputError(
            f"power log {path.name}: times must be of the clock, got {times[0]:g} from the log's own beginning; "
            "say when it began with --power-log-start"
        )
    return Trace(f"power log {path.name}", "W", ("supply",), times, watts, every_row=True)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"power log {path}: must be a readable file, got {error.strerror}; check the path") from error


def _header(rows: list[list[str]], path: Path, volts: float | None) -> tuple[int, dict[str, tuple[int, float]]]:
    """Where the header is, and for each kind of column its place and factor."""
    for head, row in enumerate(rows):
        columns: dict[str, tuple[int, float]] = {}
        for index, name in enumerate(row):
            for kind, (pattern, units) in _KINDS.items():
                if kind not in columns and pattern.search(name):
                    columns[kind] = (index, _factor(name, units, path))
                    break
        if "time" not in columns:
            continue
        if "power" in columns:
            return head, {key: columns[key] for key in ("time", "power")}
        if "current" in columns and ("voltage" in columns or volts is not None):
            return head, {key: columns[key] for key in ("time", "voltage", "current") if key in columns}
        if "current" in columns:
            raise InputError(
                f"power log {path.name}: it must have power or voltage beside the current, got {row}; say the supply's voltage "
                "with --power-log-volts"
            )
    raise InputError(
        f"power log {path.name}: its header must name a time and power, or voltage and current, got "
        f"{rows[0] if rows else 'nothing'}; add the names"
    )


def _factor(name: str, units: dict[str, float], path: Path) -> float:
    """What a column's unit is in base units; none is taken to be those. Raises InputError for a unit unknown here."""
    found = re.search(r"[(\[]\s*([^)\]]+?)\s*[)\]]|_([A-Za-zµ]+)$", name.strip())
    unit = (found.group(1) or found.group(2)).lower() if found else ""
    if unit not in units and _UNIT.fullmatch(unit):
        raise InputError(f"power log {path.name}: units must be among {', '.join(units)}, got {name!r}; convert the column")
    return units.get(unit, 1.0)


def _time(text: str, factor: float, start_s: float | None) -> float:
    try:
        value = float(text)
    except ValueError:
        return datetime.fromisoformat(text.strip()).timestamp()
    if value > _EPOCH_MS and factor == 1.0:
        return value * 1e-3
    seconds = value * factor
    return seconds if seconds > _EPOCH_S or start_s is None else start_s + seconds


def _watts(values: dict[str, float], volts: float | None) -> float:
    if "power" in values:
        return values["power"]
    return values["current"] * values.get("voltage", volts or 0.0)
