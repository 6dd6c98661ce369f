"""What a model costs on a target: each form lowered, counted, and its latency measured or predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from edgetk.core import registry
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Lowered, Meter, Predictor
from edgetk.core.figures import Figure, Measured, Missing, Predicted
from edgetk.core.signature import Signature
from edgetk.core.target import Target
from edgetk.core.workload import Workload
from edgetk.toolkit.result import FormMeasures
from edgetk.toolkit.workspace import Workspace

if TYPE_CHECKING:
    import onnx

    from edgetk.targets.firing import Firing

#: how much slower a measurement must be before it counts: two runs of one graph on a busy machine differ by about that
NOISE = 0.10
#: a measurement so much faster needs no second look
PLAIN_GAIN = 0.8
#: how much slower counts for predictions: a roofline that nobody validated cannot tell smaller differences
DOUBT = 0.10
#: seconds that one look at the latency of one graph may take while passes are judged
BUDGET_S = 0.25


@dataclass(frozen=True)
class Costs:
    """Looks at graphs on one target. Graphs that a meter needs as files go to the workspace's scratch folder.

    `max_slowdown`: how many times as long a graph may take as the one before it.
    """

    target: Target
    workspace: Workspace
    max_slowdown: float = 1.0

    def lower(self, bundle: Bundle) -> dict[str, Lowered]:
        """Every form of a bundle as a graph the target accepts, by form."""
        from edgetk.export.lower import lower

        return {low.form: low for low in lower(bundle, self.target)}

    def measures(self, lowered: Mapping[str, Lowered]) -> tuple[FormMeasures, ...]:
        """Counts and latency of each form."""
        return tuple(self._form(low) for low in lowered.values())

    def latency(self, low: Lowered, workload: Workload | None = None) -> Figure:
        """One inference: measured where the target can be (this machine), else predicted, else why neither."""
        if self.target.measurable:
            return self._measured(low)
        figures = predict(workload or count(low), self.target)
        return pick(figures, "latency", self.target)

    def slower(self, before: FormMeasures, after: FormMeasures, graphs: tuple[Lowered, Lowered]) -> str | None:
        """None unless `after` takes longer than `before`, and than is allowed; else both in words.

        Unless the gain is plain, measurements are repeated for both graphs in turn, and the smallest median of each decides:
        the two first looks were minutes apart, and something else on the machine may have disturbed one of them. A
        measurement and a prediction are never compared.
        """
        old, new, allowed = before.latency, after.latency, self.max_slowdown
        if isinstance(old, Predicted) and isinstance(new, Predicted):
            return f"{new} against {old}" if new.value > old.value * allowed * (1 + DOUBT) else None
        if not (isinstance(old, Measured) and isinstance(new, Measured)) or new.median <= old.median * allowed * PLAIN_GAIN:
            return None
        for _ in range(2):
            again = [self.latency(graph) for graph in graphs]
            old, new = _faster(old, again[0]), _faster(new, again[1])
            if new.median <= old.median * allowed:
                break
        return f"{new} against {old}" if new.median > old.median * allowed * (1 + NOISE) else None

    def _form(self, low: Lowered) -> FormMeasures:
        workload = count(low)
        return FormMeasures(
            low.form,
            low.precision,
            workload.parameters,
            workload.macs,
            workload.weight_bytes,
            low.graph.ByteSize(),
            self.latency(low, workload),
        )

    def _measured(self, low: Lowered) -> Figure:
        meter = meter_for(self.target, low.graph)
        if (reason := meter.available()) is not None:
            return Missing("latency", reason, str(self.target))
        name = f"scratch/{low.form}.onnx"
        self.workspace.write(name, low.graph.SerializeToString())
        figures = meter.measure(self.workspace.path(name), low.signature, BUDGET_S)
        self.workspace.clear("scratch")
        return pick(figures, "latency", self.target)


def meter_for(target: Target, graph: onnx.ModelProto) -> Meter:
    """The meter of the target's runtime; where `graph` has edgetk's own operators and their library is built, it runs that."""
    from edgetk.export import operators
    from edgetk.models.layers.operators import DOMAIN

    meter: Meter = registry.load("meter", target.stack.runtime)
    takes = is_dataclass(meter) and any(f.name == "operators" for f in fields(meter))
    if not takes or not any(node.domain == DOMAIN for node in graph.graph.node):
        return meter
    library = operators.library()
    return meter if library is None else replace(cast(Any, meter), operators=library)


def _faster(a: Measured, b: Figure) -> Measured:
    return b if isinstance(b, Measured) and b.median < a.median else a


def count(low: Lowered, firing: Firing | None = None) -> Workload:
    """The operations of a lowered graph; with `firing`, how often each product's inputs spike."""
    return count_graph(low.graph, low.signature, firing)


def count_graph(graph: Any, signature: Signature, firing: Firing | None = None) -> Workload:
    """The operations of an ONNX graph."""
    from edgetk.targets.count import count as counted

    return counted(graph, signature, firing)


def predict(workload: Workload, target: Target) -> Sequence[Predicted | Missing]:
    """All figures the predictor of this kind of target gives."""
    from edgetk.targets import predict as predictors

    predictor: Predictor = predictors.predict
    return predictor(workload, target)


def pick(figures: Sequence[Figure], metric: str, target: Target) -> Figure:
    """The figure of one metric, or that nobody gave it."""
    found = next((f for f in figures if f.metric == metric), None)
    return found if found is not None else Missing(metric, f"no figure of it for {target.name}", str(target))
