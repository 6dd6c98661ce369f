"""Names to plug-ins: the file's name is the key, entry points are for outsiders, and nothing is imported to list names.

A clash of two plug-ins is an error that names both; an unknown name gets the closest match; a plug-in that fails to import
stays listed, as broken, with its error.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetk.core.errors import EdgetkError, UnknownName, UsageError, closest

_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Kind:
    """Where plug-ins of one kind live and what their module defines."""

    folders: tuple[str, ...]
    attribute: str
    prefix: str = ""


KINDS: Mapping[str, Kind] = {
    "model": Kind(("models",), "build"),
    "task": Kind(("tasks",), "TASK"),
    "pass": Kind(("passes", "quant"), "PASS"),
    "exporter": Kind(("export",), "EXPORTER", prefix="to_"),
    "meter": Kind(("targets/meters",), "METER"),
}


@dataclass(frozen=True)
class Entry:
    """A plug-in that is known by name: `module` is where it is, not yet imported."""

    kind: str
    name: str
    module: str
    attribute: str

    def load(self) -> Any:
        """Import it. Raises EdgetkError with the plug-in's own error if that fails."""
        try:
            return getattr(importlib.import_module(self.module), self.attribute)
        except Exception as error:  # a plug-in may fail in any way; its error is what the user needs
            if isinstance(error, EdgetkError):
                raise
            raise EdgetkError(
                f"{self.kind} {self.name}: {self.module} must import and define {self.attribute}, "
                f"got {type(error).__name__}: {error}; fix or uninstall that plug-in"
            ) from error

    def problem(self) -> str | None:
        """None if it imports, else why not."""
        try:
            self.load()
        except EdgetkError as error:
            return str(error)
        return None


def _builtin(kind: str) -> list[Entry]:
    rules = KINDS[kind]
    found = []
    for folder in rules.folders:
        for file in sorted((_PACKAGE / folder).glob(f"{rules.prefix}*.py")):
            if file.stem.startswith("_"):
                continue
            name = file.stem.removeprefix(rules.prefix).replace("_", "-")
            module = f"{_PACKAGE.name}.{folder.replace('/', '.')}.{file.stem}"
            found.append(Entry(kind, name, module, rules.attribute))
    return found


def _outside(kind: str) -> list[Entry]:
    found = []
    for point in importlib.metadata.entry_points(group=f"edgetk.{_plural(kind)}"):
        module, _, attribute = point.value.partition(":")
        found.append(Entry(kind, point.name, module, attribute or KINDS[kind].attribute))
    return found


def _plural(kind: str) -> str:
    return "passes" if kind == "pass" else f"{kind}s"


def entries(kind: str) -> Mapping[str, Entry]:
    """All plug-ins of a kind, by name. Raises UsageError if two claim one name."""
    table: dict[str, Entry] = {}
    for entry in _builtin(kind) + _outside(kind):
        if (other := table.get(entry.name)) is not None and other.module != entry.module:
            raise UsageError(
                f"{kind} {entry.name}: a name must belong to one plug-in, got {other.module} and {entry.module}; "
                "uninstall or rename one of them"
            )
        table[entry.name] = entry
    return table


def names(kind: str) -> tuple[str, ...]:
    """The names of a kind, sorted."""
    return tuple(sorted(entries(kind)))


def load(kind: str, name: str) -> Any:
    """The plug-in `name`. Raises UnknownName (with close matches) or EdgetkError (it is broken)."""
    table = entries(kind)
    if name not in table:
        raise UnknownName(f"{kind} {name!r}: no such {kind}; {closest(name, table)}")
    return table[name].load()


def load_module(kind: str, name: str) -> Any:
    """The module that defines the plug-in `name` (for what stands beside its attribute, such as VARIANTS)."""
    load(kind, name)
    return importlib.import_module(entries(kind)[name].module)
