"""What goes into a model, what comes out, and what is carried from one step to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor. A string in `shape` is a symbolic dimension; `axes` names them, such as "B T F"."""

    name: str
    shape: Shape
    dtype: str = "float32"
    axes: str = ""

    def concrete(self, **sizes: int) -> tuple[int, ...]:
        """The shape with symbolic dimensions replaced by `sizes` (1 where not given)."""
        return tuple(d if isinstance(d, int) else sizes.get(d, 1) for d in self.shape)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype, "axes": self.axes}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TensorSpec:
        return cls(data["name"], tuple(data["shape"]), data["dtype"], data["axes"])


@dataclass(frozen=True)
class StateSpec:
    """One carried tensor: the input `spec` is fed with what the output `output` gave one step before.

    `init` is the value at the start of a stream, flattened; empty means zeros. `holds` says what the numbers are: "spikes" (0
    and 1), "membrane", "counts" (whole numbers from 0 on), or "values" for anything else.
    """

    spec: TensorSpec
    init: tuple[float, ...] = ()
    holds: str = "values"

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def output(self) -> str:
        """Name of the output that carries the next value."""
        return f"{self.spec.name}_out"

    def to_json(self) -> dict[str, Any]:
        # nine digits name a float32 exactly; more only swell the metadata
        init = [float(f"{v:.9g}") for v in self.init]
        return {**self.spec.to_json(), "output": self.output, "init": init, "holds": self.holds}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> StateSpec:
        return cls(TensorSpec.from_json(data), tuple(data["init"]), data.get("holds", "values"))  # older files say nothing


@dataclass(frozen=True)
class Signature:
    """Inputs, outputs and state of one callable form of a model.

    `period_s` is the time between two steps of a stream (None: not a stream); `lookahead_s` is how far behind the newest
    input the output is (algorithmic latency).
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    state: tuple[StateSpec, ...] = field(default=())
    period_s: float | None = None
    lookahead_s: float = 0.0

    @property
    def is_streaming(self) -> bool:
        return bool(self.state)

    @property
    def input_names(self) -> tuple[str, ...]:
        """All graph inputs in order: the inputs, then the states."""
        return tuple(t.name for t in self.inputs) + tuple(s.name for s in self.state)

    @property
    def output_names(self) -> tuple[str, ...]:
        """All graph outputs in order: the outputs, then the next states."""
        return tuple(t.name for t in self.outputs) + tuple(s.output for s in self.state)

    def to_json(self) -> dict[str, Any]:
        return {
            "inputs": [t.to_json() for t in self.inputs],
            "outputs": [t.to_json() for t in self.outputs],
            "state": [s.to_json() for s in self.state],
            "period_s": self.period_s,
            "lookahead_s": self.lookahead_s,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Signature:
        return cls(
            tuple(TensorSpec.from_json(t) for t in data["inputs"]),
            tuple(TensorSpec.from_json(t) for t in data["outputs"]),
            tuple(StateSpec.from_json(s) for s in data["state"]),
            data["period_s"],
            data["lookahead_s"],
        )
