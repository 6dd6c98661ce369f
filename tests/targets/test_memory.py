"""The memory plan: by hand, as laws over random lifetimes, and the parts of a model's RAM."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from target_graphs import ds_cnn, stream

from edgetk.core.target import Stack, Target
from edgetk.core.workload import Buffer, Op, Workload
from edgetk.targets.count import count
from edgetk.targets.liveness import peak_bytes
from edgetk.targets.memory import ALIGNMENT, place, plan, scratch_bytes

BOARD = Target(
    "b", "", "mcu", "run", Stack("s", "r"), 1e8, 1, {"float32": 1.0}, 1e8, ram_bytes=100_000, flash_bytes=100_000
)  # fmt: skip


def test_a_buffer_that_is_no_longer_needed_gives_its_place_away() -> None:
    placed = {p.buffer.name: p.offset for p in place([Buffer("a", 64, 0, 1), Buffer("b", 32, 1, 2), Buffer("c", 48, 2, 3)])}
    assert placed == {"a": 0, "c": 0, "b": 64}


def test_a_hole_between_two_buffers_is_used() -> None:
    """Largest first: a at 0, b behind it, c where a was before b needed its place; d fits between c and b."""
    buffers = [Buffer("a", 96, 0, 1), Buffer("b", 80, 1, 3), Buffer("c", 48, 2, 3), Buffer("d", 32, 2, 3)]
    placed = {p.buffer.name: p.offset for p in place(buffers)}
    assert placed == {"a": 0, "b": 96, "c": 0, "d": 48}


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 12), st.integers(0, 5)), max_size=25))
def test_no_two_live_buffers_overlap_and_no_plan_beats_the_peak(rows: list[tuple[int, int, int]]) -> None:
    buffers = [Buffer(str(i), size, first, first + length) for i, (size, first, length) in enumerate(rows)]
    placed = place(buffers)
    assert sorted(p.buffer.name for p in placed) == sorted(b.name for b in buffers)
    for p in placed:
        assert p.offset % ALIGNMENT == 0
        for q in placed:
            alive = p.buffer.first <= q.buffer.last and q.buffer.first <= p.buffer.last
            if p is not q and alive and p.buffer.size and q.buffer.size:
                assert p.offset + p.buffer.size <= q.offset or q.offset + q.buffer.size <= p.offset
    assert max((p.offset + p.buffer.size for p in placed), default=0) >= peak_bytes(buffers)


def test_the_peak_of_a_graph_is_that_of_its_buffers() -> None:
    work = count(ds_cnn())
    assert peak_bytes(work.buffers) == work.peak_activation_bytes
    assert plan(work, BOARD).arena_bytes >= work.peak_activation_bytes


def test_state_lies_beside_the_arena_and_is_written_into_it() -> None:
    """x 16 and kept 16, then the new state 16 and y 8; the old state of 16 is kept until the step ends."""
    work = count(stream())
    found = plan(work, BOARD)
    assert (found.state_bytes, found.flash_bytes) == (16, work.weight_bytes)
    assert found.arena_bytes == work.peak_activation_bytes == 48
    assert found.ram_bytes == 48 + 16
    assert plan(work, replace(BOARD, kind="cpu")).ram_bytes == 64 + work.weight_bytes


def test_scratch_is_two_widened_columns_of_a_dense_integer_convolution() -> None:
    dense = Op("Conv", "c", macs=9 * 4 * 100, elements=100, weight_bytes=36, activation_bytes=10, dtype="int8", rows=10)
    assert scratch_bytes(dense, BOARD) == 2 * 36 * 2
    assert scratch_bytes(replace(dense, groups=4), BOARD) == 0
    assert scratch_bytes(replace(dense, dtype="float32"), BOARD) == 0
    assert scratch_bytes(replace(dense, kind="Gemm"), BOARD) == 0
    assert scratch_bytes(dense, replace(BOARD, kind="gpu")) == 0
    work = Workload((dense,), 36, 36, 50, 0, buffers=(Buffer("x", 50, 0, 0),))
    assert plan(work, BOARD).ram_bytes == 50 + 144
