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
    name              node name; of a node inside a Scan: "<scan>/<node>"
    macs              multiply-accumulates (0 for element-wise and data movement), of all its calls
    elements          output elements (the work of element-wise operators), of all its calls
    weight_bytes      stored bytes of its constants, in their stored width
    activation_bytes  bytes read and written that are not constants (carried state is among them), of all its calls
    dtype             number format the arithmetic runs in: "float32", "int8", …
    sparsity          share of zero weights
    spike_rate        share of non-zero inputs where they are spikes; None where they are not, or nothing was recorded
    density           share of non-zero inputs of a product, spikes or not; None where nothing was recorded
    rows              input vectors that meet the same weights in one inference: frames of a clip, places of a convolution
    neurons           neuron updates: spike decisions of neurons that carry a membrane on (0 for any other node)
    calls             how often it runs in one inference: more than once inside a Scan
    groups            of a convolution: channels are cut into so many parts that don't see one another
    taps              of a convolution: places that its kernel covers
    source            name of the operator whose output this one reads and nobody else does; "" where there is not exactly one
    strided           a transposition that moves the last axis, a reduction along another: reads or writes single elements
    pieces            contiguous pieces of memory that it handles one by one, of all its calls: rows, runs (0: not by pieces)
    column            a transposition that moves the last axis: bytes from a number to the next one that it reads, and how many
                      follow one another so; (0, 0) for any other node
    requantized       its output is stored as integers: what a runtime needs to run a quantized product in integers to the end
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
    density: float | None = None
    rows: int = 1
    neurons: int = 0
    calls: int = 1
    groups: int = 1
    source: str = ""
    requantized: bool = False
    strided: bool = False
    pieces: int = 0
    column: tuple[int, int] = (0, 0)
    taps: int = 1

    @property
    def depth(self) -> int:
        """Products in one sum: multiply-accumulates of one output element; 0 for an operator that is no product."""
        return self.macs // self.elements if self.macs and self.elements else 0

    @property
    def accumulates(self) -> float:
        """Additions of a product of spikes: one for each weight that meets a spike; 0 for any other node."""
        return 0.0 if self.spike_rate is None else self.spike_rate * self.macs


@dataclass(frozen=True)
class Buffer:
    """One block of activation memory: needed from the operator `first` to the operator `last`, both included."""

    name: str
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Workload:
    """A graph as work: its operators, the peak of live activations, and the state it carries.

    `buffers` are the activations with their lifetimes, in steps of the graph's own nodes, for a static memory plan (empty where
    the shapes are not known). `tensors` is how many tensors go in and come out in one inference.

    `unknown` names every node whose work could not be counted, and why; predictors must not pass over it. `assumed` says, in
    words, which shapes could not be inferred and what they were taken for. `rates_from` says on what inputs spike rates and
    densities were recorded; empty where they were not.
    """

    ops: tuple[Op, ...]
    weight_bytes: int
    parameters: int
    peak_activation_bytes: int
    state_bytes: int
    period_s: float | None = None
    unknown: tuple[str, ...] = ()
    rates_from: str = ""
    buffers: tuple[Buffer, ...] = ()
    tensors: int = 0
    assumed: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        return sum(op.macs for op in self.ops)

    @property
    def accumulates(self) -> float:
        """Additions that stand for the multiply-accumulates of spikes; see `Op.accumulates`."""
        return sum(op.accumulates for op in self.ops)

    @property
    def neurons(self) -> int:
        """Neuron updates of one inference."""
        return sum(op.neurons for op in self.ops)

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
            "accumulates": self.accumulates,
            "neuron_updates": self.neurons,
            "rates_from": self.rates_from,
            "unknown": list(self.unknown),
            "assumed": list(self.assumed),
        }
