"""A model in memory with all that a pass may need: `Bundle`, and the record each pass leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgetk.core.signature import Signature

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgetk.core.contracts import Data, Notebook
    from edgetk.core.target import Target


@dataclass(frozen=True)
class PassRecord:
    """One pass of a model's lineage: its name and settings, what it noted, and the `structure` it decided on.

    `structure` is what `Pass.rebuild` needs to give a freshly built body the same layers and shapes, without weights.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    structure: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        structure = dict(self.structure) if self.structure is not None else None
        return {"name": self.name, "settings": dict(self.settings), "notes": dict(self.notes), "structure": structure}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PassRecord:
        return cls(data["name"], data["settings"], data["notes"], data["structure"])


@dataclass(frozen=True)
class Form:
    """One way to call a model: "clip" (whole input at once) or "stream" (one step, state in, state out)."""

    name: str
    signature: Signature
    call: Callable[..., tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Bundle:
    """A model and what belongs to it; passes take one and give a new body.

    body       a torch module (its `forward(x, *state) -> (*outputs, *state)`), or an `onnx.ModelProto`
    signature  of `forward`; with state it is the stream form
    clip       of `body.clip(x) -> y`, the whole-input form of a streaming model; None where `forward` is that already
    source     how to build the body again: {"model": "lmuformer", "variant": "base", "config": {…}}
    task       name of the task it was made for, with its `labels`
    data       the opened data of the task: calibration inputs, splits, scoring; None where there is none
    target     the board it is being made for; None where there is none
    lineage    the passes it has been through
    original   the body as it was before any pass, for those that learn from it; not to be changed
    counterpart  zoo name of the model that this one is set beside in comparisons of energy; "" for none
    notebook   where a pass that takes long writes down how far it is; None where nobody keeps it
    """

    name: str
    body: Any
    signature: Signature
    clip: Signature | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    task: str = ""
    labels: tuple[str, ...] = ()
    data: Data | None = None
    target: Target | None = None
    lineage: tuple[PassRecord, ...] = ()
    original: Any = None
    counterpart: str = ""
    notebook: Notebook | None = None

    @property
    def is_torch(self) -> bool:
        """True for a torch module, False for an ONNX graph. Does not import torch."""
        return hasattr(self.body, "named_parameters")

    @property
    def module(self) -> nn.Module:
        """The body as a torch module."""
        assert self.is_torch, "the body is an ONNX graph"
        body: nn.Module = self.body
        return body

    def forms(self) -> tuple[Form, ...]:
        """The forms this torch model can be called in, the whole-input one first."""
        forms = []
        if self.clip is not None:
            forms.append(Form("clip", self.clip, lambda *x: (self.body.clip(*x),)))
        if self.signature.is_streaming:
            forms.append(Form("stream", self.signature, lambda *x: self.body(*x)))
        elif self.clip is None:
            forms.append(Form("clip", self.signature, lambda *x: _tuple(self.body(*x))))
        return tuple(forms)

    def predict(self) -> Callable[..., torch.Tensor]:
        """The callable that maps a batch of whole inputs to class scores."""
        form = self.forms()[0]
        return lambda *x: form.call(*x)[0]

    def with_body(self, body: Any, record: PassRecord | None = None, **changes: Any) -> Bundle:
        """The same bundle around another body, with one more line of lineage."""
        lineage = self.lineage if record is None else (*self.lineage, record)
        return replace(self, body=body, lineage=lineage, **changes)


def _tuple(y: Any) -> tuple[Any, ...]:
    return y if isinstance(y, tuple) else (y,)
