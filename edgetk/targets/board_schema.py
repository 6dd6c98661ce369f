"""A board's TOML data, checked key by key and made a `Target`: types, ranges, and a source for every number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from edgetk.core.errors import InputError, closest
from edgetk.core.target import Mode, Stack, Target
from edgetk.targets import machine

_NUMBERS = {
    "clock_hz": float,
    "cores": int,
    "mem_bytes_per_s": float,
    "ram_bytes": int,
    "flash_bytes": int,
    "power_w": float,
    "idle_w": float,
    "overhead_s_per_op": float,
}
_OTHERS = {
    "description": str,
    "kind": str,
    "power_mode": str,
    "aliases": list,
    "measurable": bool,
    "read_at_run_time": list,
    "core": str,
    "kernels": str,
    "host": str,
    "python": str,
    "total_rails": list,
    "stack": dict,
    "macs_per_cycle": dict,
    "achievable": dict,
    "cycles": dict,
    "caches": dict,
    "joules_per": dict,
    "joules": dict,
    "sources": dict,
    "calibration": dict,
}
_REQUIRED = ("description", "kind", "power_mode", "stack", "cores", "clock_hz", "mem_bytes_per_s", "ram_bytes", "flash_bytes")
#: what a board of kind "neuromorphic" must give instead: energies of operations, not speeds and sizes
_REQUIRED_NEUROMORPHIC = ("description", "kind", "power_mode", "stack", "cores", "joules")
#: tables of numbers, and the keys they may have (None: any)
_TABLES: Mapping[str, tuple[str, ...] | None] = {
    "macs_per_cycle": None,
    "achievable": ("gemm", "gemv", "depthwise"),
    "cycles": ("product", "element", "transcendental"),
    "joules_per": None,
}
_CACHE = {"bytes": float, "bytes_per_s": float}
_JOULES = {"synop": float, "neuron_update": float}
_STACK = {
    "name": str,
    "runtime": str,
    "opset": int,
    "max_opset": int,
    "ir_version": int,
    "activation": str,
    "layer_norm": bool,
    "operators": list,
    "exports": list,
}
_STACK_REQUIRED = ("name", "runtime")
_NEUROMORPHIC = "neuromorphic"
_KINDS = ("cpu", "gpu", "mcu", _NEUROMORPHIC)
_ACTIVATIONS = ("int8", "uint8")
_LATE: Mapping[str, Callable[[], Any]] = {
    "clock_hz": machine.clock_hz,
    "cores": machine.cores,
    "ram_bytes": machine.ram_bytes,
    "flash_bytes": machine.disk_bytes,
}
_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list of texts",
    dict: "a table",
}


def target(name: str, data: dict[str, Any], where: str, unit: str = "", modes: tuple[Mode, ...] = ()) -> Target:
    """The board that `data` describes. Raises InputError, naming the key, for all that is not as a board file must be."""
    _check_types(data, _NUMBERS | _OTHERS, "", where)
    measurable = data.get("measurable", False)
    late = {*data.get("read_at_run_time", ()), "mem_bytes_per_s"} if measurable else set()
    neuromorphic = data.get("kind") == _NEUROMORPHIC
    required = _REQUIRED_NEUROMORPHIC if neuromorphic else _REQUIRED
    _check_given(data, [key for key in required if key not in late], "", where)
    _check_types(data["stack"], _STACK, "stack.", where)
    _check_given(data["stack"], _STACK_REQUIRED, "stack.", where)
    if data["stack"].get("exports") == []:
        raise InputError(f"board {where}: stack.exports must name a format, got none; name one or leave it out")
    rates: dict[str, float] = data.get("macs_per_cycle", {})
    for table, keys in _TABLES.items():
        values = data.get(table, {})
        _check_types(values, dict.fromkeys(values if keys is None else keys, float), f"{table}.", where)
    if (best := max(data.get("achievable", {}).values(), default=1.0)) > 1:
        raise InputError(f"board {where}: achievable is a share and must be at most 1, got {best}; correct it")
    for cache, level in data.get("caches", {}).items():
        _check_types({cache: level}, {cache: dict}, "caches.", where)
        _check_types(level, _CACHE, f"caches.{cache}.", where)
        _check_given(level, _CACHE, f"caches.{cache}.", where)
    _check_choice(data["kind"], _KINDS, "kind", where)
    _check_choice(data["stack"].get("activation", "int8"), _ACTIVATIONS, "stack.activation", where)
    joules: dict[str, float] = data.get("joules", {})
    if joules and not neuromorphic:
        raise InputError(f'board {where}: joules must stand on a board of kind "neuromorphic", got {data["kind"]!r}; remove it')
    _check_types(joules, _JOULES, "joules.", where)
    _check_given(joules, _JOULES if neuromorphic else (), "joules.", where)
    found = _at_run_time(data, where)
    if "float32" not in rates and not measurable and not neuromorphic:
        raise InputError(
            f"board {where}: macs_per_cycle must give at least float32, got {list(rates)}; add macs_per_cycle.float32"
        )
    calibration = data.get("calibration", {})
    if calibration and not (isinstance(calibration.get("source"), str) and calibration["source"].strip()):
        raise InputError(f"board {where}: calibration must name its source, got none; add calibration.source")
    _check_types({"formats": calibration.get("formats", [])}, {"formats": list}, "calibration.", where)
    per_mac = calibration.get("joules_per_mac", {})
    _check_types({"joules_per_mac": per_mac}, {"joules_per_mac": dict}, "calibration.", where)
    _check_types(per_mac, dict.fromkeys(per_mac, float), "calibration.joules_per_mac.", where)
    _check_errors(calibration.get("errors", {}), where)
    numbers: dict[str, Any] = dict.fromkeys(("clock_hz", "mem_bytes_per_s", "ram_bytes", "flash_bytes"))
    numbers |= {key: kind(data[key]) for key, kind in _NUMBERS.items() if key in data} | found
    stack: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data["stack"].items()}
    return Target(
        name=name,
        description=data["description"],
        kind=data["kind"],
        power_mode=data["power_mode"],
        stack=Stack(**stack),
        macs_per_cycle=_floats(data, "macs_per_cycle"),
        measurable=measurable,
        core=data.get("core", ""),
        host=data.get("host", ""),
        python=data.get("python", "python3"),
        total_rails=tuple(data.get("total_rails", ())),
        unit=unit,
        modes=modes,
        achievable=_floats(data, "achievable"),
        cycles=_floats(data, "cycles"),
        joules_per=_floats(data, "joules_per"),
        caches=tuple(sorted((float(c["bytes"]), float(c["bytes_per_s"])) for c in data.get("caches", {}).values())),
        sources=_sources(data, where) | dict.fromkeys(found, "read from the operating system"),
        calibration=calibration,
        joules=_floats(data, "joules"),
        **numbers,
    )


def _floats(data: Mapping[str, Any], table: str) -> dict[str, float]:
    return {key: float(value) for key, value in data.get(table, {}).items()}


def _check_errors(errors: Any, where: str) -> None:
    """What predictions were found to be off by, for each metric: how often it was looked at, and the median."""
    _check_types({"errors": errors}, {"errors": dict}, "calibration.", where)
    for metric, found in errors.items():
        prefix = f"calibration.errors.{metric}"
        _check_types({metric: found}, {metric: dict}, "calibration.errors.", where)
        _check_types(found, {"n": int, "median_error": float, "where": str}, f"{prefix}.", where)
        _check_given(found, ("n", "median_error", "where"), f"{prefix}.", where)


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind is float:
        return isinstance(value, (int, float))
    if kind is int and isinstance(value, float):  # 4e9 is how people write a whole number of bytes
        return value.is_integer()
    if kind is list:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, kind)


def _check_types(table: Mapping[str, Any], kinds: Mapping[str, type], prefix: str, where: str) -> None:
    for key, value in table.items():
        if key not in kinds:
            raise InputError(f"board {where}: every key must be one of a board's, got {prefix}{key}; {closest(key, kinds)}")
        if not _is(value, kinds[key]):
            raise InputError(f"board {where}: {prefix}{key} must be {_WORDS[kinds[key]]}, got {value!r}; correct it")
        if kinds[key] in (int, float) and not (value > 0 and math.isfinite(value)):
            raise InputError(f"board {where}: {prefix}{key} must be greater than 0, got {value}; correct it or leave it out")


def _check_given(table: Mapping[str, Any], required: Iterable[str], prefix: str, where: str) -> None:
    for key in required:
        if key not in table:
            raise InputError(f"board {where}: {prefix}{key} must be given, got nothing; add it")


def _check_choice(value: str, choices: tuple[str, ...], key: str, where: str) -> None:
    if value not in choices:
        raise InputError(f"board {where}: {key} must be one of {', '.join(choices)}, got {value!r}; correct it")


def _numbers(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all numbers that need a source."""
    for key, value in table.items():
        if isinstance(value, dict) and (prefix or key in ("stack", "joules", "caches", *_TABLES)):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{key}"


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _sources(data: Mapping[str, Any], where: str) -> dict[str, str]:
    sources = dict(_flat(data.get("sources", {})))
    needed = list(_numbers(data))
    for key in needed:
        text = sources.get(key)
        if not isinstance(text, str) or not text.strip():
            raise InputError(
                f'board {where}: {key} must have a source, got none; add {key} under [sources], or write "assumed" there'
            )
    for key in sources:
        if key not in needed:
            raise InputError(f"board {where}: a source must belong to a number, got {key}; {closest(key, needed)}")
    return sources


def _at_run_time(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What the file leaves to this machine, as far as the operating system tells."""
    keys = data.get("read_at_run_time", [])
    if keys and data.get("measurable") is not True:
        raise InputError(f"board {where}: read_at_run_time must stand beside measurable = true, got {keys}; give the numbers")
    for key in keys:
        if key not in _LATE:
            raise InputError(f"board {where}: read_at_run_time must hold keys it can read, got {key!r}; {closest(key, _LATE)}")
        if key in data:
            raise InputError(f"board {where}: {key} must be given or read at run time, got both; remove one")
    return {key: _LATE[key]() for key in keys}
