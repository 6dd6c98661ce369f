"""Seconds that each block and part of a network saves on a target: measured where it is this machine, else predicted.

Predicted: the roofline of one inference (Williams et al. 2009), the longer of arithmetic and the weights' way from memory, in
float32. Measured: medians of the whole-input form in torch at batch 1 with the block and without it, in turns; parts share
their block's time by multiply-accumulates.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from edgetk.core.bundle import Bundle
from edgetk.core.errors import PreconditionError
from edgetk.core.target import Target
from edgetk.models.layers.elements import Block, macs_of
from edgetk.models.layers.removal import delete

FLOAT_BYTES = 4
#: calls of each of the two models that one block is measured with
ROUNDS = 9


def require(target: Target | None, who: str) -> None:
    """Raise PreconditionError where nobody knows what takes how long on the target."""
    if target is None or not (target.measurable or _known(target)):
        raise PreconditionError(
            f"{who}: goal speed needs a target that is this machine or gives clock, memory bandwidth and MACs per cycle, got "
            f"{target.name if target is not None else 'none'}; choose goal size"
        )


def saved(bundle: Bundle, blocks: Sequence[Block], inputs: torch.Tensor) -> tuple[dict[str, float], str]:
    """Seconds by element, and "measured" or "predicted"."""
    target = bundle.target
    assert target is not None
    seconds: dict[str, float] = {}
    for block in blocks:
        if target.measurable:
            own = _measured(bundle, block, blocks, inputs)
            seconds |= {part.name: own * part.macs / max(1, block.macs) for part in block.parts}
        else:
            own = _predicted(target, block.macs, block.parameters)
            seconds |= {part.name: _predicted(target, part.macs, part.parameters) for part in block.parts}
        seconds[block.name] = own
    return seconds, "measured" if target.measurable else "predicted"


def _known(target: Target) -> bool:
    return target.clock_hz is not None and target.mem_bytes_per_s is not None and "float32" in target.macs_per_cycle


def _predicted(target: Target, macs: int, parameters: int) -> float:
    assert target.clock_hz is not None
    assert target.mem_bytes_per_s is not None
    rate = target.macs_per_cycle["float32"] * target.clock_hz
    return max(macs / rate, FLOAT_BYTES * parameters / target.mem_bytes_per_s)


def _measured(bundle: Bundle, block: Block, blocks: Sequence[Block], inputs: torch.Tensor) -> float:
    """Seconds of the whole block; where it cannot go whole, of all parts but one, scaled up."""
    away = {block.name} if block.whole else {p.name for p in block.parts[:-1]}
    body = copy.deepcopy(bundle.module)
    delete(body, blocks, away)
    both = (bundle.predict(), replace(bundle, body=body).predict())
    times: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for predict, seconds in zip(both, times, strict=True):
                start = time.perf_counter()
                predict(inputs[:1])
                seconds.append(time.perf_counter() - start)
    gained = max(0.0, statistics.median(times[0]) - statistics.median(times[1]))
    return gained * block.macs / max(1, macs_of(blocks, away))


__all__ = ["require", "saved"]
