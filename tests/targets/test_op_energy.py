"""The 45 nm table, by hand."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from target_graphs import SPIKING_INPUT, scanned, spiking, spiking_signature, unrolled

from edgetk.core.workload import Op, Workload
from edgetk.targets.count import count
from edgetk.targets.firing import record
from edgetk.targets.op_energy import OpEnergy, op_energy

FC = Op("Gemm", "fc", macs=1000, elements=10, weight_bytes=4000, activation_bytes=800)
ADD = Op("Add", "add", macs=0, elements=100, weight_bytes=0, activation_bytes=1200)
WORK = Workload((FC, ADD), weight_bytes=4000, parameters=1000, peak_activation_bytes=2000, state_bytes=0)


def test_float32_by_hand() -> None:
    energy = op_energy(WORK)
    assert energy.arithmetic_joules == pytest.approx(1000 * 4.6e-12 + 100 * 0.9e-12)
    assert energy.memory_joules == pytest.approx((4000 + 2000) / 8 * 10e-12)  # both memories are below 8 KB
    assert energy.joules == pytest.approx(energy.arithmetic_joules + energy.memory_joules)
    assert energy.dense_fp32_joules == pytest.approx(energy.joules)
    assert energy.dense_int8_joules == pytest.approx(1000 * 0.23e-12 + 100 * 0.03e-12 + (1000 + 500) / 8 * 10e-12)
    assert energy.table == "Horowitz, ISSCC 2014, 45 nm"
    assert energy.assumptions[0] == "45 nm table, for comparison only: not the energy of any board"


def test_int8_is_its_own_dense_equivalent() -> None:
    energy = op_energy(replace(WORK, ops=tuple(replace(op, dtype="int8") for op in WORK.ops)))
    assert energy.joules == pytest.approx(energy.dense_int8_joules)
    assert energy.dense_fp32_joules > 4 * energy.dense_int8_joules


def test_spikes_cost_additions_where_they_are() -> None:
    spiking = op_energy(replace(WORK, ops=(replace(FC, spike_rate=0.1),)))
    assert spiking.arithmetic_joules == pytest.approx(0.1 * 1000 * 0.9e-12)
    assert spiking.dense_fp32_joules == pytest.approx(op_energy(replace(WORK, ops=(FC,))).joules)


@pytest.mark.parametrize(("size", "per_access"), [(8192, 10), (8193, 20), (32_769, 100), (2_000_000, 100)])
def test_a_larger_memory_costs_more_an_access(size: int, per_access: float) -> None:
    energy = op_energy(Workload((replace(FC, weight_bytes=size, activation_bytes=0),), size, size // 4, 0, 0))
    assert energy.memory_joules == pytest.approx(size / 8 * per_access * 1e-12)
    bounded = "a memory of more than 1 MB costs as one of 1 MB: a lower bound" in energy.assumptions
    assert bounded == (size > 1024 * 1024)


def test_what_the_table_lacks_is_said() -> None:
    odd = op_energy(replace(WORK, ops=(replace(FC, dtype="int4"), replace(ADD, dtype="int32")), unknown=("Scan s: no rule",)))
    assert "int32, int4 at the cost of the nearest wider format of the table" in odd.assumptions
    assert "not included, because not counted: Scan s: no rule" in odd.assumptions
    assert odd.arithmetic_joules == pytest.approx(1000 * 0.23e-12 + 100 * 0.9e-12)


def test_views_cost_nothing() -> None:
    view = Op("Reshape", "r", 0, 100, 0, 0)
    assert op_energy(Workload((view,), 0, 0, 0, 0)).joules == 0


#: joules of one byte in a memory of up to 8 KB
BYTE = 10e-12 / 8


def spiking_energy(integer: bool = False) -> OpEnergy:
    firing = record(spiking(integer), spiking_signature(), {"x": SPIKING_INPUT}, "two steps made up")
    return op_energy(count(spiking(integer), spiking_signature(), firing))


def test_a_spiking_network_by_hand() -> None:
    """Layer a: 3 real inputs, 4 neurons; layer b: the window of their last two spikes, 5 of 16 values seen, 2 neurons."""
    energy = spiking_energy()
    rows = {row.name: row for row in energy.layers}
    assert list(rows) == [
        "a", "a_fires", "b", "b_fires", "Add, 2 nodes", "Mul, 2 nodes", "Cast, 2 nodes", "Where, 2 nodes", "Concat, 1 node",
    ]  # fmt: skip

    a = rows["a"]
    assert (a.kind, a.dtype, a.macs, a.spike_rate, a.accumulates, a.multiply_accumulates) == (
        "MatMul",
        "float32",
        12,
        None,
        0,
        12,
    )
    assert (a.weight_bytes, a.activation_bytes) == (4 * 12, 4 * (3 + 4))
    assert a.arithmetic_joules == pytest.approx(12 * 4.6e-12)

    b = rows["b"]
    assert (b.macs, b.spike_rate, b.accumulates, b.multiply_accumulates) == (16, 5 / 16, 5, 0)
    assert (b.weight_bytes, b.activation_bytes) == (4 * 16 * 5 / 16, 4 * (8 + 2))
    assert b.arithmetic_joules == pytest.approx(5 * 0.9e-12)
    assert (b.weight_joules, b.activation_joules) == (pytest.approx(20 * BYTE), pytest.approx(40 * BYTE))

    decisions = rows["a_fires"]
    assert (decisions.neuron_updates, decisions.element_operations, decisions.accumulates) == (4, 4, 0)
    assert (decisions.weight_bytes, decisions.activation_bytes) == (16, 16 + 4)  # thresholds; membranes read, booleans written
    assert decisions.arithmetic_joules == pytest.approx(4 * 0.9e-12)
    # membrane and drive read, sum written, of four and of two neurons
    assert (rows["Add, 2 nodes"].element_operations, rows["Add, 2 nodes"].activation_bytes) == (6, 3 * 16 + 3 * 8)
    # decision and h read, next membrane written; the rest is a constant
    assert (rows["Where, 2 nodes"].activation_bytes, rows["Where, 2 nodes"].weight_bytes) == (4 + 32 + 2 + 16, 16 + 8)
    assert rows["Concat, 1 node"].activation_bytes == 4 * (4 + 4 + 8)

    assert (energy.accumulates, energy.multiply_accumulates, energy.neuron_updates) == (5, 12, 6)
    elements = 4 * 5 + 8 + 2 * 5  # Add, Mul, compare, Cast and Where of a; the window; the same of b
    assert energy.arithmetic_joules == pytest.approx(12 * 4.6e-12 + 5 * 0.9e-12 + elements * 0.9e-12)
    weights = 48 + 20 + (4 + 16 + 16) + (4 + 8 + 8)  # of a, of b; half, threshold and rest of each
    moved = 28 + (48 + 32 + 20 + 20 + 36) + 64 + 40 + (24 + 16 + 10 + 10 + 18)
    assert energy.memory_joules == pytest.approx((weights + moved) * BYTE)
    assert energy.joules == pytest.approx(energy.arithmetic_joules + energy.memory_joules)
    assert energy.joules_dense_reads == pytest.approx(energy.joules + (64 - 20) * BYTE)
    dense = (12 + 16) * 4.6e-12 + elements * 0.9e-12 + (weights + 44 + moved) * BYTE
    assert energy.dense_fp32_joules == pytest.approx(dense)

    assert energy.prices == {
        "E_ac.float32": 0.9e-12,
        "E_add.float32": 0.9e-12,
        "E_mac.float32": 4.6e-12,
        "E_weight_byte": BYTE,
        "E_activation_byte": BYTE,
    }
    assert energy.formula.startswith("E = Σ spiking products: rate · MACs · E_ac")
    assert energy.rates_from == "two steps made up (n=1 of 2 steps)"
    for text in (
        f"a product of spikes costs an addition for each weight that meets a spike; rates from {energy.rates_from}",
        "weights of a product of spikes are read where there is a spike, at most once; joules_dense_reads reads all",
        "a neuron update costs what the operators it is made of cost, its membrane read and written included",
    ):
        assert text in energy.assumptions
    json.dumps(asdict(energy), allow_nan=False)


def test_int8_weights_are_added_to_an_int32_sum() -> None:
    energy = spiking_energy(integer=True)
    (b,) = (row for row in energy.layers if row.spike_rate is not None)
    assert (b.dtype, b.accumulates) == ("int8", 5)
    assert b.arithmetic_joules == pytest.approx(5 * 0.1e-12)
    assert b.weight_bytes == pytest.approx((16 + 4 + 1) * 5 / 16)  # sixteen weights, their scale and zero point
    assert b.activation_bytes == 8 + 4 * 2
    assert energy.prices["E_ac.int8"] == 0.1e-12
    assert "int8 weights are added to an int32 sum, at the price of an int32 addition" in energy.assumptions


def test_frames_that_share_weights_read_them_at_most_once() -> None:
    def read(rate: float, rows: int) -> float:
        (row,) = op_energy(replace(WORK, ops=(replace(FC, spike_rate=rate, rows=rows),))).layers
        return row.weight_bytes

    assert read(0.1, 1) == pytest.approx(400)
    assert read(0.1, 4) == pytest.approx(1600)
    assert read(0.1, 100) == 4000


def test_without_rates_spikes_are_priced_like_numbers() -> None:
    energy = op_energy(count(spiking(), spiking_signature()))
    assert (energy.accumulates, energy.multiply_accumulates, energy.neuron_updates, energy.rates_from) == (0, 28, 6, "")
    assert energy.joules == pytest.approx(energy.joules_dense_reads)
    assert energy.joules == pytest.approx(energy.dense_fp32_joules)
    assert "no spike rates were recorded: products of spikes are priced as multiply-accumulates" in energy.assumptions


def test_a_network_over_time_is_priced_like_the_same_unrolled() -> None:
    rolled, flat = (op_energy(count(graph(6, 4))) for graph in (scanned, unrolled))
    assert rolled.arithmetic_joules == pytest.approx(flat.arithmetic_joules)
    assert rolled.memory_joules == pytest.approx(flat.memory_joules)
    assert rolled.neuron_updates == flat.neuron_updates == 24


@settings(max_examples=30, deadline=None)
@given(
    ops=st.lists(
        st.builds(
            Op,
            st.sampled_from(["MatMul", "Add", "Gather"]),
            st.just("n"),
            macs=st.integers(0, 1000),
            elements=st.integers(0, 100),
            weight_bytes=st.integers(0, 1000),
            activation_bytes=st.integers(0, 1000),
            dtype=st.sampled_from(["float32", "int8", "int32"]),
            spike_rate=st.one_of(st.none(), st.floats(0, 1)),
            rows=st.integers(1, 50),
            neurons=st.integers(0, 10),
            calls=st.integers(1, 5),
        ),
        max_size=6,
    )
)
def test_rows_add_up_and_spikes_never_cost_more_than_numbers(ops: list[Op]) -> None:
    work = Workload(tuple(ops), 10_000, 0, 10_000, 0)
    energy = op_energy(work)
    total = sum(r.arithmetic_joules + r.weight_joules + r.activation_joules for r in energy.layers)
    assert total == pytest.approx(energy.joules)
    assert sum(r.macs for r in energy.layers) == work.macs
    assert sum(r.neuron_updates for r in energy.layers) == work.neurons
    numbers = op_energy(replace(work, ops=tuple(replace(op, spike_rate=None) for op in ops)))
    assert energy.joules <= energy.joules_dense_reads * (1 + 1e-9) <= numbers.joules * (1 + 2e-9)
