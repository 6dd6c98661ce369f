"""Energy of a neuromorphic board, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from target_graphs import SPIKING_INPUT, dense, spiking, spiking_signature

from edgetk.core.figures import Figure, Missing, Predicted
from edgetk.core.workload import Workload
from edgetk.targets import board
from edgetk.targets.count import count
from edgetk.targets.firing import record
from edgetk.targets.synops import predict, synaptic_operations
from edgetk.toolkit import cost

LOIHI = board.load("loihi2")


def spiking_workload() -> Workload:
    firing = record(spiking(), spiking_signature(), {"x": SPIKING_INPUT}, "two steps made up")
    return count(spiking(), spiking_signature(), firing)


def by_metric(workload: Workload) -> dict[str, Figure]:
    return {figure.metric: figure for figure in predict(workload, LOIHI)}


def test_by_hand() -> None:
    """3 of 6 real inputs meet 4 neurons each, 5 of 16 spikes meet 2: 6 and 5 synaptic operations a step, and 6 updates."""
    workload = spiking_workload()
    assert [synaptic_operations(op) for op in workload.ops if op.macs] == [6, 5]
    energy = by_metric(workload)["energy"]
    assert isinstance(energy, Predicted)
    assert energy.value == pytest.approx(11 * 27.1e-12 + 6 * 81e-12)
    assert str(energy) == "784 pJ predicted (synaptic operations, unvalidated)"
    assert energy.assumptions[0] == "very rough: no static power, no input and output, no host, no spikes between chips"
    assert energy.assumptions[1].startswith("11 synaptic operations at 27.1 pJ (Loihi 1, not 2: Davies et al.")
    assert energy.assumptions[2].startswith("6 neuron updates at 81 pJ (Loihi 1, not 2: Davies et al.")
    assert energy.assumptions[3:] == (
        "only products and neurons are priced: sums, masks and means between them are free",
        "rates from two steps made up (n=1 of 2 steps)",
        "inputs that are no spikes of 1 product(s) count as graded spikes where they are not zero: "
        "55 % of the synaptic operations",
    )


def test_no_times_and_no_sizes() -> None:
    figures = by_metric(spiking_workload())
    assert list(figures) == ["flash", "ram", "latency", "energy", "realtime_factor"]
    reasons = {metric: figure.reason for metric, figure in figures.items() if isinstance(figure, Missing)}
    late = "loihi2 gives energies of operations, not times: a step takes as long as its spikes and their way over the chip"
    assert reasons == {
        "flash": "loihi2 gives energies of operations, not how much its memories hold",
        "ram": "loihi2 gives energies of operations, not how much its memories hold",
        "latency": late,
        "realtime_factor": late,
    }
    assert "realtime_factor" not in by_metric(replace(spiking_workload(), period_s=None))
    assert {figure.device for figure in figures.values()} == {"loihi2 (power mode constants of Loihi 1, stack NIR)"}


def test_without_rates_it_is_an_upper_bound() -> None:
    energy = by_metric(count(spiking(), spiking_signature()))["energy"]
    assert isinstance(energy, Predicted)
    assert energy.value == pytest.approx((12 + 16) * 27.1e-12 + 6 * 81e-12)
    assert energy.assumptions[-1] == "of 2 product(s) no rates were recorded, every input counts: an upper bound"


def test_what_has_no_neurons_has_no_price() -> None:
    energy = by_metric(count(dense()))["energy"]
    assert isinstance(energy, Missing)
    assert energy.reason == "the graph has no spiking neurons that could be priced"


def test_nothing_is_predicted_over_an_uncounted_node() -> None:
    energy = by_metric(replace(spiking_workload(), unknown=("Loop l: no rule for this operator",)))["energy"]
    assert isinstance(energy, Missing)
    assert energy.reason == "1 part(s) of the graph could not be counted: Loop l: no rule for this operator"


def test_the_kind_of_board_chooses_the_predictor() -> None:
    workload = spiking_workload()
    assert cost.predict(workload, LOIHI) == predict(workload, LOIHI)
    (latency,) = (f for f in cost.predict(workload, board.load("raspberry-pi-4")) if f.metric == "latency")
    assert isinstance(latency, Predicted)
    assert latency.predictor == "roofline"
