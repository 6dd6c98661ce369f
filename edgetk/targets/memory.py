"""Static memory plan: where each activation lies in one arena, the state beside it, the scratch of kernels, and the flash.

The arena is planned as static runtimes do: largest buffers first, each at the lowest offset at which no buffer that is alive at
the same time is in its way (greedy by size; Pisarchyk & Lee 2020, arXiv:2001.03288, algorithm 3). The peak of live bytes is a
lower bound of it. A recurrent state is kept twice, before and after the step, because the next one is written while the old
one is still read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetk.core import units
from edgetk.core.target import Target
from edgetk.core.workload import Buffer, Op, Workload
from edgetk.targets.kinds import product

#: where a buffer may begin
ALIGNMENT = 16


@dataclass(frozen=True)
class Placed:
    """A buffer and where it lies in the arena."""

    buffer: Buffer
    offset: int


@dataclass(frozen=True)
class Plan:
    """All bytes of a model on a board.

    arena_bytes    of the activations, placed; `placed` says where
    peak_bytes     what is alive at once: no plan can need less
    state_bytes    carried from step to step, beside the arena; the new state is in the arena until the step ends
    scratch_bytes  of the hungriest kernel
    weights_in_ram of a board that loads them; 0 where they run from flash
    flash_bytes    the weights; the runtime's own code is not included
    """

    arena_bytes: int
    peak_bytes: int
    state_bytes: int
    scratch_bytes: int
    weights_in_ram: int
    flash_bytes: int
    placed: tuple[Placed, ...]

    @property
    def ram_bytes(self) -> int:
        return self.arena_bytes + self.state_bytes + self.scratch_bytes + self.weights_in_ram


@dataclass(frozen=True)
class Fit:
    """Whether a model has room on a board: bytes it needs, and one reason for each memory that is too small.

    `ok` is None where the board does not say what it holds, and where what is needed rests on assumed shapes.
    """

    flash_bytes: int
    ram_bytes: int
    ok: bool | None
    reasons: tuple[str, ...]


def place(buffers: Sequence[Buffer]) -> tuple[Placed, ...]:
    """Offsets for buffers with lifetimes: no two that are alive at one step overlap."""
    done: list[Placed] = []
    for buffer in sorted(buffers, key=lambda b: (-b.size, b.first, b.name)):
        offset = 0
        for other in sorted(done, key=lambda p: p.offset):
            together = other.buffer.first <= buffer.last and buffer.first <= other.buffer.last
            if together and buffer.size and other.offset < offset + buffer.size:
                offset = max(offset, _aligned(other.offset + other.buffer.size))
        done.append(Placed(buffer, offset))
    return tuple(done)


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def scratch_bytes(op: Op, target: Target) -> int:
    """Working memory of a kernel: on a microcontroller, two columns of a convolution's input widened to 16 bits.

    That is the partial im2col of Lai, Suda & Chandra 2018, arXiv:1801.06601, section 3.2; other kernels need none.
    """
    if target.kind != "mcu" or op.dtype != "int8" or op.kind not in ("Conv", "ConvInteger", "QLinearConv"):
        return 0
    return 2 * op.depth * 2 if product(op) != "depthwise" else 0


def plan(workload: Workload, target: Target) -> Plan:
    """The memory plan of one inference at batch 1."""
    placed = place(workload.buffers)
    return Plan(
        arena_bytes=max((p.offset + p.buffer.size for p in placed), default=workload.peak_activation_bytes),
        peak_bytes=workload.peak_activation_bytes,
        state_bytes=workload.state_bytes,
        scratch_bytes=max((scratch_bytes(op, target) for op in workload.ops), default=0),
        weights_in_ram=0 if target.kind == "mcu" else workload.weight_bytes,
        flash_bytes=workload.weight_bytes,
        placed=placed,
    )


def _size(size: int, other: int) -> str:
    """A size as it is printed, to the byte where it would read like the other."""
    return units.size(size) if units.size(size) != units.size(other) else f"{size:,} B"


def fits(workload: Workload, target: Target) -> Fit:
    """Flash holds the weights; RAM arena, state and scratch, and the weights too unless they run from flash (mcu)."""
    found = plan(workload, target)
    needs = (("flash", found.flash_bytes, target.flash_bytes), ("RAM", found.ram_bytes, target.ram_bytes))
    reasons = [
        f"needs {_size(need, has)} of {name}, has {_size(has, need)}"
        for name, need, has in needs
        if has is not None and need > has
    ]
    if workload.unknown and not workload.peak_activation_bytes:
        reasons.append(f"RAM is not known: {workload.unknown[-1]}")
    silent = target.flash_bytes is None or target.ram_bytes is None or bool(workload.assumed)
    return Fit(found.flash_bytes, found.ram_bytes, None if silent and not reasons else not reasons, tuple(reasons))
