"""Binary layers of an exported model for the report: bits, operations by kind, what runs as what, and attention by counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgetk.core import units
from edgetk.core.bundle import Bundle

if TYPE_CHECKING:
    from edgetk.toolkit.deliver import Delivered

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def binary(delivered: Sequence[Delivered], bundle: Bundle) -> dict[str, Any]:
    """What the report says about binary layers, as data; empty where no exported graph has one.

    layers     per graph, under the name of its first file: `edgetk.export.binary_layers.BinaryLayer`s
    runs_as    runtime -> kind of layer -> how it runs there
    attention  operations of the whole network as it is built, with each attention, where the module has `attention_costs`
    """
    from edgetk.export.binary_layers import RUNS_AS, binary_layers

    graphs = {id(item.emitted.lowered): item for item in reversed(delivered)}.values()
    layers = {item.artifact.path: [asdict(layer) for layer in binary_layers(item.emitted.lowered.graph)] for item in graphs}
    layers = {path: rows for path, rows in layers.items() if rows}
    if not layers:
        return {}
    kinds = {row["kind"] for rows in layers.values() for row in rows}
    costs = getattr(bundle.body, "attention_costs", None)
    return {
        "layers": layers,
        "runs_as": {name: {k: how for k, how in kinds_.items() if k in kinds} for name, kinds_ in RUNS_AS.items()},
        "attention": costs() if costs is not None and "attention on codes" in kinds else [],
    }


def layer_table(report: Mapping[str, Any]) -> Table:
    """Columns and rows of the binary layers, one each."""
    columns = (
        "file", "layer", "what", "shape", "values of 1 bit", "on disk", "packed", "additions", "multiplications", "divisions",
    )  # fmt: skip
    rows: list[tuple[str, ...]] = []
    for path, layers in report.get("binary", {}).get("layers", {}).items():
        for i, layer in enumerate(layers):
            counts = (units.count(layer[k]) for k in ("additions", "multiplications", "divisions"))
            stored = units.size(layer["stored_bytes"]) if layer["stored_bytes"] else "computed"
            rows.append(
                (
                    path if i == 0 else "", layer["name"], layer["kind"], layer["shape"], units.count(layer["values"]), stored,
                    units.size(layer["packed_bytes"]), *counts,
                )
            )  # fmt: skip
    return columns, rows


def attention_table(report: Mapping[str, Any]) -> Table:
    """Columns and rows of the whole network's operations with each attention; savings against both baselines, never one."""
    columns = (
        "attention", "multiplications", "additions", "energy by EcoFormer's count", "with the multiplications it leaves out",
        "binary attention needs", "with those",
    )  # fmt: skip
    rows = []
    entries = report.get("binary", {}).get("attention", [])
    for entry in entries:
        own = entries[0]
        less = [
            f"{1 - own[key] / entry[key]:.1%} less" if entry is not own else "" for key in ("joules", "joules_with_distances")
        ]
        joules = (units.joules(entry[k]) for k in ("joules", "joules_with_distances"))
        rows.append((entry["attention"], units.count(entry["muls"]), units.count(entry["adds"]), *joules, *less))
    return columns, rows


def notes(report: Mapping[str, Any]) -> list[str]:
    """What each runtime runs, and how the counts are meant."""
    found = report.get("binary", {})
    lines = [
        f"{runtime}: {kind} runs as {how}" for runtime, kinds in found.get("runs_as", {}).items() for kind, how in kinds.items()
    ]
    if lines:
        lines.append(
            "additions are what the layer needs where a runtime adds and subtracts; the energy from operation counts prices "
            "what stock runtimes do, multiply-accumulates"
        )
    if found.get("attention"):
        lines.append(
            "operations of the whole network as it is built, before any pass, by layers as EcoFormer counts them "
            "(45 nm, float32); memory costs nothing there"
        )
    return lines


__all__ = ["attention_table", "binary", "layer_table", "notes"]
