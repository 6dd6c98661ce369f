"""An unfinished training run on disk: its tensors and what they belong to, in one safetensors file that is replaced whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgetk.core.errors import InputError, UsageError
from edgetk.toolkit.workspace import Workspace

if TYPE_CHECKING:
    from edgetk.tasks.training.loop import Epoch, Training

FILE = "snapshot.safetensors"
_KEY = "edgetk-training"


@dataclass
class History:
    """What every epoch so far ended with, and the seconds of all of them, interruptions not counted."""

    loss: list[float] = field(default_factory=list)
    correct: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, epoch: Epoch) -> None:
        """One more epoch."""
        self.loss.append(round(epoch.loss, 6))
        self.correct.append(epoch.correct)
        self.seconds += epoch.seconds


def save(workspace: Workspace, training: Training, settings: Mapping[str, Any], history: History) -> None:
    """Replace the run's snapshot. `settings` is all that decides the outcome; `restore` compares it."""
    from safetensors.torch import save as pack

    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in training.snapshot().items()}
    head = json.dumps({"settings": settings, "history": vars(history)}, sort_keys=True)
    workspace.write(FILE, pack(tensors, metadata={_KEY: head}))


def epochs_done(workspace: Workspace) -> int | None:
    """How far the unfinished run in a folder is; None where there is none."""
    if not workspace.has(FILE):
        return None
    return len(_head(workspace, workspace.read(FILE))["history"]["loss"])


def restore(workspace: Workspace, training: Training, settings: Mapping[str, Any]) -> History | None:
    """Bring `training` where the snapshot is; None where there is no snapshot.

    Raises InputError for a damaged file, UsageError for one of a run with other settings.
    """
    from safetensors.torch import load

    if not workspace.has(FILE):
        return None
    content = workspace.read(FILE)
    head = _head(workspace, content)
    before, now = _flat(head["settings"]), _flat(json.loads(json.dumps(settings)))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise UsageError(
                f"train: --resume must go on with the same settings, got {key} = {now.get(key)!r} instead of "
                f"{before.get(key)!r}; repeat the first command, or remove {workspace.folder} to begin again"
            )
    training.restore(load(content))
    return History(**head["history"])


def _head(workspace: Workspace, content: bytes) -> dict[str, Any]:
    """The settings and history in a snapshot, after checking that all of the file is there."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        load(content)
        length = int.from_bytes(content[:8], "little")
        head: dict[str, Any] = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_KEY])
        History(**head["history"])
        head["settings"].items()
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"train: {workspace.path(FILE)} must be a whole snapshot of a run, got: {error}; "
            f"remove {workspace.folder} to begin again"
        ) from error
    return head


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted names."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
