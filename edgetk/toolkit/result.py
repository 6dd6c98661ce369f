"""What a run found out, as plain data: the report's only input, and `report.json` word for word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgetk.core.artifact import Artifact
from edgetk.core.bundle import PassRecord
from edgetk.core.figures import METRICS, Figure, Measured, Missing, Predicted, Score, Validation
from edgetk.core.target import Target

#: Version of `report.json`; raised when a field changes its meaning or goes away.
SCHEMA_VERSION = 1


def figure_from_json(data: Mapping[str, Any]) -> Figure:
    """The inverse of a figure's `to_json`; the type follows `kind`."""
    metric = data["metric"]
    assert metric in METRICS, f"unknown metric {metric}"
    if data["kind"] == "measured":
        keys = ("median", "p95", "n", "warmup", "method", "device", "conditions")
        return Measured(metric, *(data[k] for k in keys))
    if data["kind"] == "predicted":
        seen = data["validation"]
        validation = Validation(seen["n"], seen["median_error"], seen["where"]) if seen else None
        assumptions, calibrated_on = tuple(data["assumptions"]), data.get("calibrated_on", "")  # older reports say nothing
        return Predicted(metric, data["predicted"], data["predictor"], data["device"], assumptions, validation, calibrated_on)
    return Missing(metric, data["reason"], data["device"])


def score_from_json(data: Mapping[str, Any]) -> Score:
    """The inverse of `Score.to_json`."""
    return Score(round(data["top1"] * data["n"]) if data["n"] else 0, data["n"], data["split"], data["note"])


@dataclass(frozen=True)
class FormMeasures:
    """What one form ("clip" or "stream") of a model costs on the run's target, lowered to a graph.

    `weight_bytes` counts the constants in their stored width, `size_bytes` the whole file.
    """

    form: str
    precision: str
    parameters: int
    macs: int
    weight_bytes: int
    size_bytes: int
    latency: Figure

    def to_json(self) -> dict[str, Any]:
        return {
            "form": self.form,
            "precision": self.precision,
            "parameters": self.parameters,
            "macs": self.macs,
            "weight_bytes": self.weight_bytes,
            "size_bytes": self.size_bytes,
            "latency": self.latency.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FormMeasures:
        return cls(**{**data, "latency": figure_from_json(data["latency"])})


#: how the reason of an optional pass begins that was not run
UNFIT = "cannot work on this model"


@dataclass(frozen=True)
class PassRow:
    """One pass of the run: what it did to accuracy and cost, whether it was kept, and why.

    score       of the model after the pass on the guard's split; None where there is no data
    drop        accuracy lost against the original, as a share of all examples (0.01 = one point); negative is a gain
    forms       the cost of each form after the pass, whether kept or not
    kept_forms  the forms that go on with the pass's model; the others keep the model from before it
    file        the pass's model in the run folder, whether kept or not; "" where there is none
    """

    name: str
    settings: Mapping[str, Any]
    kept: bool
    reason: str
    score: Score | None = None
    drop: float | None = None
    forms: tuple[FormMeasures, ...] = ()
    kept_forms: tuple[str, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    file: str = ""

    @property
    def verdict(self) -> str:
        """ "kept", "kept for clip", "taken back" or "left out"."""
        if not self.kept:
            return "left out" if self.reason.startswith(UNFIT) else "taken back"
        every = {form.form for form in self.forms}
        return "kept" if every <= set(self.kept_forms) else "kept for " + " and ".join(self.kept_forms)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "settings": dict(self.settings),
            "kept": self.kept,
            "reason": self.reason,
            "accuracy": self.score.to_json() if self.score else None,
            "drop": self.drop,
            "forms": [form.to_json() for form in self.forms],
            "kept_forms": list(self.kept_forms),
            "notes": dict(self.notes),
            "seconds": self.seconds,
            "file": self.file,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PassRow:
        return cls(
            data["name"],
            data["settings"],
            data["kept"],
            data["reason"],
            score_from_json(data["accuracy"]) if data["accuracy"] else None,
            data["drop"],
            tuple(FormMeasures.from_json(form) for form in data["forms"]),
            tuple(data["kept_forms"]),
            data["notes"],
            data["seconds"],
            data.get("file", ""),
        )


@dataclass(frozen=True)
class FigureRow:
    """A figure of one artifact (its path) on one target (its name)."""

    artifact: str
    target: str
    figure: Figure

    def to_json(self) -> dict[str, Any]:
        return {"artifact": self.artifact, "target": self.target, **self.figure.to_json()}


@dataclass(frozen=True)
class RunResult:
    """Everything a reader needs to trust a run or to repeat it.

    before, after      accuracy on the final split of the original and of the exported model; None where there is no data
    guard_before       accuracy of the original on the split that the passes are judged on
    original           the cost of each form before the first pass
    passes             one row per pass, in order
    figures            measured and predicted figures per artifact and target
    op_energy          per artifact path: energy from operation counts beside its dense equivalents
    workloads          per artifact path: what was counted in its graph, `Workload.to_json`
    beside             for a spiking model: its energy from counts, and that of the same network without spikes
    binary             binary layers, see `edgetk.toolkit.binary`; empty where there are none
    goals_missed       one sentence per goal that was not reached
    recipe             the resolved recipe as data; `recipe_sha256` is the run's identity
    """

    model: str
    target: Target
    task: str
    data: str
    labels: tuple[str, ...]
    before: Score | None
    after: Score | None
    guard_before: Score | None
    original: tuple[FormMeasures, ...]
    passes: tuple[PassRow, ...]
    artifacts: tuple[Artifact, ...]
    figures: tuple[FigureRow, ...]
    op_energy: Mapping[str, Any]
    lineage: tuple[PassRecord, ...]
    recipe: Mapping[str, Any]
    recipe_sha256: str
    environment: Mapping[str, Any]
    goals_missed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    folder: str = ""
    workloads: Mapping[str, Any] = field(default_factory=dict)
    beside: tuple[Mapping[str, Any], ...] = ()
    binary: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        board = self.target
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "target": board.name,
            "target_details": {
                "description": board.description,
                "kind": board.kind,
                "power_mode": board.power_mode,
                "stack": board.stack.name,
                "runtime": board.stack.runtime,
                "sources": dict(board.sources),
            },
            "task": self.task,
            "data": self.data,
            "labels": list(self.labels),
            "accuracy": {
                "before": self.before.to_json() if self.before else None,
                "after": self.after.to_json() if self.after else None,
                "guard_before": self.guard_before.to_json() if self.guard_before else None,
            },
            "original": [form.to_json() for form in self.original],
            "passes": [row.to_json() for row in self.passes],
            "artifacts": [artifact.to_json() for artifact in self.artifacts],
            "figures": [row.to_json() for row in self.figures],
            "op_energy": dict(self.op_energy),
            "workloads": dict(self.workloads),
            "beside": [dict(row) for row in self.beside],
            "binary": dict(self.binary),
            "lineage": [record.to_json() for record in self.lineage],
            "goals_missed": list(self.goals_missed),
            "recipe": dict(self.recipe),
            "recipe_sha256": self.recipe_sha256,
            "environment": dict(self.environment),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }
