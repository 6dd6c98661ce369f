"""`edgetk list`: what there is to use, with what is broken shown as broken."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgetk.core import registry
from edgetk.core.errors import EdgetkError, UnknownName, closest
from edgetk.toolkit.commands import shared

if TYPE_CHECKING:
    from edgetk.core.target import Target

_KINDS = ("models", "passes", "tasks", "exporters", "targets", "recipes")
_REGISTRY = {"models": "model", "passes": "pass", "tasks": "task", "exporters": "exporter"}


def listing(
    kind: Annotated[str, typer.Argument(metavar="[KIND]", help=f"One of: {', '.join(_KINDS)}. Default: all.")] = "",
    names: Annotated[
        bool, typer.Option("--names", help="Names alone, nothing is imported: fast, finds nothing broken.")
    ] = False,
    as_json: shared.Json = False,
) -> None:
    """List models, passes, tasks, exporters, targets and recipes; plug-ins that do not import are shown as broken."""
    if kind and kind not in _KINDS:
        raise UnknownName(f"list: the kind must be one of {', '.join(_KINDS)}, got {kind!r}; {closest(kind, _KINDS)}")
    wanted = (kind,) if kind else _KINDS
    found = {k: _rows(k, check=not names) for k in wanted}
    if as_json:
        shared.print_json(found)
        return
    for k, rows in found.items():
        if len(wanted) > 1:
            print(f"{k}:")
        for row in rows:
            _print_row(row, names, indent="  " if len(wanted) > 1 else "")


def _print_row(row: Mapping[str, Any], names: bool, indent: str) -> None:
    if names:
        print(f"{indent}{row['name']}")
    elif row["problem"]:
        print(f"{indent}{row['name']:<22} BROKEN: {row['problem']}")
    else:
        print(f"{indent}{row['name']:<22} {row['description']}")


def _rows(kind: str, check: bool) -> list[dict[str, Any]]:
    if kind == "targets":
        return _boards(check)
    if kind == "recipes":
        return _recipes(check)
    rows = []
    for entry in registry.entries(_REGISTRY[kind]).values():
        row = {"name": entry.name, "module": entry.module, "description": "", "problem": None}
        if check:
            row["problem"] = entry.problem()
            row["description"] = "" if row["problem"] else _first_line(entry.module)
        rows.append(row)
        if kind == "models" and check and row["problem"] is None:
            rows.extend(_variants(entry, row))
    return sorted(rows, key=lambda row: str(row["name"]))


def _variants(entry: registry.Entry, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The other sizes of a model family; says of each whether trained weights come with edgetk."""
    from edgetk.toolkit.source import WEIGHTS, zoo

    sizes = getattr(registry.load_module("model", entry.name), "VARIANTS", ())
    default = getattr(registry.load_module("model", entry.name), "DEFAULT", None)
    rows: list[dict[str, Any]] = []
    if default is not None:
        row["description"] = f"{row['description']} [the name alone is {entry.name}-{default}]"
    for name, (family, variant) in zoo().items():
        if family != entry.name:
            continue
        trained = (WEIGHTS / f"{name}.safetensors").is_file()
        text = "trained weights included" if trained else "untrained"
        if name == entry.name:
            row |= {"description": f"{row['description']} [{text}]", "trained": trained}
            continue
        what = f"{variant} variant of {family}" if variant in sizes else f"{family}, compressed and fine-tuned"
        rows.append({**row, "name": name, "description": f"{what} [{text}]", "trained": trained})
    return rows


def _first_line(module: str) -> str:
    """First line of a module's docstring, read from its source."""
    spec = importlib.util.find_spec(module)
    source = spec.loader.get_source(module) if spec and spec.loader and hasattr(spec.loader, "get_source") else None
    text = ast.get_docstring(ast.parse(source)) if source else None
    return text.splitlines()[0] if text else ""


def _boards(check: bool) -> list[dict[str, Any]]:
    from edgetk.targets import board

    aliases: dict[str, list[str]] = {}
    for alias, name in board.aliases().items():
        aliases.setdefault(name, []).append(alias)

    def describe(name: str) -> str:
        target = board.load(name)
        also = f" (also: {', '.join(aliases[name])})" if name in aliases else ""
        return f"{target.description}, power mode {target.power_mode}, {target.stack.name}; {_trust(target)}{also}"

    rows = []
    for name in board.names():
        row = {**_checked(name, describe, check), "aliases": aliases.get(name, [])}
        if check and row["problem"] is None:
            row |= _known(board.load(name)) | {"parts": list(board.parts(name))}
        rows.append(row)
    return rows


def _known(target: Target) -> dict[str, Any]:
    """What a board's numbers were calibrated on, how far predictions were off, and which are assumed."""
    return {
        "calibrated": target.calibration.get("source"),
        "validated": dict(target.calibration.get("errors", {})),
        "numbers": len(target.sources),
        "assumed": sorted(key for key, text in target.sources.items() if "assumed" in text),
    }


def _trust(target: Target) -> str:
    """The same in words."""
    known = _known(target)
    errors = [
        f"{metric} to {100 * found['median_error']:.0f} % (median of {found['n']})"
        for metric, found in known["validated"].items()
    ]
    words = ["measured here"] if target.measurable else []
    words += [f"calibrated on {known['calibrated']}"] if known["calibrated"] else ["not calibrated"]
    words += [f"validated: {', '.join(errors)}"] if errors else ["unvalidated"]
    return "; ".join((*words, f"{len(known['assumed'])} of {known['numbers']} numbers assumed"))


def _recipes(check: bool) -> list[dict[str, Any]]:
    from edgetk.toolkit import recipe, training_recipe

    rows = [_checked(name, lambda n: recipe.read(n).description, check) for name in recipe.names()]
    for name in training_recipe.names():
        row = _checked(name, lambda n: training_recipe.read(n).description, check)
        rows.append({**row, "name": f"train/{name}"})
    return rows


def _checked(name: str, describe: Callable[[str], str], check: bool) -> dict[str, Any]:
    """A row whose description, or else problem, comes from opening the file behind the name."""
    if not check:
        return {"name": name, "description": "", "problem": None}
    try:
        return {"name": name, "description": describe(name), "problem": None}
    except EdgetkError as error:
        return {"name": name, "description": "", "problem": str(error)}
