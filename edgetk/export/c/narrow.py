"""States that are only ever rounded: kept as the codes they are rounded to, a quarter of the bytes and no second rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgetk.export.c.operands import CODE, Buffer, Grid, Memory, Segment
from edgetk.export.c.steps import Copy, Loop, Plan, Step, reads


def narrow(plan: Plan) -> Plan:
    """The same step with codes instead of float32 in every state that allows it.

    A state allows it where one quantizer reads all of it, side by side with all that the state takes in next: then the codes
    of the next state are among those that quantizer makes, and rounding is done once for each value.
    """
    steps, states, starts = list(plan.steps), list(plan.states), list(plan.starts)
    for i, state in enumerate(plan.states):
        found = _window(steps, state)
        if found is None:
            continue
        first, window, grid, moves = found
        codes = Buffer(state.name, "state", CODE, state.size)
        steps[first] = Copy(steps[first].target, Segment(codes, 0, state.size))
        for at, source in moves.items():
            start = steps[at].target.start
            steps[at] = Copy(
                Segment(codes, start, source.size), Segment(window.buffer, window.start + source.start, source.size)
            )
        states[i] = codes
        values = np.clip(np.rint(starts[i] / np.float32(grid.scale)) + grid.zero, 0, 255)
        starts[i] = values.astype(np.uint8)
    return replace(plan, steps=tuple(steps), states=tuple(states), starts=tuple(starts))


def _window(steps: Sequence[Step], state: Buffer) -> tuple[int, Segment, Grid, dict[int, Segment]] | None:
    """The step that rounds the whole state, the codes it belongs to, their grid, and for each copy into the state the part
    of those codes that says the same; None where the state is needed as float32."""
    writes = [i for i, s in enumerate(steps) if s.target.buffer is state]
    readers = [i for i, s in enumerate(steps) if any(r.buffer is state for r in reads(s)) and i not in writes]
    if len(readers) != 1 or not all(isinstance(steps[i], Copy) for i in writes):
        return None
    step = steps[readers[0]]
    if not isinstance(step, Loop) or step.grid is None or not isinstance(step.expression, Memory):
        return None
    if step.expression.segments != (Segment(state, 0, state.size),):
        return None
    # everything rounded into the same codes, in float32 and as codes
    codes = step.target.buffer
    parts = [
        (s.expression.segments[0], s.target)
        for s in steps
        if isinstance(s, Loop) and s.target.buffer is codes and isinstance(s.expression, Memory) and s.grid == step.grid
    ]
    moves: dict[int, Segment] = {}
    for at in writes:
        copy = steps[at]
        assert isinstance(copy, Copy)
        for values, made in parts:
            inside = copy.source.start - values.start
            if copy.source.buffer is values.buffer and inside >= 0 and inside + copy.source.size <= values.size:
                moves[at] = Segment(codes, made.start + inside, copy.source.size)
        if at not in moves:
            return None
    return readers[0], Segment(codes, 0, codes.size), step.grid, moves
