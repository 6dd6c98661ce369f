"""The end of a run: lowered forms into files, their proofs and test data, and the figures of each file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from edgetk.core import registry
from edgetk.core.artifact import Artifact
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Emitted, Exporter, Lowered
from edgetk.core.errors import EdgetkError, ParityError, PostconditionError
from edgetk.core.figures import Figure, Missing, Predicted
from edgetk.core.target import Target
from edgetk.core.workload import Workload
from edgetk.toolkit import cost
from edgetk.toolkit.result import FigureRow
from edgetk.toolkit.workspace import Workspace

if TYPE_CHECKING:
    from edgetk.targets.firing import Firing

#: emitted files in this folder go with an artifact (inputs and outputs to try it with); they are none themselves
TEST_DATA = "testdata/"


@dataclass(frozen=True)
class Delivered:
    """A written file with the graph it was made from, the graph's content, and what fired in it where it spikes."""

    artifact: Artifact
    emitted: Emitted
    firing: Firing | None = None

    @cached_property
    def workload(self) -> Workload:
        """What was counted in its graph."""
        return cost.count(self.emitted.lowered, self.firing)


def export(
    names: Sequence[str],
    lowered: Mapping[str, Lowered],
    bundle: Bundle,
    target: Target,
    workspace: Workspace,
    facts: Mapping[str, Any],
    firings: Mapping[str, Firing] = MappingProxyType({}),
) -> list[Delivered]:
    """Run the exporters and write what they give, each file only after its proof.

    `facts` go into the files' metadata, and so do `firings`, the spike rates recorded in each form.

    Raises ParityError before a file is written that does not compute what the model computes.
    """
    delivered = []
    if firings:
        facts = {**facts, "firing": {form: firing.to_json() for form, firing in firings.items()}}
    for name in names:
        exporter: Exporter = registry.load("exporter", name)
        try:
            emissions = exporter(tuple(lowered.values()), bundle, target, facts)
        except EdgetkError:
            raise
        except Exception as error:  # an exporter is a plug-in: it may fail in any way
            raise PostconditionError(
                f"exporter {name}: must finish, got {type(error).__name__}: {error}; the finished passes are kept, "
                "leave the exporter out and continue with --resume"
            ) from error
        for emitted in emissions:
            artifact = _write(emitted, name, target, workspace)
            if not emitted.name.startswith(TEST_DATA):
                delivered.append(Delivered(artifact, emitted, firings.get(emitted.lowered.form)))
    return delivered


def _write(emitted: Emitted, exporter: str, target: Target, workspace: Workspace) -> Artifact:
    parity = emitted.parity
    if parity is not None and not parity.passed:
        raise ParityError(
            f"exporter {exporter}: {emitted.name} must compute what the model computes, got {parity}; it was not written, "
            "the finished passes are kept (--resume)"
        )
    low = emitted.lowered
    return Artifact(
        path=emitted.name,
        format=emitted.format,
        form=low.form,
        precision=low.precision,
        sha256=workspace.write(emitted.name, emitted.content),
        size_bytes=len(emitted.content),
        signature=low.signature,
        built_for=emitted.built_for or str(target),
        parity=parity,
        notes=emitted.notes,
    )


def figures(delivered: Sequence[Delivered], targets: Sequence[Target], workspace: Workspace) -> list[FigureRow]:
    """Every figure of every graph on every target and on the other units of its board: predicted, measured on this machine.

    Files that were made from one graph share its figures, under the name of the first.
    """
    from edgetk.targets import board

    rows = []
    boards = board.with_units(targets)
    graphs: dict[int, Delivered] = {}
    for item in delivered:
        graphs.setdefault(id(item.emitted.lowered), item)
    for item in graphs.values():
        artifact, workload = item.artifact, item.workload
        for target in boards:
            found: list[Figure] = list(cost.predict(workload, target))
            if target.measurable:
                seen = _measure(item, target, workspace)
                metrics = {figure.metric for figure in seen}
                found = [*seen, *(f for f in found if f.metric not in metrics)]
            have = {figure.metric for figure in found}
            for metric, value in (("parameters", workload.parameters), ("macs", workload.macs)):
                if metric not in have:
                    found.append(Predicted(metric, value, "operation count", str(target), ("counted in the exported graph",)))
            rows += [FigureRow(artifact.path, target.name, figure) for figure in found]
    return rows


def _measure(item: Delivered, target: Target, workspace: Workspace) -> Sequence[Figure]:
    artifact, meter = item.artifact, cost.meter_for(target, item.emitted.lowered.graph)
    if (reason := meter.available()) is not None:
        return [Missing("latency", reason, str(target))]
    if artifact.format != "onnx":
        return [Missing("latency", f"{meter.name} runs ONNX files, this is {artifact.format}", str(target))]
    return meter.measure(workspace.path(artifact.path), artifact.signature)


def op_energies(delivered: Sequence[Delivered]) -> dict[str, Any]:
    """Energy from operation counts of each file, beside the dense int8 and float32 equivalents of the same graph."""
    from dataclasses import asdict

    from edgetk.targets.op_energy import op_energy

    return {item.artifact.path: asdict(op_energy(item.workload)) for item in delivered}


def workloads(delivered: Sequence[Delivered]) -> dict[str, Any]:
    """What was counted in each graph, under the name of the first file that was made from it."""
    firsts = {id(item.emitted.lowered): item for item in reversed(delivered)}.values()
    return {item.artifact.path: item.workload.to_json() for item in firsts}
