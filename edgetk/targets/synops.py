"""Energy of a neuromorphic board: synaptic operations and neuron updates, each at the board's price.

    E = J_synop · Σ_products non-zero inputs · fan-out  +  J_neuron · neuron updates

One weight that meets one non-zero input is a synaptic operation. A real-valued input counts as a graded spike where it is not
zero. The prices come from the board file with their source; what the model leaves out is among the assumptions.
"""

from __future__ import annotations

from edgetk.core import units
from edgetk.core.figures import Missing, Predicted
from edgetk.core.target import Target
from edgetk.core.workload import Op, Workload

PREDICTOR = "synaptic operations"


def synaptic_operations(op: Op) -> float:
    """Multiply-accumulates of the inputs that are not zero; all of them where nobody recorded which are."""
    return op.macs * (1.0 if op.density is None else op.density)


def predict(workload: Workload, target: Target) -> list[Predicted | Missing]:
    """Energy of one inference on a neuromorphic board; all that needs times or sizes is missing, with the reason."""

    def missing(metric: str, what: str) -> Missing:
        return Missing(metric, f"{target.name} gives energies of operations, not {what}", str(target))

    sizes = [missing(metric, "how much its memories hold") for metric in ("flash", "ram")]
    timing = "times: a step takes as long as its spikes and their way over the chip"
    figures: list[Predicted | Missing] = [*sizes, missing("latency", timing), _energy(workload, target)]
    return [*figures, missing("realtime_factor", timing)] if workload.period_s else figures


def _energy(workload: Workload, target: Target) -> Predicted | Missing:
    if workload.unknown:
        reason = f"{len(workload.unknown)} part(s) of the graph could not be counted: {workload.unknown[0]}"
        return Missing("energy", reason, str(target))
    if not workload.neurons:
        return Missing("energy", "the graph has no spiking neurons that could be priced", str(target))
    synops = sum(synaptic_operations(op) for op in workload.ops)
    value = synops * target.joules["synop"] + workload.neurons * target.joules["neuron_update"]
    return Predicted("energy", value, PREDICTOR, str(target), _assumptions(workload, target, synops))


def _assumptions(workload: Workload, target: Target, synops: float) -> tuple[str, ...]:
    def price(count: float, what: str, key: str) -> str:
        return f"{units.count(count)} {what} at {units.joules(target.joules[key])} ({target.sources[f'joules.{key}']})"

    found = [
        "very rough: no static power, no input and output, no host, no spikes between chips",
        price(synops, "synaptic operations", "synop"),
        price(workload.neurons, "neuron updates", "neuron_update"),
        "only products and neurons are priced: sums, masks and means between them are free",
    ]
    if workload.rates_from:
        found.append(f"rates from {workload.rates_from}")
    graded = [op for op in workload.ops if op.macs and op.density is not None and op.spike_rate is None]
    if graded:
        share = sum(synaptic_operations(op) for op in graded) / synops if synops else 0.0
        found.append(
            f"inputs that are no spikes of {len(graded)} product(s) count as graded spikes where they are not zero: "
            f"{units.percent(share, 0)} of the synaptic operations"
        )
    unseen = [op for op in workload.ops if op.macs and op.density is None]
    if unseen:
        found.append(f"of {len(unseen)} product(s) no rates were recorded, every input counts: an upper bound")
    return tuple(found)
