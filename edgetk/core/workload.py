"""Operations, bytes and state counted from an exported graph: all that a predictor sees of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Op:
    """One node of a graph, for one inference at batch 1.

    kind              operator type, such as "Conv"
    name              node name
    macs              multiply-accumulates (0 for element-wise and data movement)
    elements          output elements (the work of element-wise operators)
    weight_bytes      stored bytes of its constants, in their stored width
    activation_bytes  bytes read and written that are not constants
    dtype             number format the arithmetic runs in: "float32", "int8", …
    sparsity          share of zero weights
    spike_rate        share of non-zero inputs where they are spikes; None where they are not
    """

    kind: str
    name: str
    macs: int
    elements: int
    weight_bytes: int
    activation_bytes: int
    dtype: str = "float32"
    sparsity: float = 0.0
    spike_rate: float | None = None


@dataclass(frozen=True)
class Workload:
    """A graph as work: its operators, the peak of live activations, and the state it carries.

    `unknown` names every node whose work could not be counted, and why; predictors must not pass over it.
    """

    ops: tuple[Op, ...]
    weight_bytes: int
    parameters: int
    peak_activation_bytes: int
    state_bytes: int
    period_s: float | None = None
    unknown: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        return sum(op.macs for op in self.ops)

    def macs_by_dtype(self) -> Mapping[str, int]:
        """MACs per number format."""
        total: Counter[str] = Counter()
        for op in self.ops:
            total[op.dtype] += op.macs
        return {k: v for k, v in total.items() if v}

    def count_by_kind(self) -> Mapping[str, int]:
        """How many nodes of each operator type."""
        return dict(Counter(op.kind for op in self.ops).most_common())

    def to_json(self) -> dict[str, Any]:
        return {
            "macs": self.macs,
            "macs_by_dtype": dict(self.macs_by_dtype()),
            "parameters": self.parameters,
            "weight_bytes": self.weight_bytes,
            "peak_activation_bytes": self.peak_activation_bytes,
            "state_bytes": self.state_bytes,
            "operators": dict(self.count_by_kind()),
            "unknown": list(self.unknown),
        }
