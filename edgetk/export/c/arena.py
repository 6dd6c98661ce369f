"""Where intermediate results lie: each in the arena from the step that writes it to the last one that reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgetk.export.c.operands import Buffer
from edgetk.export.c.steps import Step, reads

ALIGN = 4


@dataclass(frozen=True)
class Arena:
    """Byte offset of each buffer, and the bytes in all."""

    offsets: Mapping[Buffer, int]
    size: int


def lay_out(steps: Sequence[Step]) -> Arena:
    """First fit, largest buffers first; two buffers share bytes only where no step needs both."""
    first: dict[Buffer, int] = {}
    last: dict[Buffer, int] = {}
    for i, step in enumerate(steps):
        for segment in (step.target, *reads(step)):
            if segment.buffer.place == "arena":
                first.setdefault(segment.buffer, i)
                last[segment.buffer] = i
    offsets: dict[Buffer, int] = {}
    for buffer in sorted(first, key=lambda b: (-b.bytes, first[b], b.name)):
        taken = sorted(
            (offsets[other], offsets[other] + _rounded(other))
            for other in offsets
            if first[other] <= last[buffer] and first[buffer] <= last[other]
        )
        start = 0
        for low, high in taken:
            if start + _rounded(buffer) <= low:
                break
            start = max(start, high)
        offsets[buffer] = start
    return Arena(offsets, max((offsets[b] + _rounded(b) for b in offsets), default=0))


def _rounded(buffer: Buffer) -> int:
    return -(-buffer.bytes // ALIGN) * ALIGN
