"""One exported file: where it is, what it is, what it was built for, and the proof that it computes the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgetk.core.signature import Signature


@dataclass(frozen=True)
class Parity:
    """The outcome of running a file and the model it came from on the same inputs.

    `max_abs` is the largest difference of any output, `scale` the largest magnitude of the reference outputs, `bound` what
    was allowed (0: they must be equal bit for bit); `agreement` is the share of inputs with the same arg-max, over `n` inputs
    (streams: whole streams).
    """

    reference: str
    runtime: str
    n: int
    max_abs: float
    scale: float
    bound: float
    agreement: float

    @property
    def passed(self) -> bool:
        return self.max_abs <= self.bound

    def __str__(self) -> str:
        return f"{self.verdict} {self.reference} (n={self.n}, max |Δ| {self.max_abs:.1e} of {self.scale:.2g}, {self.allowed})"

    @property
    def verdict(self) -> str:
        """How the two compare, in words that the reference follows."""
        if not self.passed:
            return "NOT equal to"
        return "equal to" if self.bound else "bit-exact with"

    @property
    def allowed(self) -> str:
        """The bound in words."""
        return f"bound {self.bound:.1e}" if self.bound else "no difference allowed"

    def to_json(self) -> dict[str, Any]:
        return {
            "reference": self.reference,
            "runtime": self.runtime,
            "n": self.n,
            "max_abs": self.max_abs,
            "scale": self.scale,
            "bound": self.bound,
            "agreement": self.agreement,
            "passed": self.passed,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Parity:
        return cls(**{key: value for key, value in data.items() if key != "passed"})


@dataclass(frozen=True)
class Artifact:
    """A written file. `path` is relative to the run folder; `form` is "clip" or "stream"; `precision` such as "int8"."""

    path: str
    format: str
    form: str
    precision: str
    sha256: str
    size_bytes: int
    signature: Signature
    built_for: str
    parity: Parity | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "format": self.format,
            "form": self.form,
            "precision": self.precision,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "built_for": self.built_for,
            "signature": self.signature.to_json(),
            "parity": self.parity.to_json() if self.parity else None,
            "notes": list(self.notes),
        }
