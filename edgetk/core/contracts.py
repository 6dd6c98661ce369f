"""What each kind of plug-in promises. A plug-in module defines one agreed name; nothing is registered by hand.

kind       module                      defines   contract
model      edgetk/models/<name>.py     build     `build(variant, **config) -> Bundle`, VARIANTS DEFAULT if none is "base"
task       edgetk/tasks/<name>.py      TASK      `Task`
pass       edgetk/passes/<name>.py     PASS      `Pass` (a frozen dataclass; also edgetk/quant/<name>.py)
exporter   edgetk/export/to_<name>.py  EXPORTER  `Exporter`
meter      edgetk/targets/meters/…     METER     `Meter`
target     edgetk/targets/boards/*.toml          `Target`, as data
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from edgetk.core.artifact import Parity
from edgetk.core.bundle import Bundle
from edgetk.core.figures import Figure, Measured, Missing, Predicted, Score
from edgetk.core.signature import Signature
from edgetk.core.target import Target
from edgetk.core.workload import Workload

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import torch

    Predict = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Split:
    """Inputs and labels of one split, ready for a model: features (N, …) float32, labels (N,) int64 class indices.

    `origin` says what the examples are in one line; `official` marks those in the benchmark's own lists (None: all).
    """

    name: str
    features: torch.Tensor
    labels: torch.Tensor
    origin: str
    official: torch.Tensor | None = None


class Data(Protocol):
    """An opened data set of a task."""

    #: class names, in the order of the model's outputs
    labels: tuple[str, ...]
    #: where it was found, for the report: a folder, or "embedded sample"
    origin: str

    def split(self, name: str) -> Split:
        """The split "train", "validation" or "test". Raises InputError where the data set has none."""
        ...

    def calibration(self, n: int) -> torch.Tensor:
        """`n` inputs, balanced over the classes, never from the test split: (n, …) float32."""
        ...


@runtime_checkable
class TrainingData(Data, Protocol):
    """Data that models can be trained on: not every data set of a task has a training split."""

    #: the task's augmentations by the names that recipes use; "none" changes nothing
    augmentations: Mapping[str, Any]

    def batches(
        self, device: torch.device | str, augmentation: Any = None
    ) -> tuple[Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]], int]:
        """A function from rows of the training split (B,), on `device`, to inputs (B, …) and soft targets (B, K); and how
        many rows there are. `augmentation` is the task's own dataclass, None changes nothing.

        Raises InputError where there is no training split.
        """
        ...


class Task(Protocol):
    """A data set with its front end, metric and streaming rules.

    `front_end` holds the constants another runtime needs to compute the same features (they go into the metadata). Where an
    input is frames over time, `clip_frames` says how many of them are real, the first ones (the others are constant padding);
    `sample_rate`, `hop_samples` and `window_samples` when they come and how much each one sees.
    """

    name: str
    front_end: Mapping[str, Any]

    def open(self, folder: Path | None, labels: Sequence[str] | None = None) -> Data:
        """The data in `folder`, or the embedded sample where it is None; `labels` chooses and orders the classes.

        Raises InputError where nothing usable is there, or for None where no sample is embedded.
        """
        ...

    def score(self, predict: Predict, split: Split, official_only: bool = True) -> Score:
        """Run `predict` (features -> class scores) over a split."""
        ...

    def read(self, path: Path) -> torch.Tensor:
        """One input file, checked, as features for a batch of one. Raises InputError."""
        ...


@dataclass(frozen=True)
class PassResult:
    """What a pass hands back.

    body       the new module or graph
    modified   False: nothing was worth changing (the runner keeps the old body)
    notes      what the report prints: plain numbers and texts; where nothing was changed, `why` may say why in half a sentence
    structure  what `rebuild` needs to give a fresh body these layers and shapes; None where they did not change
    signature, clip   only where the pass declares a new interface
    """

    body: Any
    modified: bool
    notes: Mapping[str, Any] = field(default_factory=dict)
    structure: Mapping[str, Any] | None = None
    signature: Signature | None = None
    clip: Signature | None = None


class Notebook(Protocol):
    """What a pass that takes long writes down: a run that goes on after an interruption finds it again.

    Entries are plain data, in the order in which they were added.
    """

    def earlier(self) -> Sequence[Mapping[str, Any]]:
        """What this pass wrote before in this run."""
        ...

    def add(self, entry: Mapping[str, Any]) -> None:
        """One more entry."""
        ...

    def clear(self) -> None:
        """Forget all entries."""
        ...

    def remaining(self, steps: int) -> None:
        """At most so many more steps: for whoever waits."""
        ...


@runtime_checkable
class Pass(Protocol):
    """A small value: the settings are its dataclass fields, `__call__` is the work.

    The runner makes the private copy, verifies the promise, evaluates, records and checkpoints; a pass prints nothing and
    opens no file.
    """

    #: body types it works on: "torch", "onnx"
    accepts: ClassVar[tuple[str, ...]]
    #: True: outputs stay equal up to rounding, and the runner checks that
    lossless: ClassVar[bool]

    def check(self, bundle: Bundle) -> None:
        """Raise PreconditionError if it cannot work on `bundle`, before any work."""
        ...

    def __call__(self, bundle: Bundle) -> PassResult:
        """The work, on a body that may be changed in place."""
        ...

    def rebuild(self, body: Any, structure: Mapping[str, Any]) -> Any:
        """Give a freshly built `body` the recorded `structure`; weights are loaded afterwards."""
        ...


@dataclass(frozen=True)
class Lowered:
    """One form of a model as an ONNX graph: what exporters and the workload counter see.

    `precision` is "float32" or "int8"; `reference` runs the model in memory on the same inputs, for the parity proof. `exact`:
    its outputs and states must be those of the model bit for bit, because no sum in it is ever rounded. `hashed`: signs or
    ranks of rounded sums choose what it reads.
    """

    form: str
    graph: onnx.ModelProto
    signature: Signature
    precision: str
    reference: Callable[..., tuple[np.ndarray, ...]] | None = None
    exact: bool = False
    hashed: bool = False


@dataclass(frozen=True)
class Emitted:
    """A file an exporter made, still in memory: `name` relative to the run folder, and its parity proof where it has one.

    `built_for` is what it runs on where that is not the target of the run: an engine belongs to the GPU it was built on.
    """

    name: str
    content: bytes
    format: str
    lowered: Lowered
    parity: Parity | None = None
    notes: tuple[str, ...] = ()
    built_for: str = ""


class Exporter(Protocol):
    """Turns lowered graphs into files of one format."""

    format: str

    def check(self, bundle: Bundle, target: Target) -> None:
        """Raise PreconditionError or MissingExtra before any work."""
        ...

    def __call__(
        self, lowered: Sequence[Lowered], bundle: Bundle, target: Target, facts: Mapping[str, Any] | None = None
    ) -> Sequence[Emitted]:
        """The files. `facts` (recipe hash, accuracy, …) belong into their metadata where the format has any."""
        ...


class Predictor(Protocol):
    """A pure function of a workload and a target."""

    def __call__(self, workload: Workload, target: Target) -> Sequence[Predicted | Missing]: ...


class Meter(Protocol):
    """Runs an artifact on a real machine."""

    name: str

    def available(self) -> str | None:
        """None if it can measure here, else the reason why not."""
        ...

    def measure(self, path: Path, signature: Signature, budget_s: float = 2.0) -> Sequence[Measured | Missing]:
        """Latency of one inference at batch 1, and what else the meter sees."""
        ...


__all__ = [
    "Bundle", "Data", "Emitted", "Exporter", "Figure", "Lowered", "Meter", "Notebook", "Pass", "PassResult", "Predictor",
    "Score", "Split", "Task", "TrainingData",
]  # fmt: skip
