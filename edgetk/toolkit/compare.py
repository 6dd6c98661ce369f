"""Predictions set against measurements of the same artifacts: figures found in two JSON documents, joined, and their errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetk.core.errors import InputError
from edgetk.core.figures import Measured, Predicted, Validation, validate
from edgetk.toolkit.result import figure_from_json

#: of keys that are names of files
_SUFFIXES = (".onnx", ".engine", ".plan", ".c")


@dataclass(frozen=True)
class Pair:
    """One figure of an artifact, predicted and measured."""

    artifact: str
    predicted: Predicted
    measured: Measured

    @property
    def error(self) -> float:
        """Relative, signed: below zero where less was predicted than measured."""
        return self.predicted.value / self.measured.median - 1


def compare(predicted: Path, measured: Path, device: str = "") -> list[Pair]:
    """Pairs of figures of one artifact and metric, in the order of the predictions.

    Any JSON document of edgetk will do (`report.json`, `edgetk bench --json`, `edgetk inspect --json`): figures are looked for
    in it, under the name of their artifact. Both files may be one. `device` picks predictions by a part of their device's name.
    Raises InputError where a file is no JSON, where nothing is in both, and where it is not plain what belongs together.
    """
    guesses = [(name, f) for name, f in _figures(predicted) if isinstance(f, Predicted) and device in f.device]
    seen: dict[tuple[str, str], Measured] = {}
    origins: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for name, f in _figures(measured):
        if isinstance(f, Measured):
            seen[name, f.metric] = f
            origins.setdefault((name, f.metric), set()).add((f.device, str(f.conditions.get("artifact_sha256", ""))))
    pairs = [Pair(name, f, seen[name, f.metric]) for name, f in guesses if (name, f.metric) in seen]
    names: dict[tuple[str, str], set[str]] = {}
    for pair in pairs:
        names.setdefault((pair.artifact, pair.predicted.metric), set()).add(pair.predicted.device)
    for (artifact, metric), devices in names.items():
        if len(devices) > 1:
            raise InputError(
                f"compare: {metric} of {artifact} must be predicted for one device, got {', '.join(sorted(devices))}; "
                "name one with --device"
            )
    for artifact, metric in names:
        if len(found := origins[artifact, metric]) > 1:
            where = ", ".join(f"{on} (sha256 {digest[:8]})" if digest else on for on, digest in sorted(found))
            raise InputError(
                f"compare: {metric} of {artifact} must be measured on one device from one file, got {where}; give one of them"
            )
    if not pairs:
        raise InputError(
            f"compare: {predicted.name} and {measured.name} must have a figure of one artifact in common, got "
            f"{len(guesses)} predicted and {len(seen)} measured figures of other ones; give files of the same artifacts"
        )
    return pairs


def validations(pairs: list[Pair]) -> dict[str, Validation]:
    """The validation of each metric: how many, the median relative error, and where it was seen."""
    found = {}
    for metric in dict.fromkeys(pair.predicted.metric for pair in pairs):
        of = [pair for pair in pairs if pair.predicted.metric == metric]
        where = ", ".join(dict.fromkeys(pair.measured.device for pair in of))
        found[metric] = validate([p.predicted for p in of], [p.measured for p in of], where)
    return found


def _figures(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"compare: {path} must be a readable file, got {error.strerror}; check the path") from error
    except ValueError as error:
        raise InputError(f"compare: {path} must be JSON, got {error}; write it with --json or -o") from error
    yield from _walk(data, "")


def _walk(data: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every figure below `data` with the name of the artifact it stands under, without its folder."""
    if isinstance(data, list):
        for item in data:
            yield from _walk(item, name)
    if not isinstance(data, dict):
        return
    own = next((data[key] for key in ("artifact", "file", "path", "model") if isinstance(data.get(key), str)), "")
    form = data.get("form") if isinstance(data.get("form"), str) else ""
    name = Path(own).name if own else name
    if form and not own and Path(name).suffix not in _SUFFIXES:
        name = f"{name}/{form}"
    if data.get("kind") in ("predicted", "measured") and "metric" in data:
        yield name, figure_from_json(data)
        return
    for key, value in data.items():
        yield from _walk(value, Path(key).name if Path(key).suffix in _SUFFIXES else name)
