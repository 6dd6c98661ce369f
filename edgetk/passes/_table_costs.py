"""Where tables may stand: what layers read and give, whether the tables have room, and whether they pay on a target.

First-order prediction (Williams et al. 2009, roofline) of one layer for the tokens of one inference: the longer of arithmetic
and memory traffic, and an overhead for each operator. The native kernel takes 1.1 instructions of NEON for a product, counted
(benchmarks/kernel_instructions.py), two a cycle, which is assumed; it is never faster than float32. Of its tables it reads a
row for each token and table, but none twice; a dense layer reads all of its weights once. Where the stack has no native kernel,
the operator's body runs: it gathers rows, writes them as float32 and reads them again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgetk.core import units
from edgetk.core.bundle import Bundle
from edgetk.core.errors import PreconditionError
from edgetk.core.target import Target
from edgetk.tasks.training.loop import call

#: operators of the body that run on a device, each with its overhead
BODY_OPERATORS = 14
FLOAT_BYTES = 4
#: products of the native kernel in a cycle: two instructions, 1.1 for a product
KERNEL_MACS_PER_CYCLE = 2 / 1.1


@dataclass(frozen=True)
class Place:
    """A layer that tables may stand for: what it reads and gives, its weights, tokens an inference, and when it is called."""

    name: str
    inputs: int
    outputs: int
    bits: int
    weights: int
    tokens: int
    called: int

    @property
    def tables(self) -> int:
        return self.inputs // self.bits

    @property
    def entries(self) -> int:
        return int(self.tables * 2**self.bits * self.outputs)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a token, as the paper counts them."""
        return self.tables * (self.bits + self.outputs)

    def notes(self) -> dict[str, Any]:
        return {"tables": self.tables, "entries": self.entries, "weights_before": self.weights, "macs": self.macs}


def places(bundle: Bundle, names: Sequence[str], bits: int) -> list[Place]:
    """The layers `names` in the order they are called. Raises PreconditionError for what is no layer of tokens."""
    assert bundle.data is not None
    seen: dict[str, list[Any]] = {}

    def look(name: str) -> Any:
        def hook(layer: nn.Module, given: tuple[Any, ...], y: Any) -> None:
            seen.setdefault(name, [given, y, len(seen)])

        return hook

    handles = [bundle.module.get_submodule(name).register_forward_hook(look(name)) for name in names]
    try:
        with torch.no_grad():
            bundle.predict()(bundle.data.calibration(1))
    finally:
        for handle in handles:
            handle.remove()
    found = []
    for name in names:
        if name not in seen:
            raise PreconditionError(
                f"tabulate: layers must be called when the model runs, got {name}, which is not; add it to keep"
            )
        given, y, order = seen[name]
        tensors = len(given) == 1 and isinstance(given[0], Tensor) and isinstance(y, Tensor)
        if not tensors or given[0].shape[:-1] != y.shape[:-1]:
            raise PreconditionError(
                f"tabulate: layers must read one tensor (…, d) and give one (…, h), got {name}, which does not; leave it out"
            )
        inputs, outputs = given[0].shape[-1], y.shape[-1]
        if inputs % bits:
            raise PreconditionError(
                f"tabulate: the inputs of {name} must be a multiple of the hash's {bits} bits, got {inputs}; "
                "choose other bits or leave it out"
            )
        weights = sum(p.numel() for p in bundle.module.get_submodule(name).parameters())
        found.append(Place(name, inputs, outputs, bits, weights, given[0].numel() // inputs, order))
    return sorted(found, key=lambda p: p.called)


@torch.no_grad()
def record(body: nn.Module, name: str, inputs: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """What a layer reads (N, d) and gives (N, h) over `inputs`, at most `rows` tokens, evenly spaced."""
    pairs: list[tuple[Tensor, Tensor]] = []

    def hook(layer: nn.Module, given: tuple[Tensor, ...], y: Tensor) -> None:
        pairs.append((given[0].reshape(-1, given[0].shape[-1]), y.reshape(-1, y.shape[-1])))

    handle = body.get_submodule(name).register_forward_hook(hook)
    modes = [(m, m.training) for m in body.modules()]
    body.eval()
    try:
        for part in torch.split(inputs, 32):
            call(body, part)
    finally:
        handle.remove()
        for module, training in modes:
            module.training = training
    x, y = (torch.cat(parts).float() for parts in zip(*pairs, strict=True))
    some = torch.linspace(0, len(x) - 1, min(rows, len(x))).long()
    return x[some], y[some]


def require_room(bundle: Bundle, chosen: Sequence[Place]) -> None:
    """Raise PreconditionError where int8 tables and the other weights, a byte each, exceed the board's memory."""
    target = bundle.target
    if target is None:
        return
    tables = sum(p.entries for p in chosen)
    others = sum(p.numel() for p in bundle.module.parameters()) - sum(p.weights for p in chosen)
    for memory, has in (("flash", target.flash_bytes), ("RAM", None if target.kind == "mcu" else target.ram_bytes)):
        if has is not None and tables + others > has:
            raise PreconditionError(
                f"tabulate: int8 tables must fit into the {units.size(has)} of {memory} of {target.name}, got "
                f"{units.size(tables)} of tables in place of {units.size(sum(p.weights for p in chosen))} of int8 weights, and "
                f"{units.size(others)} of other weights; lower bits or replace fewer layers"
            )


@dataclass(frozen=True)
class Costs:
    """Predicted times of both kinds of layer on one target."""

    target: Target
    native: bool

    @classmethod
    def of(cls, target: Target) -> Costs | None:
        """None where the target does not give clock, bandwidth and MACs per cycle: nothing can be predicted then."""
        known = target.clock_hz is not None and target.mem_bytes_per_s is not None and "float32" in target.macs_per_cycle
        return cls(target, target.stack.runtime == "onnxruntime" and target.kind == "cpu") if known else None

    def dense_s(self, place: Place) -> float:
        """The int8 layer: as many MACs as it has weights."""
        moved = place.weights + place.tokens * (place.inputs + place.outputs)
        return self._seconds(place.tokens * place.weights, "int8", moved, 1)

    def lookup_s(self, place: Place) -> float:
        """The native kernel, or the operator's body."""
        chosen = place.tokens * place.tables * place.outputs
        edges = FLOAT_BYTES * place.tokens * (place.inputs + place.outputs)
        if self.native:
            moved = min(chosen, place.entries) + edges
            return self._seconds(place.tokens * place.macs, "float32", moved, 1, KERNEL_MACS_PER_CYCLE)
        moved = min(chosen, place.entries) + 2 * FLOAT_BYTES * chosen + edges
        return self._seconds(place.tokens * place.macs, "float32", moved, BODY_OPERATORS)

    def slower(self, place: Place) -> str | None:
        """Both times in words where the look-up is predicted not to be the faster one."""
        lookup, dense = self.lookup_s(place), self.dense_s(place)
        if lookup < dense:
            return None
        how = "the native kernel" if self.native else "its body"
        return f"{units.seconds(lookup)} ({how}) against {units.seconds(dense)} (n={place.tokens} tokens)"

    def _seconds(self, macs: int, dtype: str, moved: float, operators: int, most: float = math.inf) -> float:
        """At `most` so many multiply-accumulates a cycle."""
        target = self.target
        assert target.clock_hz is not None
        assert target.mem_bytes_per_s is not None
        rate = min(target.macs_per_cycle.get(dtype, target.macs_per_cycle["float32"]), most) * target.clock_hz
        return max(macs / rate, moved / target.mem_bytes_per_s) + target.overhead_s_per_op * operators


__all__ = ["Costs", "Place", "places", "record", "require_room"]
