"""The 45 nm table, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgetk.core.workload import Op, Workload
from edgetk.targets.op_energy import op_energy

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
